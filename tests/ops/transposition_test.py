"""The gradient is linear in the incoming gradient: its transpose."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from support import apple, zoo
from support.arrays import assert_close, draw


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("kind", ["gelu", "prelu"])
def test_transpose_of_the_gradient(kind, with_bias):
    """The gradient is linear in the incoming gradient, and <w, L g> = <L' w, g>."""
    neuron, x = zoo.neurons(4)[kind], draw(31, (3, 4))
    bias = draw(32, (4,)) if with_bias else None

    def linear(gradient):
        return jmn.neuron_gradient(gradient, x, neuron, bias, alpha=1.5)

    gradient = draw(33, x.shape)
    weights = jax.tree.map(lambda result: draw(34, result.shape), linear(gradient))
    (transposed,) = jax.linear_transpose(linear, x)(weights)
    products = jax.tree.map(jnp.vdot, weights, linear(gradient))
    np.testing.assert_allclose(
        jnp.vdot(transposed, gradient), sum(jax.tree.leaves(products)), rtol=1e-5, atol=1e-5
    )
    with pytest.raises(NotImplementedError, match="linear in its first operand only"):
        jax.linear_transpose(lambda x: jmn.neuron_gradient(gradient, x, neuron, bias).data, x)(x)


def test_transpose_of_a_mapped_gradient():
    """An incoming gradient that the matrices share has the sum of their cotangents, in one call."""
    xs, weights = draw(35, (5, 3, 4)), draw(36, (5, 3, 4))

    def linear(gradient):
        one = lambda x: jmn.neuron_gradient(gradient, x, jmn.Neuron.gelu()).data  # noqa: E731
        return jax.vmap(one)(xs)

    (transposed,) = jax.linear_transpose(linear, xs[0])(weights)
    slopes = jax.vmap(lambda x: jmn.neuron_gradient(jnp.ones_like(x), x, jmn.Neuron.gelu()).data)(xs)
    np.testing.assert_allclose(transposed, (slopes * weights).sum(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["sigmoid", "tanh", "exponential"])
def test_transpose_of_a_gradient_that_reads_y(name, lowering):
    """With a bias gradient: the cotangents of both results meet in f' from y."""
    neuron, x, bias = zoo.neurons()[name], draw(37, (3, 4)), draw(38, (4,))
    y, pull = jax.vjp(lambda x, b: jmn.neuron(x, neuron, b, lowering=lowering, residual="y"), x, bias)
    of_data, of_bias = draw(39, x.shape), draw(40, bias.shape)
    (transposed,) = jax.linear_transpose(pull, x)((of_data, of_bias))
    slopes = apple.neuron_gradient(np.ones_like(x), x, neuron, bias).data
    assert_close(transposed, slopes * (np.float64(of_data) + np.float64(of_bias)), factor=8)
    assert_close(y, apple.neuron(x, neuron, bias))
