"""What the four classes refuse: the error names the argument, what it must be and what it was."""

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
    (TypeError, "alpha must be an array or a number, got 'x'", {"alpha": "x"}),
    (TypeError, "label must be a string or None, got 3", {"label": 3}),
    (ValueError, "batch_start must be an integer of at least 0, got -1", {"batch_start": -1}),
    (TypeError, "batch_start must be an integer of at least 0, got None", {"batch_start": None}),
    (TypeError, "batch_size must be an integer of at least 0, got 1.5", {"batch_size": 1.5}),
    (
        ValueError,
        "source_number_of_feature_vectors must .* got -2",
        {"source_number_of_feature_vectors": -2},
    ),
    (ValueError, "source_input_feature_channels must .* got -2", {"source_input_feature_channels": -2}),
    (TypeError, r"result_matrix_origin must be \(row, column\), got 3", {"result_matrix_origin": 3}),
    (TypeError, r"origin must be \(row, column\), got \(1, 2, 0\)", {"result_matrix_origin": (1, 2, 0)}),
    (
        ValueError,
        "result_matrix_origin's row must be an integer of at least 0, got -1",
        {"result_matrix_origin": (-1, 0)},
    ),
    (
        TypeError,
        "result_matrix_origin's column must be an integer of at least 0, got 0.5",
        {"result_matrix_origin": (0, 0.5)},
    ),
]


@pytest.mark.parametrize(("error", "message", "properties"), PROPERTIES)
@pytest.mark.parametrize("cls", [MatrixNeuron, MatrixNeuronGradient, Dense, DenseGradient])
def test_refuses_properties(cls, error, message, properties):
    with pytest.raises(error, match=message):
        cls(**properties)
    (name, value), *_ = properties.items()
    with pytest.raises(error, match=message):
        getattr(cls(), f"set_{name}")(value)


MATRICES = [
    (TypeError, r"input_matrix must be an array or a number, got \[\[1\.0\]\]", MatrixNeuron(), [[1.0]]),
    (TypeError, "input_matrix must have dtype float32.*got int32", MatrixNeuron(), v(3, 4, dtype=np.int32)),
    (
        ValueError,
        r"input_matrix must have shape \[rows, columns\] or \[matrices, rows, columns\], got \(4,\)",
        MatrixNeuron(),
        v(4),
    ),
    (
        ValueError,
        r"source_matrix_origin must lie inside input_matrix, which has 3 rows and 4 columns, got \(3, 0\)",
        MatrixNeuron(source_matrix_origin=(3, 0)),
        M34,
    ),
    (
        ValueError,
        r"secondary_source_matrix_origin must lie inside weight_matrix.* got \(0, 5\)",
        Dense(secondary_source_matrix_origin=(0, 5)),
        M34,
        M45,
    ),
    (
        ValueError,
        r"primary_source_matrix_origin must lie inside gradient_matrix, which has 3 rows.* got \(1, 4\)",
        MatrixNeuronGradient(primary_source_matrix_origin=(1, 4)),
        M34,
        M34,
    ),
    (
        ValueError,
        r"source_input_feature_channels must be at most 3 here, got None: input_matrix has 4 columns from "
        r"its origin \(0, 0\), weight_matrix has 3 rows from its origin \(1, 0\)",
        Dense(secondary_source_matrix_origin=(1, 0)),
        M34,
        M45,
    ),
    (
        ValueError,
        "source_input_feature_channels must be at most 3 here, got 4: .* weight_matrix has 3 rows",
        Dense(source_input_feature_channels=4),
        M34,
        M34,
    ),
    (
        ValueError,
        "source_number_of_feature_vectors must be at most 3 .* gradient_matrix has 3 rows .* has 4 rows",
        MatrixNeuronGradient(),
        M34,
        v(4, 4),
    ),
    (
        ValueError,
        "source_input_feature_channels must be at most 4 .* gradient_matrix has 4 columns .* 5 columns",
        MatrixNeuronGradient(),
        M34,
        v(3, 5),
    ),
]

