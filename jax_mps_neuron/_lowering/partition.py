"""Partitioning of the custom call across devices.

XLA does not know what a custom call computes, so it would gather the operands onto every device. The call
is therefore wrapped in JAX's `custom_partitioning` and divided like the elementwise operation it is. Each
device calls the handler on its own part of batch, rows and channels. Sums over rows are then summed
over the devices that share rows.

A lowering rule does not see the axes of the user's mesh. It does not need them: a sharding says which
device has which part. A mesh with one axis for each prime factor of the number of devices can express any
division, given the right order of factors.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from .._compat.contexts import custom_partitioning, devices_of, outside_of_meshes, with_devices
from .._core.evaluation import evaluate
from .._core.signature import Dimensions, Signature

__all__ = ["DIVIDED", "OPAQUE", "WHOLE", "lower", "place"]

# Where a call runs: on one device, or on each device of shard_map and pmap with its own part;
WHOLE = "whole"
# on devices among which XLA divides the program, and `lower` the call;
DIVIDED = "divided"
# on several devices, where no partitioning of the call is possible.
OPAQUE = "opaque"


def place(ctx: mlir.LoweringRuleContext) -> str:
    """Where a lowered call will run: `WHOLE`, `DIVIDED` or `OPAQUE`."""
    context: Any = ctx.module_context.axis_context
    manual = getattr(context, "manual_axes", None)
    if manual is not None:
        # On a partially manual mesh, a custom partitioning aborts the process.
        return WHOLE if set(manual) == set(context.mesh.axis_names) else OPAQUE
    if getattr(context, "num_devices", 1) == 1:
        return WHOLE
    module = ctx.module_context
    # Partitioning calls back into this process, which an exported program or a plugin cannot do.
    here = not module.lowering_parameters.for_export and tuple(module.platforms) == ("cpu",)
    if custom_partitioning is None or not here or devices_of(ctx) is None:
        return OPAQUE
    return DIVIDED if _shapes(ctx.avals_in)[0] else WHOLE


def _shapes(avals: Any) -> list[tuple[int, ...]]:
    return [tuple(aval.shape) for aval in avals]


def lower(
    primitive: Primitive,
    signature: Signature,
    in_place: bool,
    ctx: mlir.LoweringRuleContext,
    *operands: Any,
) -> Any:
    """Emits a primitive for XLA to divide among devices."""
    devices: Any = devices_of(ctx)
    (full, *_), shapes = _shapes(ctx.avals_out), _shapes(ctx.avals_in)
    call = _Call(primitive, signature, in_place, devices, shapes, full)

    def divisible(static, *operands):
        return call.bind(signature, *operands)

    partitioned = custom_partitioning(divisible, call.infer, call.partition, call.rule())
    # With one setting, JAX leaves callbacks out of the compilation cache's key. This constant then tells
    # apart programs that differ only in what their callbacks do.
    static = np.frombuffer(repr((signature, in_place)).encode(), np.uint8)
    rule = mlir.lower_fun(lambda *operands: partitioned(static, *operands), multiple_results=True)
    return rule(with_devices(ctx, devices), *operands)


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call to divide.

    Attributes:
      primitive: the primitive.
      signature: its signature.
      in_place: its parameter of that name.
      devices: the devices that the program runs on.
      shapes: of the undivided operands.
      full: the shape of the undivided first result.
    """

    primitive: Primitive
    signature: Signature
    in_place: bool
    devices: Sequence[jax.Device]
    shapes: list[tuple[int, ...]]
    full: tuple[int, ...]

    @property
    def rows(self) -> list[int]:
        return list(self.signature.row_axes(len(self.full)))

    def _operands(self) -> list[Dimensions]:
        """The dimensions of the operands, the constant first."""
        return [[None], *self.signature.operand_dimensions(self.shapes, self.full)]

    def _results(self) -> list[list[int]]:
        return self.signature.result_dimensions(len(self.full))

    def bind(self, signature: Signature, *operands: Array) -> list[Array]:
        """The primitive with another signature of the same operands."""
        return self.primitive.bind(
            *operands, signature=signature, lowering="custom_call", in_place=self.in_place
        )

    def rule(self) -> str:
        """Shardy's rule: one factor for each dimension; equal factors are divided alike."""
        own = itertools.count()

        def names(dimensions: Sequence[int | None]) -> str:
            return " ".join(f"own{next(own)}" if d is None else f"d{d}" for d in dimensions)

        return f"{', '.join(map(names, self._operands()))} -> {', '.join(map(names, self._results()))}"

    def infer(self, mesh: Any, operands: Any, results: Any) -> list[NamedSharding]:
        """For GSPMD: the shardings of the results, from those of the operands."""
        division = self._division(operands)
        return [division.sharding(result) for result in self._results()]

    def partition(self, mesh: Any, operands: Any, results: Any) -> Any:
        """What each device runs, and the shardings of operands and results for that."""
        division = self._division(operands, results[0])

        def run(static, *operands):
            with outside_of_meshes():
                return self._run(division, *operands)

        of_operands = tuple(division.sharding(operand) for operand in self._operands())
        return division.mesh, run, [division.sharding(result) for result in self._results()], of_operands

    def _division(self, operands: Sequence[Any], *more: Any) -> _Division:
        """The division of the most-divided array; ties prefer x, then the gradient, then more."""
        named = self.signature.named(operands[1:])
        arrays = [a for a in (named.x, named.gradient, *more) if a is not None]
        parts = [_parts(array.sharding, array.shape, self.full, self.devices) for array in arrays]
        return _Division.of(max(parts, key=lambda p: math.prod(p.max(0) + 1)), self.devices)

    def _run(self, division: _Division, *operands: Array) -> list[Array]:
        """The call on a device's part."""
        uneven = [d for d in self.rows if self.full[d] % division.count(d)]
        if uneven and len(self._results()) > 1:
            sums = self._sums_of_valid_rows(division, uneven, *operands)
            # The sums first: the data gradient overwrites the gradient that they read.
            gradient, sums = lax.optimization_barrier((operands[0], sums))
            (data,) = self.bind(self.signature.without_sums(), gradient, *operands[1:])
        else:
            data, *sums = self.bind(self.signature, *operands)
        axes = {axis for d in self.rows for axis in division.axes[d]}
        # In the order of the mesh, like XLA's own sums over the same devices, so that XLA can combine them.
        in_order = tuple(axis for axis in division.mesh.axis_names if axis in axes)
        return [data, *(lax.psum(sums, in_order) if sums and in_order else sums)]

    def _sums_of_valid_rows(self, division: _Division, uneven: list[int], *operands: Array) -> list[Array]:
        """The sums without the padding rows of a device's part, which hold arbitrary values."""
        gradient, x, *small = operands
        ones = (1,) * len(self.rows)
        small = [v.reshape(*v.shape[:-1], *ones, v.shape[-1]) for v in small]
        # With the row axes as batch axes, the "sums" are the terms of each row.
        _, *terms = evaluate(self.signature.replace(batch_axes=len(self.full) - 1), gradient, x, *small)
        shape = terms[0].shape
        for d in uneven:
            first = np.arange(division.count(d)) * shape[d]
            counts = jnp.asarray(np.clip(self.full[d] - first, 0, shape[d]), jnp.int32)
            valid = lax.broadcasted_iota(jnp.int32, shape, d) < counts[lax.axis_index(division.axes[d])]
            terms = [jnp.where(valid, term, 0) for term in terms]
        return [jnp.sum(term, tuple(self.rows)) for term in terms]


