"""What MatrixFullyConnectedGradient refuses."""

from __future__ import annotations

import numpy as np
import pytest

from jax_mps_neuron import MatrixFullyConnectedGradient as DenseGradient


def v(*shape):
    return np.zeros(shape, np.float32)


M34, M45 = v(3, 4), v(4, 5)


@pytest.mark.parametrize(
    ("error", "message", "kernel", "arguments"),
    [
        (
            ValueError,
            "source_output_feature_channels must be at most 4 .* has 4 columns .* has 5 columns",
            DenseGradient(),
            (M34, M45),
        ),
        (
            ValueError,
            r"secondary_source_matrix_origin must lie inside weight_matrix.* got \(4, 0\)",
            DenseGradient(secondary_source_matrix_origin=(4, 0)),
            (M34, v(4, 4)),
        ),
        (ValueError, r"alpha must be a scalar, got shape \(4,\)", DenseGradient(alpha=v(4)), (M34, M34)),
        (
            ValueError,
            r"result_gradient_for_data_matrix must have room for shape \(3, 3\) .* got shape \(2, 3\)",
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
        ("gradient_matrix has 3 rows .* input_matrix has 4 rows", (M34, M45)),
        (
            r"result_gradient_for_weight_matrix must have room for shape \(4, 4\) .* got shape \(3, 4\)",
            (M34, M34, M34),
        ),
        (
            r"result_gradient_for_weight_matrix must have 2 axes .* got shape \(4,\)",
            (M34, M34, v(4)),
        ),
        ("result_gradient_for_bias_vector must have at least 4 elements", (M34, M34, None, v(3))),
    ],
)
def test_fully_connected_gradient_refuses_for_weights_and_bias(message, arguments):
    with pytest.raises(ValueError, match=message):
        DenseGradient().encode_for_weights_and_bias(*arguments)
