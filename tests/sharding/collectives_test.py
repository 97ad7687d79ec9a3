"""The list of a program's collectives, on programs that are known to have them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from collectives import Collective, collectives
from support.arrays import draw
from support.devices import mesh_of
from support.meshes import shard_map

MESH = mesh_of(4, 2)
PROGRAMS = {
    "sum": (
        lambda x: lax.psum(x, "data"),
        P(None, "model"),
        Collective("all-reduce", ((2, 4),), ("data",)),
    ),
    "sum over both": (
        lambda x: lax.psum(x, ("data", "model")),
        P(),
        Collective("all-reduce", ((2, 4),), ("data", "model")),
    ),
    "gather": (
        lambda x: lax.all_gather(x, "model", axis=1, tiled=True),
        P("data"),
        Collective("all-gather", ((2, 8),), ("model",)),
    ),
    "scatter": (
        lambda x: lax.psum_scatter(x, "model", scatter_dimension=1, tiled=True),
        P("data", "model"),
        Collective("reduce-scatter", ((2, 2),), ("model",)),
    ),
    "shift": (
        lambda x: lax.ppermute(x, "data", [(i, (i + 1) % 4) for i in range(4)]),
        P("data", "model"),
        Collective("collective-permute", ((2, 4),), None),
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_in_a_shard_map(name):
    function, out, expected = PROGRAMS[name]
    kwargs = {"check_vma": False} if hasattr(jax, "shard_map") else {"check_rep": False}
    mapped = shard_map(function, mesh=MESH, in_specs=P("data", "model"), out_specs=out, **kwargs)
    compiled = jax.jit(mapped).lower(draw(0, (8, 8))).compile()
    assert collectives(compiled, MESH) == [expected]


def test_in_a_program_that_xla_divides():
    """A gather that nobody wrote."""
    x = jax.device_put(draw(0, (8, 8)), NamedSharding(MESH, P("data", "model")))
    function = jax.jit(jnp.sin, out_shardings=NamedSharding(MESH, P("data")))
    found = collectives(function.lower(x).compile(), MESH)
    assert found == [Collective("all-gather", ((2, 8),), ("model",))]
    assert found[0].elements == 16
    assert collectives(jax.jit(jnp.sin).lower(x).compile(), MESH) == []
