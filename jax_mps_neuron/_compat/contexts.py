"""Lowering contexts across JAX versions: the platform, devices, meshes and partitioning of a program.

- A module context has `get_backend()` in newer versions, and `backend` in older ones.
- `custom_partitioning` is experimental, so a later JAX may not have it. Newer versions take a rule for
  Shardy.
- Since 0.5 the user may set an abstract mesh, and avals have shardings. An inner lowering must see neither.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
from typing import Any

import jax
from jax.core import ShapedArray
from jax.interpreters import mlir

try:
    from jax.experimental.custom_partitioning import custom_partitioning as _custom_partitioning
except ImportError:
    _custom_partitioning = None

__all__ = [
    "custom_partitioning",
    "devices_of",
    "lowers_for_here",
    "outside_of_meshes",
    "with_devices",
    "without_meshes",
]


def lowers_for_here(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether a program is lowered to run in this process, rather than for export or another platform."""
    module = ctx.module_context
    if module.lowering_parameters.for_export or len(module.platforms) > 1:
        return False
    try:
        backend = module.get_backend() if hasattr(module, "get_backend") else module.backend
    except (ValueError, RuntimeError):  # another platform's backend, or none
        return False
    return backend.platform == module.platforms[0]


def _partitioned(function: Any, infer: Any, partition: Any, rule: str) -> Any:
    """A function with its partitioning.

    Args:
      function: the function.
      infer: infers the sharding of the results, as `custom_partitioning` defines it.
      partition: makes the function of one shard, as `custom_partitioning` defines it.
      rule: the sharding rule for Shardy, on versions that have it.
    """
    partitioned = _custom_partitioning(function)
    shardy = "sharding_rule" in inspect.signature(partitioned.def_partition).parameters
    partitioned.def_partition(
        infer_sharding_from_operands=infer,
        partition=partition,
        decode_shardings=False,
        **({"sharding_rule": rule} if shardy else {}),
    )
    return partitioned


custom_partitioning = _partitioned if _custom_partitioning else None


def devices_of(ctx: mlir.LoweringRuleContext) -> tuple[jax.Device, ...] | None:
    """Devices for the partitioning of a program, as many as it is lowered for; None without enough of them.

    JAX states the devices only for programs with some of its own primitives. A partitioning does not depend
    on which devices it gets, so any others serve as well.
    """
    context = ctx.module_context.axis_context
    if context.device_assignment is not None:
        return tuple(context.device_assignment)
    try:
        devices = jax.devices(ctx.module_context.platforms[0])
    except RuntimeError:
        return None
    return tuple(devices[: context.num_devices]) if len(devices) >= context.num_devices else None


def with_devices(ctx: mlir.LoweringRuleContext, devices: Any) -> mlir.LoweringRuleContext:
    """The context with these devices, which `custom_partitioning` requires."""
    context = dataclasses.replace(ctx.module_context.axis_context, device_assignment=devices)
    return ctx.replace(module_context=ctx.module_context.replace(axis_context=context))


def outside_of_meshes() -> Any:
    """A context manager that hides the mesh that the user set."""
    if not hasattr(jax.sharding, "use_abstract_mesh"):
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ()))


def without_meshes(ctx: mlir.LoweringRuleContext) -> mlir.LoweringRuleContext:
    """The context with the operands' avals freed of their shardings."""
    return ctx.replace(avals_in=[ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in])
