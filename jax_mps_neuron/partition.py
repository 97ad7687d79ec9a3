"""How the primitives shard.

XLA knows nothing of a custom call, and gathers its operands onto every device. So where it divides a
program among devices, the call is handed to it as JAX's `custom_partitioning`, and divided like the
elementwise operation it is: matrices, rows and channels in whatever way the arrays are, and each device
calls the handler on its part. Sums over rows are then summed over the devices that share rows.

The axes of the user's mesh are not known where a call is lowered, and need not be. A sharding tells which
device has which part, and a mesh with an axis for each prime factor of the number of devices says the same
of any mesh, if the factors come in the right order.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import mlir
from jax.sharding import Mesh, NamedSharding, Sharding
from jax.sharding import PartitionSpec as P

from . import dimensions
from ._compat import custom_partitioning, devices_of, outside_of_meshes, with_devices

__all__ = ["lower", "place"]


def place(ctx: mlir.LoweringRuleContext) -> str:
    """Where a call that is lowered will run.

    Returns:
      "whole": on one device, or in shard_map and pmap on each with what it has; "divided": on devices among
      which XLA divides the program and, by `lower`, the call; "undivided": where it cannot.
    """
    context: Any = ctx.module_context.axis_context
    manual = getattr(context, "manual_axes", None)
    if manual is not None:
        # On a mesh of which some axes only are manual, a custom partitioning aborts the process.
        return "whole" if set(manual) == set(context.mesh.axis_names) else "undivided"
    if getattr(context, "num_devices", 1) == 1:
        return "whole"
    module = ctx.module_context
    # What runs elsewhere cannot call back into this process, nor may a plugin be able to.
    here = not module.lowering_parameters.for_export and tuple(module.platforms) == ("cpu",)
    if custom_partitioning is None or not here or devices_of(ctx) is None:
        return "undivided"
    return "divided" if _shapes(ctx.avals_in)[0] else "whole"


def _shapes(avals: Any) -> list[tuple[int, ...]]:
    return [tuple(aval.shape) for aval in avals]


def lower(
    primitive: Primitive,
    function: Callable[..., list[Array]],
    ctx: mlir.LoweringRuleContext,
    *operands: Any,
    **parameters: Any,
) -> Any:
    """Emits a primitive for XLA to divide; `function` is the same in jnp."""
    devices: Any = devices_of(ctx)
    (whole, *_), shapes = _shapes(ctx.avals_out), _shapes(ctx.avals_in)
    call = _Call(primitive, function, parameters, devices, shapes, whole)

    def divisible(static, *operands):
        return primitive.bind(*operands, **parameters)

    partitioned = custom_partitioning(divisible, call.infer, call.partition, call.rule())
    # JAX has a setting that keeps callbacks out of the key of the compilation cache. This constant tells
    # programs apart there that else differ in nothing but what the callbacks do.
    values = [primitive.name, *(parameters[name] for name in sorted(parameters))]
    static = np.frombuffer(repr(values).encode(), np.uint8)
    rule = mlir.lower_fun(lambda *operands: partitioned(static, *operands), multiple_results=True)
    return rule(with_devices(ctx, devices), *operands)


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call to divide, with the shapes of the whole."""

    primitive: Primitive
    function: Callable[..., list[Array]]
    parameters: dict[str, Any]
    devices: Sequence[jax.Device]
    shapes: list[tuple[int, ...]]  # of the operands
    whole: tuple[int, ...]  # that of y, or of the data gradient

    @property
    def rows(self) -> list[int]:
        return list(range(self.parameters["matrix_axes"], len(self.whole) - 1))

    def _operands(self) -> list[list[int | None]]:
        """Beginning with the constant."""
        return [[None], *dimensions.of_operands(self.shapes, self.whole, self.parameters)]

    def _results(self) -> list[list[int]]:
        return dimensions.of_results(len(self.whole), self.parameters)

    def rule(self) -> str:
        """Shardy's: names of dimensions; those of one name are divided in one way."""
        own = itertools.count()

        def names(dimensions_: Sequence[int | None]) -> str:
            return " ".join(f"own{next(own)}" if d is None else f"d{d}" for d in dimensions_)

        return f"{', '.join(map(names, self._operands()))} -> {', '.join(map(names, self._results()))}"

    def infer(self, mesh: Any, operands: Any, results: Any) -> list[NamedSharding]:
        """For XLA's older partitioner: the shardings of the results, from those of the operands."""
        division = self._division(operands)
        return [division.sharding(result) for result in self._results()]

    def partition(self, mesh: Any, operands: Any, results: Any) -> Any:
        """What each device runs, and how operands and results are to be divided for that."""
        division = self._division(operands, results[0])

        def run(static, *operands):
            with outside_of_meshes():
                return self._run(division, *operands)

        of_operands = tuple(division.sharding(operand) for operand in self._operands())
        return division.mesh, run, [division.sharding(result) for result in self._results()], of_operands

    def _division(self, operands: Sequence[Any], *more: Any) -> _Division:
        """That of the array in the most parts; of several, x before the gradient, and that before more."""
        arrays = [*reversed(operands[1 : 1 + dimensions.arrays(self.parameters)]), *more]
        parts = [_parts(array.sharding, array.shape, self.whole, self.devices) for array in arrays]
        return _Division.of(max(parts, key=lambda p: math.prod(p.max(0) + 1)), self.devices)

    def _run(self, division: _Division, *operands: Array) -> list[Array]:
        """The call on a device's part."""
        uneven = [d for d in self.rows if self.whole[d] % division.count(d)]
        if uneven and len(self._results()) > 1:
            sums = self._sums_of_valid_rows(division, uneven, *operands)
            # First the sums: the data gradient takes the memory of the gradient that they read.
            gradient, sums = lax.optimization_barrier((operands[0], sums))
            parameters = {**self.parameters, "bias_gradient": False, "slope_gradient": False}
            (data,) = self.primitive.bind(gradient, *operands[1:], **parameters)
        else:
            data, *sums = self.primitive.bind(*operands, **self.parameters)
        axes = {axis for d in self.rows for axis in division.axes[d]}
        # In the order of the mesh, as in XLA's own sums over the same devices, with which it combines them.
        in_order = tuple(axis for axis in division.mesh.axis_names if axis in axes)
        return [data, *(lax.psum(sums, in_order) if sums and in_order else sums)]

    def _sums_of_valid_rows(self, division: _Division, uneven: list[int], *operands: Array) -> list[Array]:
        """The sums without the rows, of any content, that fill up a device's part."""
        gradient, x, *small = operands
        ones = (1,) * len(self.rows)
        small = [v.reshape(*v.shape[:-1], *ones, v.shape[-1]) for v in small]
        # If each row is a matrix of its own, so are its sums.
        parameters = {**self.parameters, "matrix_axes": len(self.whole) - 1}
        _, *terms = self.function(gradient, x, *small, **parameters)
        shape = terms[0].shape
        for d in uneven:
            first = np.arange(division.count(d)) * shape[d]
            counts = jnp.asarray(np.clip(self.whole[d] - first, 0, shape[d]), jnp.int32)
            valid = lax.broadcasted_iota(jnp.int32, shape, d) < counts[lax.axis_index(division.axes[d])]
            terms = [jnp.where(valid, term, 0) for term in terms]
        return [jnp.sum(term, tuple(self.rows)) for term in terms]


