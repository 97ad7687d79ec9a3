"""What the tests of sharding share: a mesh, arrays on it, and what a compiled program calls."""

from __future__ import annotations

import re

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from support.arrays import assert_close
from support.devices import mesh_of

try:
    from jax import shard_map
except ImportError:  # before 0.6
    from jax.experimental.shard_map import shard_map

__all__ = ["CHECKS", "MESH", "SHARDY", "call_shapes", "equals", "is_sharded", "put", "shard_map"]

MESH = mesh_of(4, 2)
SHARDY = hasattr(jax.config, "jax_use_shardy_partitioner") and jax.__version_info__ >= (0, 7)
CHECKS = hasattr(jax, "shard_map")  # before, check_rep takes no custom_vjp with symbolic zeros


def put(value, *spec, mesh=MESH):
    return jax.device_put(value, NamedSharding(mesh, P(*spec)))


def equals(actual, expected, factor=4.0):
    """Asserts that results, in a tree, are those of one device, whose sums have another order."""
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(np.asarray(a), np.asarray(b, np.float64), str(a.dtype), factor)


def is_sharded(array, *spec, mesh=MESH) -> bool:
    return array.sharding.is_equivalent_to(NamedSharding(mesh, P(*spec)), array.ndim)


def call_shapes(compiled, target: str) -> list[str]:
    """The types of the results of each custom call, as they are on a device."""
    lines = compiled.as_text().splitlines()
    lines = [line for line in lines if f'custom_call_target="jax_mps_neuron.{target}"' in line]
    return [
        re.sub(r"\{[\d,]*\}|/\*.*?\*/| ", "", re.search(r"= (.*?) custom-call\(", line)[1])
        for line in lines
    ]
