"""The special functions against float64: NumPy's and SciPy's, and, through them, Apple's table."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import jax_mps_neuron as jmn
from jax_mps_neuron._core import formulas, special
from support import apple
from support.arrays import x64

GELU = jmn.NeuronType.GELU


def gelu_derivative(z):
    return apple.df(GELU, np.asarray(z, np.float64), 1.0, 0.0, 1.0)


def halves(dtype):
    """Every finite value."""
    values = np.arange(2**16, dtype=np.uint16).view(jnp.dtype(dtype))
    return values[np.isfinite(values.astype(np.float32))]


def errors(got, exact):
    """In units of the last place of the result's dtype, where the exact result is a normal number, and not
    so large that a factor of it may overflow."""
    limits = jnp.finfo(got.dtype)
    normal = (np.abs(exact) >= float(limits.tiny)) & (np.abs(exact) <= float(limits.max) / 8)
    unit = np.exp2(np.floor(np.log2(np.abs(exact[normal]))) - limits.nmant)
    return np.abs(np.asarray(got, np.float64)[normal] - exact[normal]) / unit


@pytest.mark.parametrize("function", [special.gelu_derivative, special.coarse_gelu_derivative])
def test_gelu_derivative(function):
    z = np.concatenate([np.linspace(-9, 9, 200_001), np.geomspace(1e-30, 9, 20_001)]).astype(np.float32)
    got = np.asarray(jax.jit(function)(z), np.float64)
    # exp(-z^2 / 2) carries the rounding of z^2. At its zero, f' carries that of the zero.
    bound = 5e-7 * np.maximum(1, z**2) * np.abs(gelu_derivative(z)) + 2e-8
    assert (np.abs(got - gelu_derivative(z)) <= bound).all()
    at = function(jnp.float32([0.0, -0.0, np.nan, 3e38, -3e38]))
    np.testing.assert_array_equal(at, np.float32([0.5, 0.5, np.nan, 1, 0]))


def test_gelu_derivatives_of_higher_order():
    """(2 - z^2) phi(z), and its derivative, (z^2 - 4) z phi(z)."""
    z = np.linspace(-6, 6, 1001, dtype=np.float32)
    second, third = jax.grad(special.gelu_derivative), jax.grad(jax.grad(special.gelu_derivative))
    wide = z.astype(np.float64)
    np.testing.assert_allclose(jax.vmap(second)(z), (2 - wide**2) * norm.pdf(wide), rtol=5e-5, atol=1e-8)
    np.testing.assert_allclose(
        jax.vmap(third)(z), (wide**2 - 4) * wide * norm.pdf(wide), rtol=5e-5, atol=1e-7
    )


def test_gelu_derivative_in_float64():
    with x64(True):
        z = np.linspace(-30, 30, 1001)
        np.testing.assert_allclose(special.gelu_derivative(z), gelu_derivative(z), rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("x_dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (GELU, (1.0, 0.0, 1.0)),
        *((jmn.NeuronType.POWER, (0.5, 0.25, c)) for c in (-1.5, 0.5, 1.0, 2.75, 3.0, 4.0, 9.0)),
        *((jmn.NeuronType.EXPONENTIAL, (0.5, 0.25, c)) for c in (-1.0, 0.25, 1.0, 2.0, 10.0)),
    ],
)
def test_coarse_derivatives_round_like_exact_ones(kind, parameters, x_dtype):
    """Of every value: half a unit in the last place, and the same NaN."""
    x = halves(x_dtype)
    if kind is GELU:  # below, exp underflows where the CPU flushes it, and the result would not
        x = x[x.astype(np.float32) > -13]
    scalars = jnp.float32(parameters)

    def coarse(x, scalars):
        return formulas.derivative(kind, x.astype(jnp.float32), *scalars, coarse=True).astype(x_dtype)

    got = jax.jit(coarse)(x, scalars)
    exact = apple.df(kind, x.astype(np.float64), *parameters)
    np.testing.assert_array_equal(np.isnan(np.asarray(got, np.float64)), np.isnan(exact))
    of_each = errors(got, exact)
    assert of_each.size == 0 or of_each.max() < 0.505


def test_coarse_power_as_ieee():
    inf, nan = np.inf, np.nan
    x = np.float32([-inf, -8, -1, -0.0, 0.0, 1e-37, 0.5, 1, 8, inf, nan])
    for y in np.float32([-3, -2, -0.625, 0, 0.625, 1, 2, 3, 2.0**24 + 2]):
        got = np.asarray(jax.jit(special.coarse_power)(x, y))
        with np.errstate(all="ignore"):
            exact = np.power(x, y)
        if y != np.floor(y):
            got, exact = got[1:], exact[1:]  # of -infinity it makes NaN
        np.testing.assert_allclose(got, exact, rtol=2e-5)
        known = ~np.isnan(exact)
        np.testing.assert_array_equal(np.signbit(got)[known], np.signbit(exact)[known])
