"""What the tests of `metal.jit` share: small networks, and the comparison with `jax.jit`."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np

import jax_mps_neuron as jmn
from jax_mps_neuron._compat.programs import is_committed
from support.arrays import draw

GELU, TANH = jmn.Neuron.gelu(), jmn.Neuron.tanh(1.5, 0.5)
X, W, B = draw(0, (6, 4)), draw(1, (4, 4)), draw(2, (4,))


def assert_same(function, *args, launched=None, like=None, **kwargs):
    """Asserts that a staged function returns what `jax.jit` does, down to dtypes and weak types."""
    launches, expected_launches = launched if launched else (None, None)
    staged = function if hasattr(function, "stages") else jmn.metal.jit(function)
    got = staged(*args, **kwargs)
    if launches is not None:
        assert dict(Counter(launches)) == expected_launches
    want = jax.jit(like or staged.__wrapped__)(*args, **kwargs)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert isinstance(a, jax.Array)
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        assert (a.sharding, is_committed(a)) == (b.sharding, is_committed(b))
        wide = np.complex128 if jnp.iscomplexobj(b) else np.float64
        np.testing.assert_allclose(np.asarray(a, wide), np.asarray(b, wide), rtol=1e-5, atol=1e-6)
    return got


def layer(x, weight=W, bias=B, neuron=GELU, lowering=None):
    return jmn.neuron(x @ weight, neuron, bias, lowering=lowering)


def loss(weight, x):
    return (layer(layer(x, weight), weight, None, TANH) ** 2).sum()
