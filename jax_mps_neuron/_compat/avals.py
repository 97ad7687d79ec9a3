"""Avals across JAX versions: shardings on explicit meshes, and the manual axes over which a value varies.

- Avals have a `sharding` since 0.5. It matters on meshes with explicit axes.
- Inside shard_map, avals state the manual axes over which a value varies: in `manual_axis_type` since 0.10,
  in `vma` before. Versions without `jax.typeof` have neither.
- `lax.pcast` replaces `lax.pvary`, which is deprecated since 0.8.2 and later removed.
"""

from __future__ import annotations

from typing import Any

import jax
from jax import lax
from jax.core import ShapedArray
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

__all__ = ["resharded_like", "spec_of", "typed", "vary_together"]


def spec_of(aval: Any) -> tuple[Any, ...]:
    """The explicit mesh axis that shards each dimension, or None."""
    sharding = getattr(aval, "sharding", None)
    spec = () if sharding is None else tuple(sharding.spec)
    return (*spec, *(None,) * (aval.ndim - len(spec)))


def _varying(aval: Any) -> frozenset[str]:
    """The manual axes over which a value varies."""
    manual = getattr(aval, "manual_axis_type", None)
    return getattr(aval, "vma", frozenset()) if manual is None else manual.varying


def typed(shape: Any, dtype: Any, spec: Any, operands: Any) -> ShapedArray:
    """The aval of a result.

    Args:
      shape: its shape.
      dtype: its dtype.
      spec: the explicit mesh axis that shards each dimension, or None.
      operands: the avals of the operands from which it is computed.
    """
    meshes = [s.mesh for s in (getattr(aval, "sharding", None) for aval in operands) if s is not None]
    mesh = next((mesh for mesh in meshes if not mesh.empty), None)
    if mesh is None:
        return ShapedArray(shape, dtype)
    varying = frozenset().union(*map(_varying, operands))
    if hasattr(operands[0], "manual_axis_type"):  # since 0.10
        kwargs = {"manual_axis_type": type(operands[0].manual_axis_type)(varying=varying)}
    else:
        kwargs = {"vma": varying}
    return ShapedArray(shape, dtype, sharding=NamedSharding(mesh, P(*spec)), **kwargs)


def vary_together(values: Any) -> list[Any]:
    """The values, each made to vary over all manual axes over which any of them varies.

    The gradient of a value that did not vary over an axis is then a sum over that axis. None stays None.
    """
    if not hasattr(jax, "typeof"):
        return list(values)
    own = [frozenset() if value is None else _varying(jax.typeof(value)) for value in values]
    every = frozenset().union(*own)

    def vary(value, missing):
        if not missing:
            return value
        axes = tuple(sorted(missing))
        # pvary is deprecated since 0.8.2.
        return lax.pcast(value, axes, to="varying") if hasattr(lax, "pcast") else lax.pvary(value, axes)

    return [
        value if value is None else vary(value, every - have)
        for value, have in zip(values, own, strict=True)
    ]


def resharded_like(value: Any, other: Any) -> Any:
    """A value with the sharding of another over explicit mesh axes, if that one has any."""
    if not hasattr(jax, "typeof"):
        return value
    have, want = (jax.typeof(v) for v in (value, other))
    if spec_of(have) == spec_of(want) or want.sharding.mesh.empty:
        return value
    return jax.sharding.reshard(value, want.sharding)
