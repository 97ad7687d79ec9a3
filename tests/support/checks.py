"""The check of a call's values and gradients against Apple's table."""

from __future__ import annotations

import jax

import jax_mps_neuron as jmn
from support import apple
from support.arrays import assert_close


def check_values_and_gradients(gradient, x, neuron, bias, lowering):
    alpha, dtype = 1.25, x.dtype

    @jax.jit
    def both(gradient, x, neuron, bias):
        y = jmn.neuron(x, neuron, bias, alpha=alpha, lowering=lowering)
        return y, jmn.neuron_gradient(gradient, x, neuron, bias, alpha=alpha, lowering=lowering)

    y, actual = both(gradient, x, neuron, bias)
    assert y.dtype == dtype
    assert_close(y, apple.neuron(x, neuron, bias, alpha))
    expected = apple.neuron_gradient(gradient, x, neuron, bias, alpha)
    assert actual.data.dtype == dtype
    assert_close(actual.data, expected.data)
    # Sums are made in float32 at least, but are returned in the bias's dtype.
    if bias is None:
        assert actual.bias is None
    else:
        assert actual.bias.dtype == bias.dtype
        assert_close(actual.bias, expected.bias, factor=4)
    if neuron.type is jmn.NeuronType.PRELU:
        assert actual.a.dtype == neuron.a.dtype
        assert_close(actual.a, expected.a, "float32", factor=4)
    else:
        assert actual.a is None
