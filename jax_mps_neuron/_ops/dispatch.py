"""Calls of jitted functions on arguments that may hold plain numbers."""

from __future__ import annotations

from typing import Any

import jax

from .._core.arguments import Arguments, on_device

__all__ = ["dispatch"]


def dispatch(jitted: Any, given: Arguments, *more: Any) -> Any:
    """Calls a jitted function.

    Plain numbers reach the device with the call. `jax.transfer_guard` must not mistake them for arrays that
    the user left on the host, so their transfer is allowed if x is on a device. Under a transformation they
    may outlive the call, as residuals of an eager gradient, so they are put on the device before it.
    """
    if given.numbers is None:
        return jitted(given, *more)
    if any(isinstance(value, jax.core.Tracer) for value in given):
        return jitted(given._replace(numbers=on_device(given.numbers)), *more)
    if isinstance(given.x, jax.Array):
        with jax.transfer_guard_host_to_device("allow"):
            return jitted(given, *more)
    return jitted(given, *more)
