"""What differs between the supported versions of JAX, settled once."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import inspect
from typing import Any, Generic, TypeVar

import jax
import numpy as np
from jax import lax
from jax.core import ShapedArray
from jax.extend.core import ClosedJaxpr, Literal, Primitive, jaxpr_as_fun
from jax.interpreters import mlir
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

try:
    from jax import ffi
except ImportError:  # before 0.5
    from jax.extend import ffi  # type: ignore[no-redef]

try:
    from jax.experimental.custom_partitioning import custom_partitioning as _custom_partitioning
except ImportError:
    _custom_partitioning = None

__all__ = [
    "Setting",
    "capsule_pointer",
    "custom_call",
    "custom_partitioning",
    "devices_of",
    "ffi",
    "function_of",
    "has_plugin",
    "is_committed",
    "is_staged",
    "lowers_for_here",
    "outside_of_meshes",
    "plugin_table",
    "resharded_like",
    "spec_of",
    "typed",
    "vary_together",
    "weaken",
    "with_devices",
    "without_meshes",
]

T = TypeVar("T")

# XLA before jaxlib 0.7, which jax before 0.7 may come with, reads the attributes of a computation's root as
# JSON where it compiles the product of a matrix and a vector on cpu. They are not, and it ends the process.
_READS_ATTRIBUTES_AS_JSON = jax.__version_info__ < (0, 7)

_SKIPS_LAYOUTS = "skip_ffi_layout_processing" in inspect.signature(ffi.ffi_lowering).parameters


def custom_call(
    ctx: mlir.LoweringRuleContext,
    platform: str,
    target: str,
    operands: Any,
    attributes: dict[str, int],
    in_place: bool,
) -> Any:
    """Emits a typed-FFI custom call on row-major buffers, with int32 attributes.

    In place, the first result takes the buffer of the first operand. On cpu such a call must not state
    layouts, or XLA copies the operand wherever a reshape of a dot or a convolution makes it. It reads
    row-major operands then too, but XLA may give it results of a layout that someone asked for further
    on, or that suits a collective, so those are pinned; an exported program, which may hold no such pin,
    is not in place.

    Where XLA on cpu fails on attributes, they are the last operand, an int32 vector in the order of their
    names.
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
    # XLA knew the constraint before JAX had a function for it.
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


class Setting(Generic[T]):
    """A process-wide value that is part of jit's cache key: changing it retraces what depends on it."""

    def __init__(self, default: T):
        # Before 0.8 there is no make_user_context, or it cannot be set; then all there is to do is forget.
        context = jax.make_user_context(default) if hasattr(jax, "make_user_context") else None
        self._context = context if hasattr(context, "set_global") else None
        self._value = default

    def get(self) -> T:
        return self._value if self._context is None else self._context.value

    def set(self, value: T) -> None:
        if self._context is not None:
            self._context.set_global(value)
        elif value != self._value:
            self._value = value
            jax.clear_caches()


def capsule_pointer(capsule: Any) -> int:
    """The address in a PyCapsule."""
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return pointer_of(capsule, name_of(capsule))


def _registration(platform: str) -> Any:
    # Private, tried on 0.4.34, 0.10.2 and 0.12.0.1: public JAX has no way to a plugin's table, and none
    # to a plugin without starting it.
    from jax._src import xla_bridge

    return getattr(xla_bridge, "_backend_factories", {}).get(platform)


def has_plugin(platform: str) -> bool:
    """Whether a backend of that platform is registered with JAX, started or not."""
    return _registration(platform) is not None


def plugin_table(platform: str) -> int | None:
    """The address of a plugin's PJRT_Api; None without a plugin of that platform, or where it has none."""
    capsule = getattr(_registration(platform), "c_api", None)
    return None if capsule is None else capsule_pointer(capsule)


