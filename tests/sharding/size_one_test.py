"""Dimensions of size 1, of which every device has the whole."""

from __future__ import annotations

import jax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jax_mps_neuron as jmn
from jax_mps_neuron._lowering.partition import _parts
from support.arrays import draw
from support.devices import DEVICES
from support.meshes import MESH, equals, put


@pytest.mark.parametrize("full", [(1, 6), (6, 1), (1, 1)])
def test_they_are_not_divided(full):
    """XLA may spread them over devices, the others with padding alone."""
    parts = _parts(NamedSharding(MESH, P("data", "model")), full, full, DEVICES)
    for d, size in enumerate(full):
        assert len(set(parts[:, d])) == (1 if size == 1 else MESH.shape[MESH.axis_names[d]])


@pytest.mark.parametrize("shape", [(16, 1), (1, 16, 6), (16, 1, 6), (1, 16, 1)])
def test_results(shape, partitioner, native_library):
    """Of a layer whose x is cut from sharded arrays, so that its dimension of size 1 may be sharded."""

    def layer(wide, bias):
        x = wide[tuple(slice(size) for size in shape)]
        loss = lambda x, bias: (jmn.neuron(x, jmn.Neuron.gelu(), bias) ** 2).sum()  # noqa: E731
        return jax.value_and_grad(loss, (0, 1))(x, bias)

    wide = draw(0, [16 if size == 1 else size for size in shape])
    bias = draw(1, shape[-1:])
    spec = ("data", "model", None)[: len(shape)] if shape[-1] == 6 else ("model", "data")[: len(shape)]
    equals(jax.jit(layer)(put(wide, *spec), bias), jax.jit(layer)(wide, bias))
