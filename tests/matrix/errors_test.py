"""What the four classes refuse: with the argument's name, the numbers, and what it may be."""

from __future__ import annotations

import re

import numpy as np
import pytest

from jax_mps_neuron import MatrixFullyConnected as Dense
from jax_mps_neuron import MatrixFullyConnectedGradient as DenseGradient
from jax_mps_neuron import MatrixNeuron, MatrixNeuronGradient, Neuron, NeuronType


def v(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


M34, M45, B234 = v(3, 4), v(4, 5), v(2, 3, 4)

PROPERTIES = [
    (TypeError, "alpha is 'x'; it may be an array", {"alpha": "x"}),
    (TypeError, "label is 3; it may be a string or None", {"label": 3}),
    (ValueError, "batch_start is -1; it may be an integer from 0", {"batch_start": -1}),
    (TypeError, "batch_start is None; it may be an integer from 0", {"batch_start": None}),
    (TypeError, "batch_size is 1.5; it may be an integer from 0", {"batch_size": 1.5}),
    (ValueError, "source_number_of_feature_vectors is -2", {"source_number_of_feature_vectors": -2}),
    (ValueError, "source_input_feature_channels is -2", {"source_input_feature_channels": -2}),
    (TypeError, r"result_matrix_origin is 3; it may be \(row, column\)", {"result_matrix_origin": 3}),
    (TypeError, r"origin is \(1, 2, 0\); it may be \(row, column\)", {"result_matrix_origin": (1, 2, 0)}),
    (ValueError, "result_matrix_origin's row is -1", {"result_matrix_origin": (-1, 0)}),
    (TypeError, "result_matrix_origin's column is 0.5", {"result_matrix_origin": (0, 0.5)}),
]


@pytest.mark.parametrize(("error", "message", "properties"), PROPERTIES)
@pytest.mark.parametrize("kind", [MatrixNeuron, MatrixNeuronGradient, Dense, DenseGradient])
def test_refuses_properties(kind, error, message, properties):
    with pytest.raises(error, match=message):
        kind(**properties)
    (name, value), *_ = properties.items()
    with pytest.raises(error, match=message):
        getattr(kind(), f"set_{name}")(value)


MATRICES = [
    (TypeError, r"input_matrix is \[\[1\.0\]\]; it may be an array", MatrixNeuron(), [[1.0]]),
    (TypeError, "input_matrix has dtype int32; it may be float32", MatrixNeuron(), v(3, 4, dtype=np.int32)),
    (
        ValueError,
        r"input_matrix has shape \(4,\); it may have shape \[rows, columns\] or \[matrices, row",
        MatrixNeuron(),
        v(4),
    ),
    (
        ValueError,
        r"source_matrix_origin is \(3, 0\), which lies outside of input_matrix: it has 3 rows and 4 col",
        MatrixNeuron(source_matrix_origin=(3, 0)),
        M34,
    ),
    (
        ValueError,
        r"secondary_source_matrix_origin is \(0, 5\), which lies outside of weight_matrix",
        Dense(secondary_source_matrix_origin=(0, 5)),
        M34,
        M45,
    ),
    (
        ValueError,
        r"primary_source_matrix_origin is \(1, 4\), which lies outside of gradient_matrix: it has 3 rows",
        MatrixNeuronGradient(primary_source_matrix_origin=(1, 4)),
        M34,
        M34,
    ),
    (
        ValueError,
        r"input_matrix has 4 columns from its origin \(0, 0\) but weight_matrix has 3 rows from its origin "
        r"\(1, 0\), and source_input_feature_channels is None; they may have as many, or .* at most 3",
        Dense(secondary_source_matrix_origin=(1, 0)),
        M34,
        M45,
    ),
    (
        ValueError,
        "weight_matrix has 3 rows .* and source_input_feature_channels is 4; .* at most 3",
        Dense(source_input_feature_channels=4),
        M34,
        M34,
    ),
    (
        ValueError,
        "gradient_matrix has 3 rows .* but input_matrix has 4 rows .* source_number_of_feature_vectors is",
        MatrixNeuronGradient(),
        M34,
        v(4, 4),
    ),
    (
        ValueError,
        "gradient_matrix has 4 columns .* but input_matrix has 5 columns .* source_input_feature_channels",
        MatrixNeuronGradient(),
        M34,
        v(3, 5),
    ),
]

BATCHES = [
    (
        ValueError,
        r"batch_start is 2 and batch_size None, but input_matrix has 2 matrices \(shape \(2, 3, 4\)\)",
        MatrixNeuron(batch_start=2),
        B234,
    ),
    (
        ValueError,
        "batch_start is 1 and batch_size 2, but input_matrix has 2 matrices",
        MatrixNeuron(batch_start=1, batch_size=2),
        B234,
    ),
    (
        ValueError,
        r"batch_start is 1 .* but input_matrix is one matrix, of shape \(3, 4\): they may be 0 and 1",
        MatrixNeuron(batch_start=1),
        M34,
    ),
    (ValueError, "batch_size 2, but input_matrix is one matrix", MatrixNeuron(batch_size=2), M34),
    (
        ValueError,
        "gradient_matrix has 1 matrices but input_matrix has 2 matrices, and batch_size is None",
        MatrixNeuronGradient(),
        B234[:1],
        B234,
    ),
    (
        ValueError,
        r"gradient_matrix has shape \(3, 4\) but input_matrix has shape \(2, 3, 4\); both may be \[rows",
        MatrixNeuronGradient(),
        M34,
        B234,
    ),
    (ValueError, r"\(3, 4\) but weight_matrix has shape \(2, 3, 4\)", Dense(), M34, B234),
]

VECTORS = [
    (
        ValueError,
        r"bias_vector has 3 elements \(shape \(3,\)\), but the region of input_matrix has 4 columns",
        MatrixNeuron(),
        M34,
        v(3),
    ),
    (ValueError, "bias_vector has 4 elements .* weight_matrix has 5 columns", Dense(), M34, M45, v(4)),
    (ValueError, r"bias_vector has shape \(2, 4\); .* shape \[length\]$", MatrixNeuron(), M34, v(2, 4)),
    (ValueError, r"shape \(\); .* \[length\] or \[vectors, length\]$", MatrixNeuron(), B234, 0.5),
    (TypeError, "bias_vector has dtype int32", MatrixNeuron(), M34, v(4, dtype=np.int32)),
    (
        ValueError,
        r"bias_vector has 1 vectors \(shape \(1, 4\)\), but batch_start 1 and 1 matrices need 2",
        MatrixNeuron(batch_start=1),
        B234,
        v(1, 4),
    ),
    (
        ValueError,
        "result_gradient_for_bias_vector has 3 elements",
        MatrixNeuronGradient(),
        M34,
        M34,
        None,
        None,
        v(3),
    ),
]

RESULTS = [
    (
        ValueError,
        r"result_matrix has shape \(3, 4\), in which the region does not fit: shape \(3, 4\) from \(1, 0\)",
        MatrixNeuron(result_matrix_origin=(1, 0)),
        M34,
        None,
        M34,
    ),
    (
        ValueError,
        r"result_matrix has shape \(3, 4\); it may have 3 axes, with room for \(2, 3, 4\)",
        MatrixNeuron(),
        B234,
        None,
        M34,
    ),
    (
        ValueError,
        r"result_matrix has shape \(1, 3, 4\), in which .* \(1, 3, 4\) from \(1, 0, 0\)",
        MatrixNeuron(batch_start=1),
        B234,
        None,
        B234[:1],
    ),
    (TypeError, "result_matrix has dtype int32", MatrixNeuron(), M34, None, v(3, 4, dtype=np.int32)),
    (
        ValueError,
        r"result_gradient_for_data_matrix has shape \(3, 3\), in which the region does not fit",
        MatrixNeuronGradient(),
        M34,
        M34,
        None,
        v(3, 3),
    ),
]

NEURONS = [
    (
        ValueError,
        r"a \(PRELU's slopes\) has shape \(3,\), but the region has 4 channels; it may have shape \(4,\)",
        MatrixNeuron(Neuron.prelu(v(3))),
        M34,
    ),
    (
        ValueError,
        r"a \(PRELU's slopes\) has shape \(4,\), but the region has 2 channels",
        MatrixNeuron(Neuron.prelu(v(4)), source_input_feature_channels=2),
        M34,
    ),
    (ValueError, r"shape \(3,\).* 4 channels", MatrixNeuronGradient(Neuron.prelu(v(3))), M34, M34),
    (ValueError, r"shape \(4,\).* 5 channels", Dense(Neuron.prelu(v(4))), M34, M45),
    (
        ValueError,
        "neuron is a PRELU without slopes; set_neuron_to_prelu_with_parameters_a sets them",
        MatrixNeuron(Neuron(NeuronType.PRELU)),
        M34,
    ),
    (ValueError, r"a has shape \(4,\); it may be a scalar", MatrixNeuron(Neuron.elu(v(4))), M34),
    (ValueError, r"alpha has shape \(4,\); it may be a scalar", MatrixNeuron(alpha=v(4)), M34),
    (TypeError, "alpha has dtype complex", MatrixNeuron(alpha=1j), M34),
]

REFUSED = [*MATRICES, *BATCHES, *VECTORS, *RESULTS, *NEURONS]


def label(case):
    return re.sub(r"\W+", " ", case[1])[:60]


@pytest.mark.parametrize("case", REFUSED, ids=label)
def test_refuses(case):
    error, message, kernel, *arguments = case
    with pytest.raises(error, match=message):
        kernel.encode(*arguments)


def test_refuses_what_is_no_neuron():
    with pytest.raises(TypeError, match=r"neuron is 'gelu'; it may be a jax_mps_neuron\.Neuron"):
        MatrixNeuron("gelu")


@pytest.mark.parametrize(
    ("error", "message", "kernel", "arguments"),
    [
        (
            ValueError,
            "gradient_matrix has 4 columns .* but weight_matrix has 5 columns .* source_output_feature_ch",
            DenseGradient(),
            (M34, M45),
        ),
        (
            ValueError,
            r"secondary_source_matrix_origin is \(4, 0\), which lies outside of weight_matrix",
            DenseGradient(secondary_source_matrix_origin=(4, 0)),
            (M34, v(4, 4)),
        ),
        (ValueError, r"alpha has shape \(4,\); it may be a scalar", DenseGradient(alpha=v(4)), (M34, M34)),
        (
            ValueError,
            r"result_gradient_for_data_matrix has shape \(2, 3\), in which .* \(3, 3\) from \(0, 0\)",
            DenseGradient(),
            (M34, M34, v(2, 3)),
        ),
    ],
)
def test_fully_connected_gradient_refuses_for_data(error, message, kernel, arguments):
    with pytest.raises(error, match=message):
        kernel.encode_for_data(*arguments)


@pytest.mark.parametrize(
    ("message", "arguments"),
    [
        ("gradient_matrix has 3 rows .* but input_matrix has 4 rows", (M34, M45)),
        (
            r"result_gradient_for_weight_matrix has shape \(3, 4\), in which .* \(4, 4\) from \(0, 0\)",
            (M34, M34, M34),
        ),
        (
            r"result_gradient_for_weight_matrix has shape \(4,\); it may have 2 axes",
            (M34, M34, v(4)),
        ),
        ("result_gradient_for_bias_vector has 3 elements", (M34, M34, None, v(3))),
    ],
)
def test_fully_connected_gradient_refuses_for_weights_and_bias(message, arguments):
    with pytest.raises(ValueError, match=message):
        DenseGradient().encode_for_weights_and_bias(*arguments)
