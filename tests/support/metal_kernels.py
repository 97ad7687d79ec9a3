"""Every Metal kernel of a neuron on one shape, on whatever launches them, against Apple's table."""

from __future__ import annotations

import numpy as np

import jax_mps_neuron as jmn
from support import apple, zoo
from support.arrays import assert_close, draw
from support.metal_host import build

ALPHA = 1.25

# [matrices, rows, channels]: one element, one ragged tile, exact tiles, several strips and column tiles,
# vectors in several matrices, primes with several of all three.
SHAPES = [(1, 1, 1), (2, 7, 5), (1, 128, 128), (1, 129, 130), (2, 300, 3), (2, 40, 8), (2, 131, 137)]


def operands(shape, dtype, neuron, seed=0):
    """gradient, x, scalars, bias, slope of [M, rows, channels], as NumPy arrays."""
    matrices, _, channels = shape
    gradient, x = (np.asarray(draw(seed + i, shape, dtype, 1 + i)) for i in range(2))
    bias = np.asarray(draw(seed + 2, (matrices, channels), scale=0.5))
    prelu = neuron.type is jmn.NeuronType.PRELU
    scalars = np.tile(zoo.scalars(neuron, ALPHA), (matrices, 1))
    slope = np.tile(np.asarray(neuron.a, np.float32), (matrices, 1)) if prelu else None
    return gradient, x, scalars, bias, slope


def expected_of(gradient, x, neuron, bias):
    """Apple's gradients of each matrix, stacked."""
    each = [
        apple.neuron_gradient(gradient[m], x[m], neuron, None if bias is None else bias[m], ALPHA)
        for m in range(len(x))
    ]
    return apple.Gradient(*(np.stack(parts) for parts in zip(*each, strict=True)))


def expected_of_value(gradient, y, neuron):
    each = [
        apple.neuron_gradient_of_value(g, one, neuron, ALPHA) for g, one in zip(gradient, y, strict=True)
    ]
    return apple.Gradient(*(np.stack(parts) for parts in zip(*each, strict=True)))


def check(host, neuron, dtype, shape, order=0):
    """Every kernel of a neuron's type on one shape."""
    gradient, x, scalars, all_bias, slope = operands(shape, dtype, neuron)
    for kernel in build.kernels_of(neuron.type, dtype):
        bias = all_bias if kernel.bias else None
        if kernel.forward:
            y = host.forward(kernel, x, scalars, bias, slope, order=order)
            biases = [None] * len(x) if bias is None else bias
            expected = [apple.neuron(one, neuron, b, ALPHA) for one, b in zip(x, biases, strict=True)]
            assert_close(y, np.stack(expected), factor=2)
            continue
        if kernel.from_y:
            y = np.stack([apple.neuron(one, neuron, None, ALPHA) for one in x]).astype(x.dtype)
            results = host.gradient(kernel, gradient, y, scalars, bias, slope, order=order)
            expected = expected_of_value(gradient, y, neuron)
        else:
            results = host.gradient(kernel, gradient, x, scalars, bias, slope, order=order)
            expected = expected_of(gradient, x, neuron, bias)
        data, bias_sum, slope_sum = results
        assert_close(data, expected.data, factor=2)
        if kernel.bias_gradient:
            assert_close(bias_sum, expected.bias, factor=8)
        if kernel.slope_gradient:
            assert_close(slope_sum, expected.a, factor=8)
