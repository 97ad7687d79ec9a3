"""The check of calls' values and gradients against Apple's table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

import jax_mps_neuron as jmn
from jax_mps_neuron._lowering import native
from support import apple
from support.arrays import assert_close

ALPHA = 1.25

# The routes that this machine can run.
LOWERINGS = ("inline",) if native.unavailable_reason() else ("inline", "custom_call")


class Call(NamedTuple):
    gradient: Any
    x: Any
    neuron: jmn.Neuron
    bias: Any


def check_values_and_gradients(calls: Iterable[Call], lowering: str) -> None:
    """Asserts that values and gradients are Apple's, for all calls in one program."""
    calls = list(calls)

    @jax.jit
    def every(calls):
        return [
            (
                jmn.neuron(x, neuron, bias, alpha=ALPHA, lowering=lowering),
                jmn.neuron_gradient(gradient, x, neuron, bias, alpha=ALPHA, lowering=lowering),
            )
            for gradient, x, neuron, bias in calls
        ]

    for call, (y, gradients) in zip(calls, every(calls), strict=True):
        _check(call, y, gradients)


def _check(call: Call, y: Any, actual: jmn.NeuronGradient) -> None:
    gradient, x, neuron, bias = call
    assert y.dtype == x.dtype
    assert_close(y, apple.neuron(x, neuron, bias, ALPHA))
    expected = apple.neuron_gradient(gradient, x, neuron, bias, ALPHA)
    assert actual.data.dtype == x.dtype
    assert_close(actual.data, expected.data)
    # Sums are made in float32 at least, but are returned in the bias's dtype.
    if bias is None:
        assert actual.bias is None
    else:
        assert actual.bias.dtype == bias.dtype
        assert_close(actual.bias, expected.bias, factor=4)
    if neuron.type is jmn.NeuronType.PRELU:
        # One slope is that of all channels, and so is its gradient.
        want = (
            expected.a if neuron.a.shape == expected.a.shape else expected.a.sum().reshape(neuron.a.shape)
        )
        assert actual.a.dtype == neuron.a.dtype
        assert_close(actual.a, want, "float32", factor=4)
    else:
        assert actual.a is None
