"""The typed-FFI custom call as StableHLO, in the spelling of each JAX version."""

from __future__ import annotations

import inspect
from typing import Any

import jax
import numpy as np
from jax.core import ShapedArray
from jax.interpreters import mlir

from .._compat.ffi import ffi

__all__ = ["emit"]

# XLA before jaxlib 0.7, which jax before 0.7 may come with, parses the attributes of a computation's root
# as JSON when it compiles a matrix-vector product on cpu. FFI attributes are not JSON, and the process
# ends.
_READS_ATTRIBUTES_AS_JSON = jax.__version_info__ < (0, 7)

_SKIPS_LAYOUTS = "skip_ffi_layout_processing" in inspect.signature(ffi.ffi_lowering).parameters


def emit(
    ctx: mlir.LoweringRuleContext,
    platform: str,
    target: str,
    operands: Any,
    attributes: dict[str, int],
    in_place: bool,
) -> Any:
    """Emits a typed-FFI custom call on row-major buffers, with int32 attributes.

    With `in_place`, the first result takes the buffer of the first operand. On cpu, such a call must not
    state operand layouts, because XLA would copy every operand that comes from a dot or a convolution. Its
    operands are row-major all the same. Its results may get another layout from a later user or a
    collective, so they are pinned. An exported program cannot hold that pin, so there the call is not in
    place.

    Where XLA on cpu cannot parse attributes, they travel as the last operand, an int32 vector in the order
    of their sorted names.
    """
    if platform == "cpu" and _READS_ATTRIBUTES_AS_JSON:
        values = np.asarray([attributes[name] for name in sorted(attributes)], np.int32)
        operands = [*operands, mlir.ir_constant(values)]
        ctx = ctx.replace(avals_in=[*ctx.avals_in, ShapedArray(values.shape, values.dtype)])
        attributes = {}
    exporting = ctx.module_context.lowering_parameters.for_export
    if not (in_place and platform == "cpu") or exporting:
        aliases = {0: 0} if in_place and not exporting else None
        rule = ffi.ffi_lowering(target, operand_output_aliases=aliases)
        return rule(ctx, *operands, **_int32(attributes))
    if _SKIPS_LAYOUTS:
        rule = ffi.ffi_lowering(target, skip_ffi_layout_processing=True, operand_output_aliases={0: 0})
        results = rule(ctx, *operands, **_int32(attributes))
        pin = mlir.lower_fun(_pin_row_major, multiple_results=True)
        return pin(ctx.replace(avals_in=ctx.avals_out), *results)
    call = mlir.custom_call(
        target,
        operands=operands,
        result_types=[mlir.aval_to_ir_type(aval) for aval in ctx.avals_out],
        api_version=4,
        backend_config={name: mlir.i32_attr(v) for name, v in attributes.items()},
        operand_output_aliases={0: 0},
    )
    return [
        _pinned_row_major(result, aval.ndim) if aval.ndim > 1 else result
        for result, aval in zip(call.results, ctx.avals_out, strict=True)
    ]


def _int32(attributes: dict[str, int]) -> dict[str, np.int32]:
    return {name: np.int32(value) for name, value in attributes.items()}


def _pin_row_major(*values: Any) -> list[Any]:
    from jax.experimental.layout import Layout, with_layout_constraint

    def pin(value):
        return with_layout_constraint(value, Layout(tuple(range(value.ndim)))) if value.ndim > 1 else value

    return [pin(value) for value in values]


def _pinned_row_major(value: Any, rank: int) -> Any:
    # XLA has had this constraint for longer than JAX has had a function for it.
    order = list(reversed(range(rank)))
    call = mlir.custom_call(
        "LayoutConstraint",
        operands=[value],
        result_types=[value.type],
        api_version=1,
        operand_layouts=[order],
        result_layouts=[order],
    )
    return call.result
