"""The metal route: a host callback that runs the Metal kernel."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax.interpreters import mlir

from .._core.signature import Signature
from .._metal import device
from .._metal.bindings import MetalError
from .._metal.source import DTYPES

__all__ = ["emit"]


def emit(ctx: mlir.LoweringRuleContext, platform: str, signature: Signature, operands: Any) -> Any:
    """Emits the callback, which runs all batch entries in one launch.

    Raises:
      TypeError: the Metal kernels do not have x's dtype.
      MetalError: Metal is not available.
      ValueError: the platform has no host callbacks.
    """
    results = [jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in ctx.avals_out]
    dtype = results[0].dtype.name
    if dtype not in DTYPES:
        raise TypeError(
            f"x must have dtype float32, float16 or bfloat16 with lowering 'metal', got {dtype}"
        )
    if reason := device.unavailable_reason():
        raise MetalError(f"lowering 'metal' does not run here. {reason}")

    def run(*arrays: Any) -> list[np.ndarray]:
        return device.execute(signature, [np.asarray(a) for a in arrays])

    def callback(*arrays: Any) -> Any:
        return jax.pure_callback(run, results, *arrays)

    try:
        return mlir.lower_fun(callback, multiple_results=True)(ctx, *operands)
    except ValueError as error:  # JAX's own, for a platform without callbacks
        raise ValueError(
            f"lowering 'metal' needs host callbacks, which {platform} does not have ({error}). Use 'auto' "
            "or 'inline', which compile on any plugin; jmn.metal.jit runs the Metal kernel there."
        ) from error
