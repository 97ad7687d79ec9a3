"""Derivatives where a branch that is not taken, or a square, overflows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

import jax_mps_neuron as jmn

Neuron = jmn.Neuron


def test_exponential_of_large_arguments(lowering):
    """c^u is finite where e^u is not."""
    x, neuron = jnp.asarray([100.0, 1.0, -3.0]), Neuron.exponential(1.0, 0.0, 1.5)

    def total(x, neuron):
        return jmn.neuron(x, neuron, lowering=lowering).sum()

    @jax.jit
    def derivatives(x, neuron):
        return jax.grad(total, 1)(x, neuron), jax.grad(lambda x: jax.grad(total)(x, neuron).sum())(x)

    of_x = np.float64(x)
    d, second = derivatives(x, neuron)
    np.testing.assert_allclose(d.a, (of_x * np.log(1.5) * 1.5**of_x).sum(), 1e-4)
    np.testing.assert_allclose(d.b, (np.log(1.5) * 1.5**of_x).sum(), 1e-4)
    np.testing.assert_allclose(second, np.log(1.5) ** 2 * 1.5**of_x, 1e-4)


def test_powers_of_negative_bases(lowering):
    """A fixed integer exponent makes no NaN of second derivatives; of one that moves there are none."""
    x, scale = jnp.asarray([-1.0, -2.0, 3.0]), jnp.float32(1.5)

    def total(alpha, x, c=3.0):
        return jmn.neuron(x, Neuron.power(1.0, 0.0, c), alpha=alpha, lowering=lowering).sum()

    plain = lambda alpha, x, c=3: ((alpha * x) ** c).sum()  # noqa: E731

    def fixed(f):
        return lambda alpha, x: [
            d(f)(alpha, x) for d in (jax.grad, lambda f: jax.grad(jax.grad(f)), jax.hessian)
        ]

    def moved(f):
        return lambda *o: [d(*o) for d in (jax.grad(f, 2), jax.grad(jax.grad(f, 2), 2))]

    for actual, exact in zip(*(jax.jit(fixed(f))(scale, x) for f in (total, plain)), strict=True):
        np.testing.assert_allclose(actual, exact, 1e-5)
    operands = scale, jnp.abs(x), jnp.float32(2.5)
    for actual, exact in zip(*(jax.jit(moved(f))(*operands) for f in (total, plain)), strict=True):
        np.testing.assert_allclose(actual, exact, 1e-5)
    assert jax.jit(jax.grad(total, 2))(scale, -jnp.abs(x), jnp.float32(2.0)) == 0.0  # there is none


def test_gelu_of_numbers_whose_square_overflows(lowering):
    def f(x):
        return jmn.neuron(x, Neuron.gelu(), lowering=lowering)

    second = jax.jit(jax.grad(jax.grad(f)))
    for x in (1e20, -1e20, 50.0):
        assert second(x) == 0.0
    assert jnp.isnan(second(jnp.nan))


def test_a_slope_beside_infinity(lowering):
    x = jnp.asarray([jnp.inf, -1.0])
    for make in (Neuron.relu, lambda a: Neuron.relun(a, 6.0)):
        total = lambda a, make=make: jmn.neuron(x, make(a), lowering=lowering).sum()  # noqa: E731
        assert jax.jit(jax.grad(total))(0.25) == -1.0
