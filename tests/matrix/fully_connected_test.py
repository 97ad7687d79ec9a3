"""MatrixFullyConnected and its gradient against loops, written from MPSMatrixFullyConnected.h."""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from support import apple, zoo
from support.arrays import assert_close, draw
from support.regions import ALPHA, DTYPES, Case, at, operand, outside_unchanged, parameters, shifted, wide

FULLY_CONNECTED_CASES = {
    "whole": Case(rows=4, channels=5, outputs=3, x=(4, 5), other=(5, 3), result=None, bias=None),
    "origins": Case(
        rows=3,
        channels=4,
        outputs=2,
        x=(6, 9),
        other=(7, 5),
        result=(7, 8),
        bias=(6,),
        properties={
            "primary_source_matrix_origin": (1, 2),
            "secondary_source_matrix_origin": (2, 1),
            "result_matrix_origin": (4, 5),
            "source_number_of_feature_vectors": 3,
            "source_input_feature_channels": 4,
            "source_output_feature_channels": 2,
        },
    ),
    "more than there is": Case(
        rows=2,
        channels=3,
        outputs=4,
        x=(4, 6),
        other=(5, 4),
        result=(2, 4),
        bias=(4,),
        properties={
            "primary_source_matrix_origin": (2, 3),
            "secondary_source_matrix_origin": (2, 0),
            "source_number_of_feature_vectors": 9,
            "source_input_feature_channels": 9,
            "source_output_feature_channels": 9,
        },
    ),
    "weights that a batch shares": Case(
        rows=2,
        channels=3,
        outputs=4,
        x=(4, 3, 3),
        other=(3, 4),
        result=(3, 4, 6),
        bias=(4,),
        matrices=range(1, 3),
        properties={
            "primary_source_matrix_origin": (1, 0),
            "result_matrix_origin": (0, 1),
            "batch_start": 1,
            "batch_size": 2,
        },
    ),
    "weights and a bias for each matrix": Case(
        rows=2,
        channels=3,
        outputs=4,
        x=(3, 2, 3),
        other=(3, 3, 5),
        result=None,
        bias=(4, 4),
        matrices=range(1, 3),
        properties={"batch_start": 1, "source_output_feature_channels": 4},
    ),
}


def dyadic(seed, shape, dtype):
    """Numbers whose sums of a few products every dtype holds exactly."""
    return jnp.asarray(np.random.default_rng(seed).integers(-2, 3, shape) / 2, dtype)


@pytest.mark.parametrize("name", zoo.SOME)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matrix_fully_connected(name, dtype):
    def run(arguments):
        return [jmn.MatrixFullyConnected.encode(*a) for a in arguments]

    arguments = []
    for case in FULLY_CONNECTED_CASES.values():
        kernel = jmn.MatrixFullyConnected(zoo.neurons(case.outputs)[name], alpha=ALPHA, **case.properties)
        x, w = dyadic(0, case.x, dtype), dyadic(1, case.other, dtype)
        arguments.append((kernel, x, w, operand(2, case.bias, dtype), operand(3, case.result, dtype)))
    for case, (kernel, x, w, bias, result), y in zip(
        FULLY_CONNECTED_CASES.values(), arguments, jax.jit(run)(arguments), strict=True
    ):
        expected = case.empty(case.rows, case.outputs) if result is None else wide(result).copy()
        x64, w64, bias64 = wide(x), wide(w), wide(bias)
        for m, i, j in product(case.batch(), range(case.rows), range(case.outputs)):
            z = at(bias64, m, j)
            for k in range(case.channels):
                of_x = x64[shifted(case.origin("primary_source"), m, i, k)]
                of_w = w64[shifted(case.origin("secondary_source"), m if w.ndim == 3 else (), k, j)]
                z += ALPHA * of_x * of_w
            where = shifted(case.origin("result"), m, i, j)
            expected[where] = apple.f(kernel.neuron_type, np.float64(z), *parameters(kernel.neuron, j))
        assert y.dtype == dtype
        assert_close(y, case.trimmed(expected) if result is None else expected)
        if result is not None:
            outside_unchanged(y, result, expected)


