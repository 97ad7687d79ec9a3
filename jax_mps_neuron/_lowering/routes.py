"""Which route a platform takes: the custom call, the Metal callback, or inline."""

from __future__ import annotations

import os
from typing import Any

from .._compat.settings import Setting
from .._plugins import targets
from . import native

__all__ = ["LOWERINGS", "resolve", "route", "set_default_lowering", "unavailable_reason"]

LOWERINGS = ("auto", "custom_call", "inline", "metal")

_ENVIRONMENT = "JAX_MPS_NEURON_LOWERING"


def _checked(name: str, lowering: Any) -> str:
    if not isinstance(lowering, str) or lowering not in LOWERINGS:
        choices = ", ".join(map(repr, LOWERINGS))
        raise ValueError(f"{name} must be one of {choices}, got {lowering!r}")
    return lowering


_default: Setting[str] = Setting(_checked(_ENVIRONMENT, os.environ.get(_ENVIRONMENT) or "auto"))


def set_default_lowering(lowering: str) -> None:
    """Sets the lowering of every call that names none, for the whole process.

    `jax.jit` retraces what depends on the default, so no program keeps an old one.

    Args:
      lowering: ``"auto"`` (a custom call where one can run, else inline), ``"custom_call"`` (always; an
        error on a Metal plugin that cannot run it), ``"inline"`` (XLA operations) or ``"metal"`` (a
        host callback that runs the Metal kernel, on a Mac, on a platform with callbacks). The environment
        variable ``JAX_MPS_NEURON_LOWERING`` sets the initial default.

    Raises:
      ValueError: `lowering` is not one of these.

    Example:
      >>> set_default_lowering("auto")
    """
    _default.set(_checked("lowering", lowering))


def resolve(lowering: str | None) -> str:
    """The lowering that a call names, or the default."""
    return _default.get() if lowering is None else _checked("lowering", lowering)


def unavailable_reason(platform: str) -> str:
    """Why the custom calls do not run on a platform; empty if they do."""
    return native.unavailable_reason() if platform == "cpu" else targets.unavailable_reason(platform)


def route(platform: str, lowering: str = "auto") -> tuple[str, str]:
    """The route of a platform, "custom_call", "inline" or "metal", and the reason for it."""
    if lowering != "auto":
        return lowering, "requested"
    if reason := unavailable_reason(platform):
        return "inline", reason
    registered = "the native library is" if platform == "cpu" else "handlers of the neuron kernels are"
    return "custom_call", f"{registered} registered there"