def lowers_for_here(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether a program is lowered to run here: not exported, nor for another platform."""
    module = ctx.module_context
    if module.lowering_parameters.for_export or len(module.platforms) > 1:
        return False
    try:
        backend = module.get_backend() if hasattr(module, "get_backend") else module.backend
    except (ValueError, RuntimeError):  # it is of another platform, or there is none
        return False
    return backend.platform == module.platforms[0]


# No question about it is public in all versions, so an equation asks: outside of jit, it is evaluated.
_is_staged_p = Primitive("is_staged")
_is_staged_p.def_impl(lambda: False)
_is_staged_p.def_abstract_eval(lambda: ShapedArray((), np.dtype(bool)))
mlir.register_lowering(_is_staged_p, mlir.lower_fun(lambda: np.zeros((), bool), multiple_results=False))


def is_staged() -> bool:
    """Whether what is called now becomes part of a program: in a function that jit, scan, ... trace."""
    return isinstance(_is_staged_p.bind(), jax.core.Tracer)


# Nor is there a public way to a weakly typed array, as a Python number becomes.
_weaken_p = Primitive("weaken")
_weaken_p.def_abstract_eval(lambda x: x.update(weak_type=True))
mlir.register_lowering(_weaken_p, lambda ctx, x: [x])


@jax.jit
def weaken(x: Any) -> Any:
    """An array that promotes as the Python numbers of which it was computed do."""
    return _weaken_p.bind(x)


def is_committed(array: jax.Array) -> bool:
    """Whether an array is bound to its device."""
    return array.committed if hasattr(array, "committed") else array._committed  # before 0.5


def function_of(equations: Any, inputs: Any, outputs: Any, constants: dict[Any, Any]) -> Any:
    """A traceable function of equations: values of the input variables to a list of those of the outputs.

    `constants` holds values of variables that are neither inputs nor computed.
    """
    equations = list(equations)
    atoms = [*(atom for equation in equations for atom in equation.invars), *outputs]
    closed = dict.fromkeys(v for v in atoms if not isinstance(v, Literal) and v in constants)
    for equation in equations:
        for v in equation.outvars:
            closed.pop(v, None)
    empty = jax.make_jaxpr(lambda: ())().jaxpr
    # Before 0.5.1 the names of arguments and results must be as many; later, replace drops them.
    names = {"debug_info": None} if jax.__version_info__ < (0, 5, 1) else {}
    jaxpr = empty.replace(
        invars=[*closed, *inputs],
        outvars=list(outputs),
        eqns=equations,
        effects=frozenset().union(*(equation.effects for equation in equations)),
        **names,
    )
    evaluate = jaxpr_as_fun(ClosedJaxpr(jaxpr, []))
    values = [constants[v] for v in closed]
    return lambda *arguments: evaluate(*values, *arguments)


def _partitioned(function: Any, infer: Any, partition: Any, rule: str) -> Any:
    """A function with how it is partitioned: `infer` and `partition` as custom_partitioning has them, and a
    rule for Shardy, where that is."""
    partitioned = _custom_partitioning(function)
    shardy = "sharding_rule" in inspect.signature(partitioned.def_partition).parameters
    partitioned.def_partition(
        infer_sharding_from_operands=infer,
        partition=partition,
        decode_shardings=False,
        **({"sharding_rule": rule} if shardy else {}),
    )
    return partitioned


custom_partitioning = _partitioned if _custom_partitioning else None


def devices_of(ctx: mlir.LoweringRuleContext) -> tuple[jax.Device, ...] | None:
    """As many devices as a program is lowered for; None if they are not here.

    JAX tells them only for programs with primitives of its own that need them. A partitioning is the same
    on whatever devices, so any will do then.
    """
    context = ctx.module_context.axis_context
    if context.device_assignment is not None:
        return tuple(context.device_assignment)
    try:
        devices = jax.devices(ctx.module_context.platforms[0])
    except RuntimeError:
        return None
    return tuple(devices[: context.num_devices]) if len(devices) >= context.num_devices else None


def with_devices(ctx: mlir.LoweringRuleContext, devices: Any) -> mlir.LoweringRuleContext:
    """The context with these devices, which custom_partitioning asks for."""
    context = dataclasses.replace(ctx.module_context.axis_context, device_assignment=devices)
    return ctx.replace(module_context=ctx.module_context.replace(axis_context=context))


def outside_of_meshes() -> Any:
    """A context without the mesh that the user may have set."""
    if not hasattr(jax.sharding, "use_abstract_mesh"):
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), ()))


def without_meshes(ctx: mlir.LoweringRuleContext) -> mlir.LoweringRuleContext:
    """The context with operands whose types say nothing of meshes."""
    return ctx.replace(avals_in=[ShapedArray(aval.shape, aval.dtype) for aval in ctx.avals_in])


# Types of arrays. Since 0.5 they hold shardings, on meshes with explicit axes; and over which manual axes a
# value varies, inside of shard_map: `manual_axis_type` since 0.10, `vma` before.


def spec_of(aval: Any) -> tuple[Any, ...]:
    """By which explicit axis of a mesh each dimension is sharded, or None."""
    sharding = getattr(aval, "sharding", None)
    return (
        (None,) * aval.ndim
        if sharding is None
        else (*sharding.spec, *(None,) * (aval.ndim - len(sharding.spec)))
    )


def _varying(aval: Any) -> frozenset[str]:
    manual = getattr(aval, "manual_axis_type", None)
    return getattr(aval, "vma", frozenset()) if manual is None else manual.varying


def typed(shape: Any, dtype: Any, spec: Any, operands: Any) -> ShapedArray:
    """The type of a result with that spec, computed from operands of these types."""
    meshes = [s.mesh for s in (getattr(aval, "sharding", None) for aval in operands) if s is not None]
    mesh = next((mesh for mesh in meshes if not mesh.empty), None)
    if mesh is None:
        return ShapedArray(shape, dtype)
    varying = frozenset().union(*map(_varying, operands))
    if hasattr(operands[0], "manual_axis_type"):
        kwargs = {"manual_axis_type": type(operands[0].manual_axis_type)(varying=varying)}
    else:
        kwargs = {"vma": varying}
    return ShapedArray(shape, dtype, sharding=NamedSharding(mesh, P(*spec)), **kwargs)


def vary_together(values: Any) -> list[Any]:
    """Values, or None, made to vary over all manual axes over which any does.

    What did not vary over an axis has a gradient that is a sum over it.
    """
    if not hasattr(jax, "typeof"):
        return list(values)
    own = [frozenset() if value is None else _varying(jax.typeof(value)) for value in values]
    every = frozenset().union(*own)

    def vary(value, missing):
        if not missing:
            return value
        axes = tuple(sorted(missing))
        return lax.pcast(value, axes, to="varying") if hasattr(lax, "pcast") else lax.pvary(value, axes)

    return [
        value if value is None else vary(value, every - have)
        for value, have in zip(values, own, strict=True)
    ]


def resharded_like(value: Any, other: Any) -> Any:
    """A value sharded over explicit axes as another is, if that has any."""
    if not hasattr(jax, "typeof"):
        return value
    have, want = (jax.typeof(v) for v in (value, other))
    if spec_of(have) == spec_of(want) or want.sharding.mesh.empty:
        return value
    return jax.sharding.reshard(value, want.sharding)
