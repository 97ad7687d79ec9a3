"""`jax.ffi` across JAX versions.

- The module was `jax.extend.ffi` before 0.5.
- `ffi_call` took the operands itself before 0.4.36, and returns a function of them since.
"""

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
    """Calls an FFI target, traceably.

    Args:
      target: the registered target.
      results: the shapes and dtypes of the results.
      *operands: the operands.
      attributes: the attributes, passed as int32.
    """
    int32 = {name: np.int32(value) for name, value in attributes.items()}
    if _TAKES_OPERANDS:
        return ffi.ffi_call(target, results, *operands, **int32)
    return ffi.ffi_call(target, results)(*operands, **int32)
