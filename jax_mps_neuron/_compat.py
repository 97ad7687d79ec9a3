"""What differs between the supported versions of JAX, settled once."""

from __future__ import annotations

import inspect
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from jax.interpreters import mlir

try:
    from jax import ffi
except ImportError:  # before 0.5
    from jax.extend import ffi  # type: ignore[no-redef]

__all__ = ["Setting", "custom_call", "ffi"]

T = TypeVar("T")

_SKIPS_LAYOUTS = "skip_ffi_layout_processing" in inspect.signature(ffi.ffi_lowering).parameters


def custom_call(
    ctx: mlir.LoweringRuleContext,
    target: str,
    operands: Any,
    attributes: dict[str, int],
    aliases: dict[int, int],
) -> Any:
    """Emits a typed-FFI custom call with int32 attributes, without stating operand layouts.

    XLA's CPU backend copies operands of a custom call that both aliases buffers and states layouts.
    Row-major is what it gives a call that states none.
    """
    static = all(isinstance(size, int) for aval in ctx.avals_out for size in aval.shape)
    if _SKIPS_LAYOUTS or not static:
        # Before _SKIPS_LAYOUTS, sizes that are symbols cost those copies.
        options = {"skip_ffi_layout_processing": True} if _SKIPS_LAYOUTS else {}
        rule = ffi.ffi_lowering(target, operand_output_aliases=aliases, **options)
        return rule(ctx, *operands, **{name: np.int32(v) for name, v in attributes.items()})
    result_types = [mlir.aval_to_ir_type(aval) for aval in ctx.avals_out]
    call = mlir.custom_call(
        target,
        operands=operands,
        result_types=result_types,
        api_version=4,
        backend_config={name: mlir.i32_attr(v) for name, v in attributes.items()},
        operand_output_aliases=aliases,
    )
    return call.results


class Setting(Generic[T]):
    """A process-wide value that is part of jit's cache key: changing it retraces what depends on it."""

    def __init__(self, default: T):
        # make_user_context came after the oldest supported version, which can only forget.
        self._context = jax.make_user_context(default) if hasattr(jax, "make_user_context") else None
        self._value = default

    def get(self) -> T:
        return self._value if self._context is None else self._context.value

    def set(self, value: T) -> None:
        if self._context is not None:
            self._context.set_global(value)
        elif value != self._value:
            self._value = value
            jax.clear_caches()