PROPERTIES = {
    "primary_source_matrix_origin": (1, 2),
    "secondary_source_matrix_origin": (0, 1),
    "result_matrix_origin": (2, 0),
    "source_number_of_feature_vectors": 3,
    "source_output_feature_channels": 4,
    "source_input_feature_channels": 2,
}
ROWS, OUTPUTS, INPUTS = 3, 4, 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", ["one", "several", "shared"])
def test_matrix_fully_connected_gradient_for_data(dtype, batch):
    lead = () if batch == "one" else (4,)
    properties = PROPERTIES | ({} if batch == "one" else {"batch_start": 1, "batch_size": 2})
    kernel = jmn.MatrixFullyConnectedGradient(alpha=ALPHA, **properties)
    gradient, result = draw(0, (*lead, 5, 6), dtype), draw(2, (*lead, 6, 4), dtype)
    w = draw(1, (*(() if batch == "shared" else lead), 3, 5), dtype)
    expected, g64, w64 = wide(result).copy(), wide(gradient), wide(w)
    for m, i, j in product([()] if batch == "one" else [(1,), (2,)], range(ROWS), range(INPUTS)):
        expected[(*m, 2 + i, j)] = ALPHA * sum(
            g64[(*m, 1 + i, 2 + k)] * w64[(*(m if w.ndim == 3 else ()), j, 1 + k)] for k in range(OUTPUTS)
        )
    actual = jax.jit(kernel.encode_for_data)(gradient, w, result)
    assert actual.dtype == dtype
    assert_close(actual, expected)
    outside_unchanged(actual, result, expected)
    alone = kernel.encode_for_data(gradient, w)
    assert alone.dtype == dtype
    start = 0 if batch == "one" else 1
    assert_close(alone, expected[2:5, :2] if batch == "one" else expected[start : start + 2, 2:5, :2])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", ["one", "several", "shared"])
def test_matrix_fully_connected_gradient_for_weights_and_bias(dtype, batch):
    lead = () if batch == "one" else (4,)
    of_results = lead if batch == "several" else ()
    properties = PROPERTIES | ({} if batch == "one" else {"batch_start": 1, "batch_size": 2})
    kernel = jmn.MatrixFullyConnectedGradient(alpha=ALPHA, **properties)
    gradient, x = draw(0, (*lead, 5, 6), dtype), draw(1, (*lead, 4, 4), dtype)
    weights, bias = draw(2, (*of_results, 5, 4), dtype), draw(3, (*of_results, 5), dtype)
    d_weights, d_bias, g64, x64 = wide(weights).copy(), wide(bias).copy(), wide(gradient), wide(x)
    matrices = [()] if batch == "one" else [(1,), (2,)]
    for m, j in product(matrices if of_results else [()], range(OUTPUTS)):
        d_bias[(*m, j)] = 0
        for k in range(INPUTS):
            d_weights[(*m, 2 + k, j)] = 0
    for m, i, j in product(matrices, range(ROWS), range(OUTPUTS)):
        to = m if of_results else ()
        g = g64[(*m, 1 + i, 2 + j)]
        d_bias[(*to, j)] += g
        for k in range(INPUTS):
            d_weights[(*to, 2 + k, j)] += ALPHA * g * x64[(*m, i, 1 + k)]
    actual = jax.jit(kernel.encode_for_weights_and_bias)(gradient, x, weights, bias)
    assert actual.weights.dtype == actual.bias.dtype == dtype
    assert_close(actual.weights, d_weights)
    assert_close(actual.bias, d_bias)
    outside_unchanged(actual.weights, weights, d_weights)
    outside_unchanged(actual.bias, bias, d_bias)
    alone = kernel.encode_for_weights_and_bias(gradient, x)
    if batch != "shared":
        lead = (slice(1, 3),) if of_results else ()
        assert_close(alone.weights, d_weights[(*lead, slice(2, 4), slice(4))])
        assert_close(alone.bias, d_bias[(*lead, slice(4))])
    else:  # one for each matrix, which a given result of fewer axes sums
        assert_close(alone.weights.astype("float32").sum(0), d_weights[2:4, :4], dtype, factor=4)


def test_half_products_go_to_a_float32_result_unrounded():
    gradient, x = draw(0, (300, 4), "bfloat16"), draw(1, (300, 3), "bfloat16")
    actual = jmn.MatrixFullyConnectedGradient().encode_for_weights_and_bias(
        gradient, x, jnp.zeros((3, 4)), jnp.zeros(4)
    )
    assert_close(actual.weights, wide(x).T @ wide(gradient), factor=4)
    assert_close(actual.bias, wide(gradient).sum(0), factor=4)
