"""`jax.ffi`, which was `jax.extend.ffi` before JAX 0.5."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

try:
    from jax import ffi
except ImportError:  # before 0.5
    from jax.extend import ffi  # type: ignore[no-redef]

__all__ = ["call_target", "ffi"]

_TAKES_OPERANDS = "args" in inspect.signature(ffi.ffi_call).parameters  # before 0.4.36


def call_target(target: str, results: Any, *operands: Any, attributes: Mapping[str, int]) -> Any:
    """Calls an FFI target with int32 attributes, as a traceable function."""
    int32 = {name: np.int32(value) for name, value in attributes.items()}
    if _TAKES_OPERANDS:
        return ffi.ffi_call(target, results, *operands, **int32)
    return ffi.ffi_call(target, results)(*operands, **int32)