BATCHES = [
    (
        ValueError,
        r"must select from the 2 matrices of input_matrix \(shape \(2, 3, 4\)\), got 2 and None",
        MatrixNeuron(batch_start=2),
        B234,
    ),
    (
        ValueError,
        "batch_start and batch_size must select from the 2 matrices of input_matrix .* got 1 and 2",
        MatrixNeuron(batch_start=1, batch_size=2),
        B234,
    ),
    (
        ValueError,
        r"batch_start must be 0 .* for input_matrix, a single matrix of shape \(3, 4\), got 1 and None",
        MatrixNeuron(batch_start=1),
        M34,
    ),
    (
        ValueError,
        "batch_size 1 or None for input_matrix, a single matrix .* got 0 and 2",
        MatrixNeuron(batch_size=2),
        M34,
    ),
    (
        ValueError,
        "batch_size must be given .* got None: gradient_matrix has 1 matrices, input_matrix has 2 matrices",
        MatrixNeuronGradient(),
        B234[:1],
        B234,
    ),
    (
        ValueError,
        r"gradient_matrix and input_matrix must both have shape .* got \(3, 4\) and \(2, 3, 4\)",
        MatrixNeuronGradient(),
        M34,
        B234,
    ),
    (ValueError, r"input_matrix and weight_matrix must both .* \(2, 3, 4\)", Dense(), M34, B234),
]

VECTORS = [
    (
        ValueError,
        r"bias_vector must have at least 4 elements .* of input_matrix's region, got shape \(3,\)",
        MatrixNeuron(),
        M34,
        v(3),
    ),
    (ValueError, "bias_vector must have at least 5 .* weight_matrix's region", Dense(), M34, M45, v(4)),
    (ValueError, r"bias_vector must have shape \[length\], got \(2, 4\)", MatrixNeuron(), M34, v(2, 4)),
    (ValueError, r"\[length\] or \[vectors, length\], got \(\)", MatrixNeuron(), B234, 0.5),
    (TypeError, "bias_vector must have dtype .* got int32", MatrixNeuron(), M34, v(4, dtype=np.int32)),
    (
        ValueError,
        r"bias_vector must have at least 2 vectors for batch_start 1 and 1 matrices, got shape \(1, 4\)",
        MatrixNeuron(batch_start=1),
        B234,
        v(1, 4),
    ),
    (
        ValueError,
        "result_gradient_for_bias_vector must have at least 4 elements",
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
        r"result_matrix must have room for shape \(3, 4\) from \(1, 0\), got shape \(3, 4\)",
        MatrixNeuron(result_matrix_origin=(1, 0)),
        M34,
        None,
        M34,
    ),
    (
        ValueError,
        r"result_matrix must have 3 axes with room for shape \(2, 3, 4\), got shape \(3, 4\)",
        MatrixNeuron(),
        B234,
        None,
        M34,
    ),
    (
        ValueError,
        r"result_matrix must have room for shape \(1, 3, 4\) from \(1, 0, 0\), got shape \(1, 3, 4\)",
        MatrixNeuron(batch_start=1),
        B234,
        None,
        B234[:1],
    ),
    (
        TypeError,
        "result_matrix must have dtype .* got int32",
        MatrixNeuron(),
        M34,
        None,
        v(3, 4, dtype=np.int32),
    ),
    (
        ValueError,
        r"result_gradient_for_data_matrix must have room for shape \(3, 4\) .* got shape \(3, 3\)",
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
        r"a \(PReLU's slopes\) must be a scalar or have shape \(4,\) .* of the region, got shape \(3,\)",
        MatrixNeuron(Neuron.prelu(v(3))),
        M34,
    ),
    (
        ValueError,
        r"a \(PReLU's slopes\) must be a scalar or have shape \(2,\) .* got shape \(4,\)",
        MatrixNeuron(Neuron.prelu(v(4)), source_input_feature_channels=2),
        M34,
    ),
    (ValueError, r"shape \(4,\).* got shape \(3,\)", MatrixNeuronGradient(Neuron.prelu(v(3))), M34, M34),
    (ValueError, r"shape \(5,\).* got shape \(4,\)", Dense(Neuron.prelu(v(4))), M34, M45),
    (
        ValueError,
        "neuron must have slopes if it is a PRELU, got None. Use set_neuron_to_prelu_with_parameters_a",
        MatrixNeuron(Neuron(NeuronType.PRELU)),
        M34,
    ),
    (ValueError, r"a must be a scalar, got shape \(4,\)", MatrixNeuron(Neuron.elu(v(4))), M34),
    (ValueError, r"alpha must be a scalar, got shape \(4,\)", MatrixNeuron(alpha=v(4)), M34),
    (TypeError, "alpha must be a real number, got dtype complex", MatrixNeuron(alpha=1j), M34),
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
    with pytest.raises(TypeError, match=r"neuron must be a jax_mps_neuron\.Neuron, got 'gelu'"):
        MatrixNeuron("gelu")
