"""The region of its matrices that a kernel reads and writes.

A matrix is an array of shape [rows, columns], or [matrices, rows, columns], as an MPSMatrix that holds
several; a vector is one of shape [length], or [vectors, length].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from jax import Array, lax
from jax.typing import ArrayLike

from .._core.arguments import floating

__all__ = ["Batch", "Matrix", "Origin", "batch_of", "matrix", "read", "read_vector", "shared_size", "write"]

Origin = tuple[int, int]

_AXES = ("rows", "columns")


class Matrix(NamedTuple):
    """An argument, and the origin (row, column) from which it is read, a property of the kernel's."""

    name: str
    array: Array
    origin: Origin

    def available(self, axis: str) -> int:
        """The rows or columns that there are from the origin."""
        i = _AXES.index(axis)
        return self.array.shape[i - 2] - self.origin[i]


class Batch(NamedTuple):
    """The matrices start, ..., start + size - 1."""

    start: int
    size: int


def matrix(name: str, value: ArrayLike, origin_name: str, origin: Origin) -> Matrix:
    """An argument that may be one matrix or several; raises if its origin is not in it."""
    array = floating(name, value)
    if array.ndim not in (2, 3):
        raise ValueError(
            f"{name} has shape {array.shape}; it may have shape [rows, columns] or "
            f"[matrices, rows, columns]"
        )
    for start, size in zip(origin, array.shape[-2:], strict=True):
        if start and start >= size:
            raise ValueError(
                f"{origin_name} is {origin}, which lies outside of {name}: it has {array.shape[-2]} rows "
                f"and {array.shape[-1]} columns"
            )
    return Matrix(name, array, origin)


def shared_size(name: str, requested: int | None, *extents: tuple[Matrix, str]) -> int:
    """The size that a kernel's property of that name comes to: requested, or less where there is less.

    Args:
      name: of the property.
      requested: its value; None for all that there is.
      extents: the matrices that have this size, each with "rows" or "columns".

    Raises:
      ValueError: it is not the same in all of them.
    """
    found = [m.available(axis) for m, axis in extents]
    sizes = [n if requested is None else min(n, requested) for n in found]
    if len(set(sizes)) > 1:
        each = " but ".join(
            f"{m.name} has {n} {axis} from its origin {m.origin}"
            for (m, axis), n in zip(extents, found, strict=True)
        )
        raise ValueError(
            f"{each}, and {name} is {requested}; they may have as many, or {name} may be at most "
            f"{min(found)}"
        )
    return sizes[0]


def batch_of(start: int, size: int | None, *sources: Matrix) -> Batch | None:
    """The matrices that a batch_start and a batch_size come to; None where a source is [rows, columns]."""
    if len({m.array.ndim for m in sources}) > 1:
        shapes = " but ".join(f"{m.name} has shape {m.array.shape}" for m in sources)
        raise ValueError(f"{shapes}; both may be [rows, columns], or both [matrices, rows, columns]")
    name, array, _ = sources[0]
    if array.ndim == 2:
        if start != 0 or size not in (None, 1):
            raise ValueError(
                f"batch_start is {start} and batch_size {size}, but {name} is one matrix, of shape "
                f"{array.shape}: they may be 0 and 1, or 0 and None"
            )
        return None
    for m in sources:
        there = m.array.shape[0]
        if (start and start >= there) or (size is not None and start + size > there):
            raise ValueError(
                f"batch_start is {start} and batch_size {size}, but {m.name} has {there} matrices (shape "
                f"{m.array.shape})"
            )
    counts = [m.array.shape[0] - start for m in sources]
    if size is None and len(set(counts)) > 1:
        each = " but ".join(f"{m.name} has {m.array.shape[0]} matrices" for m in sources)
        raise ValueError(
            f"{each}, and batch_size is None; they may have as many, or batch_size say how many"
        )
    return Batch(start, counts[0] if size is None else size)


def read(source: Matrix, batch: Batch | None, rows: int, columns: int) -> Array:
    """The region of a source; a matrix beside a batch that is one itself is shared by it."""
    array, (row, column) = source.array, source.origin
    starts, sizes = (row, column), (rows, columns)
    if array.ndim == 3:
        assert batch is not None
        return _slice(array, (batch.start, *starts), (batch.size, *sizes))
    return _slice(array, starts, sizes)


def read_vector(name: str, value: ArrayLike, batch: Batch | None, length: int, columns: str) -> Array:
    """The first `length` elements of a vector, or of those of a batch.

    columns: what has that many columns, for the message.
    """
    array = floating(name, value)
    if array.ndim not in ((1,) if batch is None else (1, 2)):
        shapes = "[length]" if batch is None else "[length] or [vectors, length]"
        raise ValueError(f"{name} has shape {array.shape}; it may have shape {shapes}")
    if array.shape[-1] < length:
        raise ValueError(
            f"{name} has {array.shape[-1]} elements (shape {array.shape}), but the region of {columns} has "
            f"{length} columns; it may have at least as many"
        )
    if array.ndim == 1:
        return _slice(array, (0,), (length,))
    assert batch is not None
    if array.shape[0] < batch.start + batch.size:
        raise ValueError(
            f"{name} has {array.shape[0]} vectors (shape {array.shape}), but batch_start {batch.start} and "
            f"{batch.size} matrices need {batch.start + batch.size}"
        )
    return _slice(array, (batch.start, 0), (batch.size, length))


def write(
    name: str, result: ArrayLike | None, batch: Batch | None, origin: Sequence[int], value: Array
) -> Array:
    """A result with a value written at an origin, in its dtype; the value itself without a result.

    Args:
      name: of the result.
      result: of the value's rank.
      batch: where in the result the value's first axis lies, if it has one more than the origin.
      origin: (row, column) of a matrix, (0,) of a vector.
      value: the region.

    Raises:
      ValueError: the region does not fit.
    """
    if result is None:
        return value
    array = floating(name, result)
    if array.ndim != value.ndim:
        raise ValueError(
            f"{name} has shape {array.shape}; it may have {value.ndim} axes, with room for {value.shape}"
        )
    starts = (*origin,)
    if value.ndim > len(starts):
        assert batch is not None
        starts = (batch.start, *starts)
    if any(start + n > there for start, n, there in zip(starts, value.shape, array.shape, strict=True)):
        raise ValueError(
            f"{name} has shape {array.shape}, in which the region does not fit: shape {value.shape} "
            f"from {starts}"
        )
    value = value.astype(array.dtype)
    return value if value.shape == array.shape else lax.dynamic_update_slice(array, value, starts)


def _slice(array: Array, starts: Sequence[int], sizes: Sequence[int]) -> Array:
    return lax.slice(array, starts, [start + size for start, size in zip(starts, sizes, strict=True)])
