"""Avals: shardings on explicit meshes, and the manual axes over which a value varies."""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
from jax.core import ShapedArray
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

__all__ = ["resharded_like", "spec_of", "typed", "vary_together"]

# Types of arrays. Since 0.5 they hold shardings, on meshes with explicit axes; and over which manual axes a
# value varies, inside of shard_map: `manual_axis_type` since 0.10, `vma` before.


def spec_of(aval: Any) -> tuple[Any, ...]:
    """By which explicit axis of a mesh each dimension is sharded, or None."""
    sharding = getattr(aval, "sharding", None)
    return (
        (None,) * aval.ndim
        if sharding is None
        else (*sharding.spec, *(None,) * (aval.ndim - len(sharding.spec)))
    )


def _varying(aval: Any) -> frozenset[str]:
    manual = getattr(aval, "manual_axis_type", None)
    return getattr(aval, "vma", frozenset()) if manual is None else manual.varying


def typed(shape: Any, dtype: Any, spec: Any, operands: Any) -> ShapedArray:
    """The type of a result with that spec, computed from operands of these types."""
    meshes = [s.mesh for s in (getattr(aval, "sharding", None) for aval in operands) if s is not None]
    mesh = next((mesh for mesh in meshes if not mesh.empty), None)
    if mesh is None:
        return ShapedArray(shape, dtype)
    varying = frozenset().union(*map(_varying, operands))
    if hasattr(operands[0], "manual_axis_type"):
        kwargs = {"manual_axis_type": type(operands[0].manual_axis_type)(varying=varying)}
    else:
        kwargs = {"vma": varying}
    return ShapedArray(shape, dtype, sharding=NamedSharding(mesh, P(*spec)), **kwargs)


def vary_together(values: Any) -> list[Any]:
    """Values, or None, made to vary over all manual axes over which any does.

    What did not vary over an axis has a gradient that is a sum over it.
    """
    if not hasattr(jax, "typeof"):
        return list(values)
    own = [frozenset() if value is None else _varying(jax.typeof(value)) for value in values]
    every = frozenset().union(*own)

    def vary(value, missing):
        if not missing:
            return value
        axes = tuple(sorted(missing))
        return lax.pcast(value, axes, to="varying") if hasattr(lax, "pcast") else lax.pvary(value, axes)

    return [
        value if value is None else vary(value, every - have)
        for value, have in zip(values, own, strict=True)
    ]


def resharded_like(value: Any, other: Any) -> Any:
    """A value sharded over explicit axes as another is, if that has any."""
    if not hasattr(jax, "typeof"):
        return value
    have, want = (jax.typeof(v) for v in (value, other))
    if spec_of(have) == spec_of(want) or want.sharding.mesh.empty:
        return value
    return jax.sharding.reshard(value, want.sharding)
