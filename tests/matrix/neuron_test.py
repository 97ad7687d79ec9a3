"""MatrixNeuron and MatrixNeuronGradient against loops, written from MPSMatrixNeuron.h."""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from support import apple, zoo
from support.arrays import assert_close
from support.regions import ALPHA, DTYPES, Case, at, operand, outside_unchanged, parameters, shifted, wide

NEURON_CASES = {
    "whole": Case(rows=4, channels=5, x=(4, 5), result=None, bias=None),
    "origins": Case(
        rows=3,
        channels=4,
        x=(6, 9),
        result=(7, 8),
        bias=(6,),
        properties={
            "source_matrix_origin": (1, 2),
            "result_matrix_origin": (2, 1),
            "source_number_of_feature_vectors": 3,
            "source_input_feature_channels": 4,
        },
    ),
    "more than there is": Case(
        rows=2,
        channels=3,
        x=(4, 6),
        result=(2, 3),
        bias=(3,),
        properties={
            "source_matrix_origin": (2, 3),
            "source_number_of_feature_vectors": 9,
            "source_input_feature_channels": 9,
        },
    ),
    "batch": Case(
        rows=2,
        channels=5,
        x=(4, 3, 5),
        result=(3, 4, 6),
        bias=(5,),
        matrices=range(1, 3),
        properties={
            "source_matrix_origin": (1, 0),
            "result_matrix_origin": (0, 1),
            "batch_start": 1,
            "batch_size": 2,
        },
    ),
    "a bias for each matrix": Case(
        rows=2,
        channels=3,
        x=(3, 2, 3),
        result=None,
        bias=(4, 4),
        matrices=range(1, 3),
        properties={"batch_start": 1},
    ),
}


@pytest.mark.parametrize("name", zoo.SOME)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matrix_neuron(name, dtype):
    def run(arguments):
        return [jmn.MatrixNeuron.encode(*a) for a in arguments]

    arguments = []
    for case in NEURON_CASES.values():
        kernel = jmn.MatrixNeuron(zoo.neurons(case.channels)[name], alpha=ALPHA, **case.properties)
        shapes = (case.x, case.bias, case.result)
        arguments.append((kernel, *(operand(i, shape, dtype) for i, shape in enumerate(shapes))))
    for case, (kernel, x, bias, result), y in zip(
        NEURON_CASES.values(), arguments, jax.jit(run)(arguments), strict=True
    ):
        expected = case.empty(case.rows, case.channels) if result is None else wide(result).copy()
        x64, bias64 = wide(x), wide(bias)
        for m, i, j in product(case.batch(), range(case.rows), range(case.channels)):
            z = ALPHA * x64[shifted(case.origin("source"), m, i, j)] + at(bias64, m, j)
            where = shifted(case.origin("result"), m, i, j)
            expected[where] = apple.f(kernel.neuron_type, z, *parameters(kernel.neuron, j))
        assert y.dtype == dtype
        assert_close(y, case.trimmed(expected) if result is None else expected)
        if result is not None:
            outside_unchanged(y, result, expected)


GRADIENT_CASES = {
    "whole": Case(rows=4, channels=5, x=(4, 5), other=(4, 5), result=None, bias=None),
    "whole with a bias": Case(rows=4, channels=5, x=(4, 5), other=(4, 5), result=None, bias=(5,)),
    "origins": Case(
        rows=3,
        channels=4,
        x=(6, 9),
        other=(5, 4),
        result=(7, 8),
        bias=(6,),
        sums=(7,),
        properties={
            "primary_source_matrix_origin": (2, 0),
            "secondary_source_matrix_origin": (1, 2),
            "result_matrix_origin": (2, 1),
            "source_number_of_feature_vectors": 3,
            "source_input_feature_channels": 4,
        },
    ),
    "a bias gradient without a bias": Case(
        rows=2, channels=3, x=(2, 3), other=(2, 3), result=None, bias=None, sums=(3,)
    ),
    "batch": Case(
        rows=2,
        channels=5,
        x=(4, 3, 6),
        other=(3, 2, 5),
        result=(3, 4, 6),
        bias=(5,),
        matrices=range(1, 3),
        properties={
            "secondary_source_matrix_origin": (1, 1),
            "result_matrix_origin": (0, 1),
            "batch_start": 1,
            "batch_size": 2,
        },
    ),
    "a bias for each matrix": Case(
        rows=2,
        channels=3,
        x=(3, 2, 3),
        other=(3, 2, 3),
        result=None,
        bias=(3, 4),
        sums=(4, 5),
        matrices=range(1, 3),
        properties={"batch_start": 1},
    ),
    "one bias, a gradient for each matrix": Case(
        rows=2,
        channels=3,
        x=(2, 2, 3),
        other=(2, 2, 3),
        result=None,
        bias=(3,),
        sums=(2, 3),
        matrices=range(2),
    ),
    "a bias for each matrix, one gradient": Case(
        rows=2,
        channels=3,
        x=(2, 2, 3),
        other=(2, 2, 3),
        result=None,
        bias=(2, 3),
        sums=(3,),
        matrices=range(2),
    ),
}


