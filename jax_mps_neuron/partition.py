"""How the primitives shard.

XLA knows nothing of a custom call, and gathers its operands onto every device. So where it divides a program
among devices, the call is handed to it as JAX's `custom_partitioning`, and divided like the elementwise
operation it is: matrices, rows and channels in whatever way the arrays are, and each device calls the
handler on its part. Sums over rows are then summed over the devices that share rows.

The axes of the user's mesh are not known where a call is lowered, and need not be. A sharding tells which
device has which part, and a mesh with an axis for each prime factor of the number of devices says the same
of any mesh, if the factors come in the right order.
"""

from __future__ import annotations

import dataclasses
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

from ._compat import custom_partitioning, devices_of, outside_of_meshes, with_devices

__all__ = ["lower", "place"]


def place(ctx: mlir.LoweringRuleContext) -> str:
    """Where a call that is lowered will run.

    Returns:
      "whole": on one device, or in shard_map and pmap on each with what it has; "divided": on devices among
      which XLA divides the program and, by `lower`, the call; "undivided": where it cannot.
    """
    context = ctx.module_context.axis_context
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
    return "divided" if ctx.avals_in[0].ndim else "whole"


def lower(
    primitive: Primitive,
    function: Callable[..., list[Array]],
    ctx: mlir.LoweringRuleContext,
    *operands: Any,
    **parameters: Any,
) -> Any:
    """Emits a primitive for XLA to divide; `function` is the same in jnp."""
    devices = devices_of(ctx)
    shapes = [tuple(aval.shape) for aval in ctx.avals_in]
    call = _Call(primitive, function, parameters, devices, shapes, ctx.avals_out[0].shape, len(ctx.avals_out))

    def divisible(*operands):
        return call.primitive.bind(*operands[1:], **parameters)

    partitioned = custom_partitioning(divisible, call.infer, call.partition, call.rule())
    # JAX has a setting that keeps callbacks out of the key of the compilation cache. This constant tells
    # programs apart there that else differ in nothing but what the callbacks do.
    static = np.asarray([*primitive.name.encode(), *map(int, _integers(parameters))], np.int32)
    rule = mlir.lower_fun(lambda *operands: partitioned(static, *operands), multiple_results=True)
    return rule(with_devices(ctx, devices), *operands)


def _integers(parameters: dict[str, Any]) -> Iterator[int]:
    for name in sorted(parameters):
        value = parameters[name]
        yield from value.encode() if isinstance(value, str) else [int(value)]


@dataclasses.dataclass(frozen=True)
class _Call:
    """A call to divide, with the shapes of the whole."""

    primitive: Primitive
    function: Callable[..., list[Array]]
    parameters: dict[str, Any]
    devices: Sequence[jax.Device]
    shapes: list[tuple[int, ...]]  # of the operands
    shape: tuple[int, ...]  # of y, or of the data gradient
    results: int

    # How the dimensions of operands and results correspond to those of `shape`

    @property
    def matrix_axes(self) -> int:
        return self.parameters["matrix_axes"]

    @property
    def rows(self) -> range:
        return range(self.matrix_axes, len(self.shape) - 1)

    @property
    def arrays(self) -> int:
        """How many operands, the first ones, are of that shape: x, or gradient and x."""
        return 2 if "bias_gradient" in self.parameters else 1

    def operand_dimensions(self) -> list[list[int | None]]:
        """Of each operand's dimensions; None is one of its own."""
        whole = list(range(len(self.shape)))
        matrices = whole[: self.matrix_axes]
        vectors = len(self.shapes) - self.arrays - 1
        all_: list[list[int | None]] = [whole] * self.arrays  # type: ignore[list-item]
        all_ += [[*matrices, None]] + [[*matrices, *whole[-1:]]] * vectors
        return [
            [d if d is not None and size == self.shape[d] else None for d, size in zip(dims, shape, strict=True)]
            for dims, shape in zip(all_, self.shapes, strict=True)
        ]

    def result_dimensions(self) -> list[list[int | None]]:
        whole: list[int | None] = list(range(len(self.shape)))
        return [whole] + [[*whole[: self.matrix_axes], whole[-1]]] * (self.results - 1)

    # For XLA

    def rule(self) -> str:
        """For Shardy: letters for dimensions; what has the same is divided in the same way."""
        count = 0

        def names(dimensions: Sequence[int | None]) -> str:
            nonlocal count
            words = []
            for d in dimensions:
                count += 1
                words.append(f"own{count}" if d is None else f"d{d}")
            return " ".join(words)

        operands = ", ".join(map(names, [[None], *self.operand_dimensions()]))
        return f"{operands} -> {', '.join(map(names, self.result_dimensions()))}"

    def infer(self, mesh: Any, arguments: Any, results: Any) -> list[NamedSharding]:
        """For XLA's old partitioner: the shardings of the results, from those of the operands."""
        division = self._division(arguments[1 : 1 + self.arrays])
        return [division.sharding(dimensions) for dimensions in self.result_dimensions()]

    def partition(self, mesh: Any, arguments: Any, results: Any) -> Any:
        """What each device runs, and what it has to have for that."""
        division = self._division([*reversed(arguments[1 : 1 + self.arrays]), results[0]])

        def run(static, *operands):
            with outside_of_meshes():
                return self._run(division, *operands)

        of_operands = [division.sharding(dimensions) for dimensions in self.operand_dimensions()]
        of_results = [division.sharding(dimensions) for dimensions in self.result_dimensions()]
        return division.mesh, run, of_results, (division.sharding([None]), *of_operands)

    def _division(self, arrays: Sequence[Any]) -> _Division:
        """That of the array in the most parts; of several, the first."""
        parts = [_parts(array.sharding, array.shape, self.shape, self.devices) for array in arrays]
        return _Division.of(max(parts, key=lambda p: math.prod(p.max(0) + 1)), self.devices)

    # On a device

    def _run(self, division: _Division, *operands: Array) -> list[Array]:
        axes = tuple(axis for d in self.rows for axis in division.axes[d])
        uneven = [d for d in self.rows if self.shape[d] % division.parts(d)]
        if uneven and self.results > 1:
            sums = self._sums_of_uneven(division, uneven, *operands)
            # First the sums: the data gradient takes the place of the gradient that they read.
            gradient, sums = lax.optimization_barrier((operands[0], sums))
            parameters = {**self.parameters, "bias_gradient": False, "slope_gradient": False}
            (data,) = self.primitive.bind(gradient, *operands[1:], **parameters)
        else:
            data, *sums = self.primitive.bind(*operands, **self.parameters)
        return [data, *(lax.psum(sums, axes) if sums and axes else sums)]

    def _sums_of_uneven(self, division: _Division, uneven: list[int], *operands: Array) -> list[Array]:
        """The sums over this device's rows, without those that fill up its part and hold anything."""
        gradient, x, *small = operands
        ones = (1,) * len(self.rows)
        small = [v.reshape(*v.shape[:-1], *ones, v.shape[-1]) for v in small]
        # With rows for matrices, each sum is one of a single row.
        parameters = {**self.parameters, "matrix_axes": len(self.shape) - 1}
        _, *terms = self.function(gradient, x, *small, **parameters)
        shape = terms[0].shape
        for d in uneven:
            starts = np.arange(division.parts(d)) * shape[d]
            counts = jnp.asarray(np.clip(self.shape[d] - starts, 0, shape[d]), jnp.int32)
            mine = counts[lax.axis_index(division.axes[d])]
            valid = lax.broadcasted_iota(jnp.int32, shape, d) < mine
            terms = [jnp.where(valid, term, 0) for term in terms]
        return [jnp.sum(term, tuple(self.rows)) for term in terms]


