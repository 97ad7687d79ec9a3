"""The lowering rules of both primitives."""

from __future__ import annotations

import warnings
from functools import partial
from typing import Any

from jax.extend.core import Primitive
from jax.interpreters import mlir

from .._compat.contexts import lowers_for_here, outside_of_meshes, without_meshes
from .._core.signature import Signature
from .._plugins import known, targets
from . import call, callback, inline, partition
from .routes import route, unavailable_reason

__all__ = ["register"]


def register(primitive: Primitive) -> None:
    """Gives a primitive its lowering rules.

    A rule emits the custom call of the equation's signature, a host callback into the Metal kernel, or the
    inline form. JAX applies the first rule to cpu and the second to every other platform, so a program
    exported for cpu and another platform takes the right route on each. Newer JAX refuses a rule under
    the name of an absent plugin, hence the default rule. When several other platforms share the default
    rule, either all of them take the custom call or none does.
    """
    mlir.register_lowering(primitive, partial(_lower, primitive, True), platform="cpu")
    mlir.register_lowering(primitive, partial(_lower, primitive, False))


def _lower(
    primitive: Primitive,
    on_cpu: bool,
    ctx: mlir.LoweringRuleContext,
    *operands: Any,
    signature: Signature,
    lowering: str,
    in_place: bool,
) -> Any:
    lowered_for = ctx.platforms or ctx.module_context.platforms
    platforms = ["cpu"] if on_cpu else [name for name in lowered_for if name != "cpu"]
    routes = {route(platform, lowering)[0] for platform in platforms}
    place = partition.place(ctx) if "custom_call" in routes else ""
    if "inline" in routes or (place == partition.OPAQUE and lowering == "auto"):
        on_gpu = all(platform in ("cuda", "rocm") for platform in platforms)
        expand = partial(inline.expand, signature, for_gpu=on_gpu)
        with outside_of_meshes():
            return mlir.lower_fun(expand, multiple_results=True)(without_meshes(ctx), *operands)
    if "metal" in routes:
        return callback.emit(ctx, platforms[0], signature, operands)
    for platform in platforms:
        _check_runs(ctx, platform, signature.target)
    if place == partition.DIVIDED:
        return partition.lower(primitive, signature, in_place, ctx, *operands)
    # A training step does not read the incoming gradient after this call, so the data gradient takes its
    # buffer. XLA copies the gradient where it is still live. A forward call is never in place: x is a
    # residual.
    first: tuple[Any, Any] = ctx.avals_in[0], ctx.avals_out[0]
    in_place = in_place and first[0].shape == first[1].shape
    return call.emit(ctx, platforms[0], signature.target, operands, signature.attributes, in_place)


def _check_runs(ctx: mlir.LoweringRuleContext, platform: str, target: str) -> None:
    """Raises or warns if a custom call is lowered for a local device that cannot run it.

    A program that is exported, or lowered for another platform, may run elsewhere.
    """
    reason = unavailable_reason(platform)
    if not reason or (platform != "cpu" and not lowers_for_here(ctx)):
        return
    if known.is_metal(platform) and targets.refusal(platform):
        raise ValueError(
            f"lowering 'custom_call' does not run on {platform}: {reason}. Use 'auto' or 'inline', which "
            "compile on any plugin; jmn.metal.jit runs the Metal kernel there."
        )
    warnings.warn(
        f"this program contains the custom call {target}, which cannot run here: {reason}", stacklevel=2
    )