@dataclasses.dataclass(frozen=True)
class _Division:
    """A mesh, and for each dimension the mesh axes that divide it, the slowest first."""

    mesh: Mesh
    axes: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, parts: np.ndarray, devices: Sequence[jax.Device]) -> _Division:
        """The division in which device i has part parts[i, d] of dimension d; no division if none fits."""
        rank = parts.shape[1]
        cube = (len(devices),) * rank
        for sizes in _factorizations(len(devices)):
            names = [f"p{i}" for i in range(len(sizes))]
            grid = parts.reshape(*sizes, rank)
            # The step along each dimension from one device to the next along an axis.
            steps = [(grid.take(1, i) - grid.take(0, i)).reshape(-1, rank)[0] for i in range(len(sizes))]
            if any(np.count_nonzero(step) > 1 for step in steps):
                continue
            by_dimension = [sorted(zip([-s[d] for s in steps], names, strict=True)) for d in range(rank)]
            axes = tuple(tuple(name for step, name in pairs if step) for pairs in by_dimension)
            division = cls(Mesh(np.asarray(devices).reshape(sizes), names), axes)
            if np.array_equal(_parts(division.sharding(range(rank)), cube, cube, devices), parts):
                return division
        return cls(Mesh(np.asarray(devices), ["p"]), ((),) * rank)

    def count(self, d: int) -> int:
        """The number of parts of a dimension."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes[d])

    def sharding(self, dimensions: Sequence[int | None]) -> NamedSharding:
        """The sharding of an array with these dimensions."""
        axes = (() if d is None else self.axes[d] for d in dimensions)
        return NamedSharding(self.mesh, P(*(names or None for names in axes)))


def _factorizations(n: int) -> Iterator[tuple[int, ...]]:
    """The prime factors of n, in each order."""
    if n == 1:
        yield ()
    for p in range(2, n + 1):
        if n % p == 0 and all(p % q for q in range(2, p)):
            for rest in _factorizations(n // p):
                yield p, *rest


def _parts(
    sharding: Sharding | None, shape: Sequence[int], full: Sequence[int], devices: Sequence[jax.Device]
) -> np.ndarray:
    """Each device's part of each dimension, [devices, dimensions]; 0 where the size differs from `full`."""
    n = len(devices)
    parts = np.zeros((n, len(full)), int)
    if sharding is None:
        return parts
    # The number of parts divides the number of devices, so this shape is divided evenly.
    indices = sharding.devices_indices_map((n,) * len(shape))
    for i, device in enumerate(devices):
        for d, part in enumerate(indices[device]):
            start, stop, _ = part.indices(n)
            if shape[d] == full[d] > 1:
                parts[i, d] = start // (stop - start)
    return parts
