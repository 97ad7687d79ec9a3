"""Which route a platform takes, and the route itself."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

from jax.extend.core import Primitive
from jax.interpreters import mlir

from . import native
from ._compat import Setting, custom_call
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

LOWERINGS = ("auto", "custom_call", "inline")

_ENVIRONMENT = "JAX_MPS_NEURON_LOWERING"


def check(name: str, lowering: Any) -> str:
    if lowering not in LOWERINGS:
        choices = ", ".join(map(repr, LOWERINGS))
        raise ValueError(f"{name} is {lowering!r}; it may be one of {choices}")
    return lowering


_default: Setting[str] = Setting(check(_ENVIRONMENT, os.environ.get(_ENVIRONMENT) or "auto"))


def set_default_lowering(lowering: str) -> None:
    """Sets the lowering of every call that names none, in the whole process.

    jit never serves a program traced under another default: what depends on it is traced again.

    Args:
      lowering: ``"auto"`` (a custom call where something can run it, else inline),
        ``"custom_call"`` (always) or ``"inline"`` (never). The environment variable
        ``JAX_MPS_NEURON_LOWERING`` sets the value to begin with.

    Raises:
      ValueError: `lowering` is none of these.
    """
    _default.set(check("lowering", lowering))


def resolve(lowering: str | None) -> str:
    """The lowering a call names, or the default."""
    return _default.get() if lowering is None else check("lowering", lowering)


def route(platform: str, lowering: str = "auto") -> tuple[str, str]:
    """The route of a platform and the reason for it: ("custom_call" or "inline", why)."""
    if lowering != "auto":
        return lowering, "it was asked for"
    if platform != "cpu":
        return "inline", "no kernel is registered there"
    problem = native.problem()
    if problem:
        return "inline", problem
    return "custom_call", "the native library is registered there"


def register(primitive: Primitive, target: str, function: Callable[..., list[Any]]) -> None:
    """Gives a primitive its lowering rules.

    The rules emit the typed-FFI custom call `target`, with the primitive's operands and results and the
    int32 attributes ``neuron_type``, ``matrix_axes`` and, for the gradient, ``bias_gradient`` and
    ``slope_gradient``; or `function`, the same in jnp.

    JAX calls the first rule for cpu and the second for everything else, so a program exported for several
    platforms takes the route of each. A rule under the name of a plugin that is not there is refused
    by newer versions, hence the default rule.
    """
    mlir.register_lowering(primitive, partial(_lower, target, function, "cpu"), platform="cpu")
    mlir.register_lowering(primitive, partial(_lower, target, function, "other"))


def _lower(
    target: str,
    function: Callable[..., list[Any]],
    platform: str,
    ctx: mlir.LoweringRuleContext,
    *operands: Any,
    kind: int,
    lowering: str,
    in_place: bool = False,
    **attributes: int,
) -> Any:
    if route(platform, lowering)[0] == "inline":
        inline = partial(function, kind=kind, **attributes)
        return mlir.lower_fun(inline, multiple_results=True)(ctx, *operands)
    if platform == "cpu" and native.problem():
        warnings.warn(
            f"this program holds the custom call {target}, which cannot run here: {native.problem()}",
            stacklevel=2,
        )
    # In a training step nobody reads the incoming gradient after this call, so the data gradient takes
    # its buffer; where someone does, XLA copies it. Forward, x is a residual and stays.
    first: tuple[Any, Any] = ctx.avals_in[0], ctx.avals_out[0]
    integers = {"neuron_type": int(kind), **{name: int(value) for name, value in attributes.items()}}
    in_place = in_place and first[0].shape == first[1].shape
    return custom_call(ctx, platform, target, operands, integers, in_place)
