"""Calls of jitted functions on arguments that may hold plain numbers."""

from __future__ import annotations

from typing import Any

import jax

from .._core.arguments import Arguments

__all__ = ["dispatch"]


def dispatch(jitted: Any, given: Arguments, *more: Any) -> Any:
    """Calls a jitted function.

    Plain numbers reach the device with the call. `jax.transfer_guard` must not mistake them for arrays of
    the user's that were left on the host, so where every array is on a device, their transfer is allowed.
    """
    if given.numbers is not None and isinstance(given.x, jax.Array):
        with jax.transfer_guard_host_to_device("allow"):
            return jitted(given, *more)
    return jitted(given, *more)
