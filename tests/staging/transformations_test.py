"""`metal.jit` under other transformations and settings, where it is a plain `jax.jit`."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from support.arrays import draw
from support.staged import W, X, assert_same, layer, loss


def test_transformations_of_it_are_those_of_jit(launches):
    staged = jmn.metal.jit(loss)
    x = draw(3, (5, 6, 4))
    pairs = [
        (jax.grad(staged)(W, X), jax.grad(loss)(W, X)),
        (jax.vmap(staged, (None, 0))(W, x), jax.vmap(loss, (None, 0))(W, x)),
        (jax.jit(staged)(W, X), loss(W, X)),
        (jax.jit(lambda x: jmn.metal.jit(lambda w: loss(w, x))(np.asarray(W)))(X), loss(W, X)),
        (jax.grad(lambda x: jmn.metal.jit(lambda w: loss(w, x))(W))(X), jax.grad(loss, 1)(W, X)),
        (jax.jit(lambda: staged(W, X))(), loss(W, X)),
    ]
    pairs.append((jax.lax.map(lambda _: staged(W, X), X), jnp.full(6, loss(W, X))))
    with jax.disable_jit():
        pairs.append((staged(W, X), loss(W, X)))
    assert not launches
    # With nothing to map or differentiate, the call is its own.
    pairs.append((jax.grad(lambda x: x * staged(W, X))(2.0), loss(W, X)))
    pairs.append((jax.vmap(lambda x: x[0, 0] * staged(W, X))(x), x[:, 0, 0] * loss(W, X)))
    assert launches == ["neuron"] * 4
    for got, want in pairs:
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_the_default_lowering_is_part_of_the_signature(launches):
    staged = jmn.metal.jit(layer)
    try:
        for default, count in (("auto", 1), ("inline", 1), ("custom_call", 2), ("inline", 2)):
            jmn.set_default_lowering(default)
            staged(X)
            assert len(launches) == count
    finally:
        jmn.set_default_lowering("auto")


def test_references_fall_back(launches):
    if not hasattr(jax, "new_ref"):
        pytest.skip(f"jax {jax.__version__} has no mutable references")

    def function(x):
        ref = jax.new_ref(x)
        ref[...] = layer(x)
        return ref[...]

    staged = jmn.metal.jit(function)
    with pytest.warns(UserWarning, match="mutable references"):
        assert_same(staged, X)
    assert staged.stages(X) == ()
    assert not launches