@dataclasses.dataclass(frozen=True)
class _Division:
    """A mesh, and the axes of it that divide each dimension, the slowest first."""

    mesh: Mesh
    axes: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, parts: np.ndarray, devices: Sequence[jax.Device]) -> _Division:
        """The division in which device i has part parts[i, d] of dimension d; of none if there is none."""
        for sizes in _factorizations(len(devices)):
            mesh = Mesh(np.asarray(devices).reshape(sizes), [f"p{i}" for i in range(len(sizes))])
            grid = parts.reshape(*sizes, -1)
            steps = [np.take(grid, 1, i) - np.take(grid, 0, i) for i in range(len(sizes))]
            steps = [step.reshape(-1, parts.shape[1])[0] for step in steps]
            axes = tuple(
                tuple(mesh.axis_names[i] for i in sorted(range(len(sizes)), key=lambda i: -steps[i][d]) if steps[i][d])
                for d in range(parts.shape[1])
            )
            division = cls(mesh, axes)
            shape = (len(devices),) * parts.shape[1]
            if np.array_equal(_parts(division.sharding(range(len(axes))), shape, shape, devices), parts):
                return division
        return cls(mesh, ((),) * parts.shape[1])

    def parts(self, d: int) -> int:
        return math.prod(self.mesh.shape[axis] for axis in self.axes[d])

    def sharding(self, dimensions: Sequence[int | None]) -> NamedSharding:
        """Of an array whose dimensions are these, None for one that is not divided."""
        return NamedSharding(self.mesh, P(*(self.axes[d] or None if d is not None else None for d in dimensions)))


def _factorizations(n: int) -> Iterator[tuple[int, ...]]:
    """The orders of the prime factors of n."""
    if n == 1:
        yield ()
    primes = [p for p in range(2, n + 1) if n % p == 0 and all(p % q for q in range(2, p))]
    for p in primes:
        for rest in _factorizations(n // p):
            yield p, *rest


def _parts(
    sharding: Sharding | None, shape: Sequence[int], whole: Sequence[int], devices: Sequence[jax.Device]
) -> np.ndarray:
    """[devices, dimensions]: which part of each dimension a device has; 0 where it is not as in `whole`."""
    if sharding is None:
        return np.zeros((len(devices), len(whole)), int)
    # The number of parts divides that of the devices, so this shape has parts of one size.
    indices = sharding.devices_indices_map((len(devices),) * len(shape))
    starts = np.asarray([[s.start or 0 for s in indices[device]] for device in devices])
    sizes = np.asarray([[(s.stop or len(devices)) - (s.start or 0) for s in indices[device]] for device in devices])
    return np.where(np.asarray(shape) == np.asarray(whole), starts // sizes, 0) * (np.asarray(whole) > 1)
