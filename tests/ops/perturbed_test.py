"""Gradients of one equation with respect to different arguments, one after the other.

JAX traces the rules of an equation once per pattern of differentiated arguments and keeps them, so what
one gradient leaves behind must not change the next.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

import jax_mps_neuron as jmn

X, BIAS, SLOPES = (
    np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4),
    np.float32([1, -1, 0.5, 0]),
    np.full(4, 0.25, np.float32),
)
PATTERNS = [(0, 1, 3), (0,), (0, 1), (1,), (3,), (0, 2)]


def layer(x, bias, alpha, slopes):
    return jmn.neuron(x, jmn.Neuron.prelu(slopes), bias, alpha=alpha)


def traced(x, bias, alpha, slopes):
    return jaxpr_as_fun(JAXPR)(x, bias, alpha, slopes)[0]


def reference(x, bias, alpha, slopes):
    return jmn.reference.neuron(x, jmn.Neuron.prelu(slopes), bias, alpha=alpha)


ARGUMENTS = tuple(map(jnp.asarray, (X, BIAS, np.float32(1.5), SLOPES)))
JAXPR = jax.make_jaxpr(layer)(*ARGUMENTS)


@pytest.mark.parametrize("function", [layer, jax.jit(layer), jax.jit(layer, inline=True), traced])
def test_patterns_do_not_mix(function):
    for pattern in (*PATTERNS, *reversed(PATTERNS)):
        gradients = jax.grad(lambda *a: function(*a).sum(), pattern)(*ARGUMENTS)
        expected = jax.grad(lambda *a: reference(*a).sum(), pattern)(*ARGUMENTS)
        for actual, of_reference in zip(gradients, expected, strict=True):
            np.testing.assert_allclose(actual, of_reference, rtol=1e-5, atol=1e-5)


def test_residual_y_after_a_gradient_that_keeps_x():
    """A gradient of alpha keeps x where others keep y."""

    def value(x, alpha):
        return jmn.neuron(x, jmn.Neuron.tanh(), alpha=alpha, residual="y").sum()

    x = jnp.asarray(X)
    jax.grad(value, (0, 1))(x, 1.0)
    first = jax.grad(value)(x, 1.0)
    jax.grad(value, (0, 1))(x, 1.0)
    np.testing.assert_allclose(jax.grad(value)(x, 1.0), 1 - np.tanh(X) ** 2, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(first, 1 - np.tanh(X) ** 2, rtol=1e-5, atol=1e-6)