@pytest.mark.parametrize("name", zoo.SOME)
@pytest.mark.parametrize("dtype", DTYPES)
def test_matrix_neuron_gradient(name, dtype):
    def run(arguments):
        return [jmn.MatrixNeuronGradient.encode(*a) for a in arguments]

    arguments = []
    for case in GRADIENT_CASES.values():
        kernel = jmn.MatrixNeuronGradient(zoo.neurons(case.channels)[name], alpha=ALPHA, **case.properties)
        shapes = (case.other, case.x, case.bias, case.result, case.sums)
        arguments.append((kernel, *(operand(i, shape, dtype) for i, shape in enumerate(shapes))))
    for case, argument, actual in zip(
        GRADIENT_CASES.values(), arguments, jax.jit(run)(arguments), strict=True
    ):
        check_matrix_neuron_gradient(case, *argument, actual)


def check_matrix_neuron_gradient(case, kernel, gradient, x, bias, result, sums, actual):
    data = case.empty(case.rows, case.channels) if result is None else wide(result).copy()
    like = next((v for v in (sums, bias) if v is not None), np.zeros(case.channels))
    d_bias, slopes = wide(like).copy(), np.zeros(case.channels)
    for m, j in product(case.batch() if d_bias.ndim == 2 else [()], range(case.channels)):
        d_bias[(*m, j)] = 0
    g64, x64, bias64 = wide(gradient), wide(x), wide(bias)
    for m, i, j in product(case.batch(), range(case.rows), range(case.channels)):
        z = ALPHA * x64[shifted(case.origin("secondary_source"), m, i, j)] + at(bias64, m, j)
        g = g64[shifted(case.origin("primary_source"), m, i, j)]
        d = apple.df(kernel.neuron_type, z, *parameters(kernel.neuron, j)) * g
        data[shifted(case.origin("result"), m, i, j)] = ALPHA * d
        d_bias[(*m, j) if d_bias.ndim == 2 else j] += d
        slopes[j] += g * min(z, 0.0)
    assert_close(actual.data, case.trimmed(data) if result is None else data)
    if result is not None:
        outside_unchanged(actual.data, result, data)
    if bias is None and sums is None:
        assert actual.bias is None
    else:
        assert actual.bias.dtype == like.dtype
        assert_close(actual.bias, d_bias, factor=4)
    if sums is not None:
        outside_unchanged(actual.bias, sums, d_bias)
    if kernel.neuron_type is jmn.NeuronType.PRELU:
        assert_close(actual.a, slopes, "float32", factor=8)
    else:
        assert actual.a is None


def test_sums_over_rows_and_matrices_are_rounded_once():
    """257 is no bfloat16: a sum rounded for each matrix would come to 256 times as many."""
    ones, matrices = jnp.ones((100, 257, 1), "bfloat16"), 100
    kernel = jmn.MatrixNeuronGradient(jmn.Neuron.prelu(jnp.ones(1, "bfloat16")))
    bias = jnp.zeros((matrices, 1), "bfloat16")
    actual = kernel.encode(-ones, -ones, bias, None, jnp.zeros(1))
    assert actual.bias == -257 * matrices
    assert actual.a == jnp.bfloat16(257 * matrices)
    shared = kernel.encode(-ones, -ones, jnp.zeros(1, "bfloat16"), None, jnp.zeros(1))
    assert shared.bias == -257 * matrices