@dataclasses.dataclass(frozen=True)
class _Division:
    """A mesh, and the axes of it that divide each dimension, the slowest first."""

    mesh: Mesh
    axes: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, parts: np.ndarray, devices: Sequence[jax.Device]) -> _Division:
        """The one by which device i has part parts[i, d] of dimension d; none if there is no such mesh."""
        rank = parts.shape[1]
        cube = (len(devices),) * rank
        for sizes in _factorizations(len(devices)):
            names = [f"p{i}" for i in range(len(sizes))]
            grid = parts.reshape(*sizes, rank)
            # By how many parts of each dimension the next device along an axis is further on.
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
        """In how many parts a dimension is."""
        return math.prod(self.mesh.shape[axis] for axis in self.axes[d])

    def sharding(self, dimensions_: Sequence[int | None]) -> NamedSharding:
        """Of an array of these dimensions."""
        axes = (() if d is None else self.axes[d] for d in dimensions_)
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
    sharding: Sharding | None, shape: Sequence[int], whole: Sequence[int], devices: Sequence[jax.Device]
) -> np.ndarray:
    """Which part of each dimension a device has, [devices, dimensions]; 0 where it is not as in `whole`."""
    n = len(devices)
    parts = np.zeros((n, len(whole)), int)
    if sharding is None:
        return parts
    # The devices are as many as the parts times a number, so this shape is divided evenly.
    indices = sharding.devices_indices_map((n,) * len(shape))
    for i, device in enumerate(devices):
        for d, part in enumerate(indices[device]):
            start, stop, _ = part.indices(n)
            if shape[d] == whole[d] > 1:
                parts[i, d] = start // (stop - start)
    return parts
