"""Vectors that are not whole: their padding must not reach results or sums."""

from __future__ import annotations

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from support import apple
from support.arrays import assert_close, draw
from support.checks import Call, check_values_and_gradients

pytestmark = pytest.mark.usefixtures("native_library")

CHANNELS = (1, 3, 5, 7, 13, 37, 67)


def test_an_infinite_slope_of_the_padding(dtype):
    """f'(0) is infinite, and 0 times infinity is NaN. Joined rows keep other columns' sums behind it."""
    calls = []
    for channels in (1, 3, 5, 37):
        for rows in (1, 67, 1025):
            x = jnp.abs(draw(rows, (rows, channels), dtype)) + jnp.asarray(0.5, dtype)
            bias = jnp.zeros(channels, dtype)
            calls.append(Call(draw(channels, x.shape, dtype), x, jmn.Neuron.logarithm(1.0, 0.0), bias))
    check_values_and_gradients(calls, "custom_call")


def test_sums_beside_nan():
    """A NaN stays in its own column, also at either end of a row."""
    for channels in CHANNELS[1:]:
        x, gradient = np.array(draw(0, (200, channels))), np.array(draw(1, (200, channels)))
        for nan in {0, channels - 1}:
            gradient[:, nan] = np.nan
            neuron, bias = jmn.Neuron.prelu(draw(2, (channels,))), draw(3, (channels,))
            actual = jmn.neuron_gradient(gradient, x, neuron, bias, lowering="custom_call")
            expected = apple.neuron_gradient(gradient, x, neuron, bias)
            for got, want in zip(actual, expected, strict=True):
                np.testing.assert_array_equal(np.isnan(got), np.isnan(want))
            assert_close(actual.bias, expected.bias, factor=4)
            gradient[:, nan] = 1.0


def test_sums_of_none_in_place(dtype):
    """The data gradient takes the gradient's buffer, so only the sums are computed."""
    neuron = jmn.Neuron.none()
    gradients = [draw(c, (50, c), dtype) for c in CHANNELS]

    @jax.jit
    def every(gradients):
        # Negated, the gradients are the program's own, so that their buffers can be taken over.
        return [
            jmn.neuron_gradient(-g, g, neuron, jnp.zeros(g.shape[-1:], dtype), lowering="custom_call")
            for g in gradients
        ]

    for gradient, actual in zip(gradients, every(gradients), strict=True):
        expected = apple.neuron_gradient(-gradient, gradient, neuron)
        assert_close(actual.data, expected.data)
        assert_close(actual.bias, expected.bias, factor=4)


def test_a_bfloat16_nan_stays_one(native_library):
    """Also one whose payload is in the bits that bfloat16 does not have."""
    bits = np.array([0x7FFFFFFF, 0xFFFFFFFF, 0x7FC00001, 0x7FFF8000, 0xFFC0FFFF], np.uint32)
    x = jnp.zeros((3, len(bits)), jnp.bfloat16)
    y = jmn.neuron(x, jmn.Neuron.none(), bits.view(np.float32), lowering="custom_call")
    assert np.isnan(np.asarray(y, np.float32)).all()


def test_relun_below_zero(dtype, lowering):
    """With a negative b, numbers between b and 0 are beyond b."""
    neuron = jmn.Neuron.relun(0.25, -0.75)
    x = jnp.asarray(np.tile([-9.0, -4.0, -3.5, -1.0, -0.75, -0.5, 0.0, 0.5, 2.0], (2, 5)), dtype)
    check_values_and_gradients([Call(jnp.ones_like(x), x, neuron, None)], lowering)


@pytest.mark.parametrize(
    ("exponent", "a"),
    # With 2^126, the factor a c is close to the largest float32.
    [*product([2.75, -1.5, 3.0, 40.5], [2.0**90, 2.0**-90]), (2.75, 2.0**126), (-1.5, 2.0**126)],
)
def test_powers_with_extreme_factors(exponent, a):
    """f' is a c (a x)^(c - 1), finite where neither a c nor the power is near 1."""
    x = np.linspace(0.5, 2.0, 1001, dtype=np.float32) / np.float32(a)
    neuron = jmn.Neuron.power(a, 0.0, exponent)
    data = jmn.neuron_gradient(np.ones_like(x), x, neuron, lowering="custom_call").data
    exact = apple.neuron_gradient(np.ones_like(x), x, neuron).data
    normal = (np.abs(exact) < 2.0**127) & (np.abs(exact) > 2.0**-120)
    np.testing.assert_allclose(np.asarray(data)[normal], exact[normal], rtol=3e-6)
