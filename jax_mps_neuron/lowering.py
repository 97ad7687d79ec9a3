"""Which route a platform takes, and the route itself."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import mlir

from . import native, partition
from ._compat import Setting, custom_call, lowers_for_here, outside_of_meshes, without_meshes
from .metal import device, kernel, plugin
from .metal.bindings import MetalError
from .native import NEURON, NEURON_GRADIENT

__all__ = [
    "LOWERINGS",
    "NEURON",
    "NEURON_GRADIENT",
    "register",
    "resolve",
    "route",
    "set_default_lowering",
]

LOWERINGS = ("auto", "custom_call", "inline", "metal")

_ENVIRONMENT = "JAX_MPS_NEURON_LOWERING"


def check(name: str, lowering: Any) -> str:
    if lowering not in LOWERINGS:
        choices = ", ".join(map(repr, LOWERINGS))
        raise ValueError(f"{name} is {lowering!r}; it may be one of {choices}")
    return str(lowering)


_default: Setting[str] = Setting(check(_ENVIRONMENT, os.environ.get(_ENVIRONMENT) or "auto"))


def set_default_lowering(lowering: str) -> None:
    """Sets the lowering of every call that names none, in the whole process.

    jit never serves a program traced under another default: what depends on it is traced again.

    Args:
      lowering: ``"auto"`` (a custom call where something can run it, else inline),
        ``"custom_call"`` (always; an error on a Metal plugin that is known not to run it),
        ``"inline"`` (never) or ``"metal"`` (a host callback that runs the Metal kernel, on a Mac, where
        the platform has callbacks). The environment variable ``JAX_MPS_NEURON_LOWERING`` sets the value
        to begin with.

    Raises:
      ValueError: `lowering` is none of these.
    """
    _default.set(check("lowering", lowering))


def resolve(lowering: str | None) -> str:
    """The lowering a call names, or the default."""
    return _default.get() if lowering is None else check("lowering", lowering)


def route(platform: str, lowering: str = "auto") -> tuple[str, str]:
    """The route of a platform, "custom_call", "inline" or "metal", and the reason for it."""
    if lowering != "auto":
        return lowering, "it was asked for"
    problem = native.problem() if platform == "cpu" else plugin.problem(platform)
    if problem:
        return "inline", problem
    library = "the native library is" if platform == "cpu" else "handlers of the neuron kernels are"
    return "custom_call", f"{library} registered there"


def register(primitive: Primitive, target: str, function: Callable[..., list[Any]]) -> None:
    """Gives a primitive its lowering rules.

    The rules emit the typed-FFI custom call `target`, with the primitive's operands and results and the
    int32 attributes ``neuron_type``, ``matrix_axes`` and, for the gradient, ``bias_gradient``,
    ``slope_gradient`` and ``from_y`` (on cpu before JAX 0.7, as one more operand); or `function`, the same
    in jnp; or a host callback into the Metal kernel.

    JAX calls the first rule for cpu and the second for everything else, so a program exported for cpu and
    another platform takes the route of each. A rule under the name of a plugin that is not there is refused
    by newer versions, hence the default rule. Of several other platforms, which share it, all take
    the custom call or none.
    """
    mlir.register_lowering(primitive, partial(_lower, primitive, target, function, True), platform="cpu")
    mlir.register_lowering(primitive, partial(_lower, primitive, target, function, False))


def _lower(
    primitive: Primitive,
    target: str,
    function: Callable[..., list[Any]],
    on_cpu: bool,
    ctx: mlir.LoweringRuleContext,
    *operands: Any,
    kind: int,
    lowering: str,
    in_place: bool = False,
    **attributes: int,
) -> Any:
    lowered_for = ctx.platforms or ctx.module_context.platforms
    platforms = ["cpu"] if on_cpu else [name for name in lowered_for if name != "cpu"]
    routes = {route(platform, lowering)[0] for platform in platforms}
    place = partition.place(ctx) if "custom_call" in routes else ""
    if "inline" in routes or (place == "undivided" and lowering == "auto"):
        on_gpu = all(platform in ("cuda", "rocm") for platform in platforms)
        inline = partial(function, kind=kind, for_gpu=on_gpu, **attributes)
        with outside_of_meshes():
            return mlir.lower_fun(inline, multiple_results=True)(without_meshes(ctx), *operands)
    if "metal" in routes:
        return _call_back(ctx, platforms[0], target, operands, {"kind": kind, **attributes})
    for platform in platforms:
        _check_runs(ctx, platform, target)
    if place == "divided":
        parameters = {"kind": kind, "lowering": "custom_call", **attributes}
        parameters |= {"in_place": in_place} if target == NEURON_GRADIENT else {}
        return partition.lower(primitive, function, ctx, *operands, **parameters)
    # In a training step nobody reads the incoming gradient after this call, so the data gradient takes
    # its buffer; where someone does, XLA copies it. Forward, x is a residual and stays.
    first: tuple[Any, Any] = ctx.avals_in[0], ctx.avals_out[0]
    integers = {"neuron_type": int(kind), **{name: int(value) for name, value in attributes.items()}}
    in_place = in_place and first[0].shape == first[1].shape
    return custom_call(ctx, platforms[0], target, operands, integers, in_place)


def _call_back(
    ctx: mlir.LoweringRuleContext,
    platform: str,
    target: str,
    operands: Any,
    parameters: dict[str, Any],
) -> Any:
    """Emits a host callback that runs the Metal kernel, with all matrices in one launch."""
    name = target.rpartition(".")[2]
    results = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in ctx.avals_out]
    dtype = results[0].dtype.name
    if dtype not in kernel.DTYPES:
        may_be = ", ".join(kernel.DTYPES)
        raise TypeError(f"x has dtype {dtype}; with lowering 'metal' it may be one of {may_be}")
    if problem := device.problem():
        raise MetalError(f"lowering is 'metal', which does not run here: {problem}")

    def run(*arrays: Any) -> list[np.ndarray]:
        return device.execute(name, [np.asarray(a) for a in arrays], **parameters)

    def callback(*arrays: Any) -> Any:
        return jax.pure_callback(run, results, *arrays)

    try:
        return mlir.lower_fun(callback, multiple_results=True)(ctx, *operands)
    except ValueError as error:  # JAX's, on a platform to which it has no way
        raise ValueError(
            f"lowering is 'metal', which needs host callbacks, and {platform} has none ({error}). It may "
            "be 'auto' or 'inline', which compile on any plugin; jmn.metal.jit runs the Metal kernel there."
        ) from error


def _check_runs(ctx: mlir.LoweringRuleContext, platform: str, target: str) -> None:
    """Raises or warns if a custom call is emitted for a device that is here and cannot run it.

    What is exported or lowered for a platform that is not the default one here may run elsewhere.
    """
    problem = native.problem() if platform == "cpu" else plugin.problem(platform)
    if not problem or (platform != "cpu" and not lowers_for_here(ctx)):
        return
    if plugin.is_metal(platform) and plugin.obstacle(platform):
        raise ValueError(
            f"lowering is 'custom_call', which does not run on {platform}: {problem}. It may be 'auto' or "
            "'inline', which compile on any plugin; to run the Metal kernel there, use jmn.metal.jit."
        )
    warnings.warn(
        f"this program holds the custom call {target}, which cannot run here: {problem}", stacklevel=2
    )
