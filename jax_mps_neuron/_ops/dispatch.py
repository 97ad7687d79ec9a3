"""Calls of jitted functions on arguments that may hold plain numbers."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from .._core.arguments import Arguments, on_device

__all__ = ["dispatch"]

_SCALARS = ("numbers", "alpha", "a", "b", "c")


def dispatch(jitted: Any, given: Arguments, *more: Any) -> Any:
    """Calls a jitted function.

    Plain numbers reach the device with the call. `jax.transfer_guard` must not mistake them for an array
    that the user left on the host, so their transfer is allowed if every array is on a device. Under a
    transformation they may outlive the call, as residuals of an eager gradient, so they are put on the
    device before it.
    """
    on_host = [name for name in _SCALARS if isinstance(getattr(given, name), (float, np.ndarray))]
    if not on_host:
        return jitted(given, *more)
    if any(isinstance(value, jax.core.Tracer) for value in (*given, *more)):
        given = given._replace(**{name: on_device(getattr(given, name)) for name in on_host})
        return jitted(given, *more)
    arrays = (given.x, given.bias, given.slope, *more)
    if all(value is None or isinstance(value, jax.Array) for value in arrays):
        with jax.transfer_guard_host_to_device("allow"):
            return jitted(given, *more)
    return jitted(given, *more)
