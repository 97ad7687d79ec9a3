"""Lowering contexts: devices, meshes, partitioning."""

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
    """Whether a program is lowered to run here: not exported, nor for another platform."""
    module = ctx.module_context
    if module.lowering_parameters.for_export or len(module.platforms) > 1:
        return False
    try:
        backend = module.get_backend() if hasattr(module, "get_backend") else module.backend
    except (ValueError, RuntimeError):  # it is of another platform, or there is none
        return False
    return backend.platform == module.platforms[0]


def _partitioned(function: Any, infer: Any, partition: Any, rule: str) -> Any:
    """A function with how it is partitioned: `infer` and `partition` as custom_partitioning has them, and a
    rule for Shardy, where that is."""
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
    """As many devices as a program is lowered for; None if they are not here.

    JAX tells them only for programs with primitives of its own that need them. A partitioning is the same
    on whatever devices, so any will do then.
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
    """The context with these devices, which custom_partitioning asks for."""
    context = dataclasses.replace(ctx.module_context.axis_context, device_assignment=devices)
    return ctx.replace(module_context=ctx.module_context.replace(axis_context=context))


def outside_of_meshes() -> Any:
    """A context without the mesh that the user may have set."""
    if not hasattr(jax.sharding, "use_abstract_mesh"):
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ()))


def without_meshes(ctx: mlir.LoweringRuleContext) -> mlir.LoweringRuleContext:
    """The context with operands whose types say nothing of meshes."""
    return ctx.replace(avals_in=[ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in])
