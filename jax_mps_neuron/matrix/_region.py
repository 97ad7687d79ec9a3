"""The region of its matrices that a kernel reads and writes.

A matrix is an array of shape [rows, columns], or [matrices, rows, columns] like an MPSMatrix that holds
several. A vector is an array of shape [length] or [vectors, length].
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import Array, lax
from jax.typing import ArrayLike

from .._core.arguments import floating

__all__ = [
    "Batch",
    "Matrix",
    "Origin",
    "batch_of",
    "by_matrix",
    "matrix",
    "read",
    "read_vector",
    "shared_size",
    "write",
]

Origin = tuple[int, int]

_AXES = ("rows", "columns")


class Matrix(NamedTuple):
    """A matrix argument.

    Attributes:
      name: the argument's name.
      array: shape [rows, columns] or [matrices, rows, columns].
      origin: the (row, column) where its region starts, a property of the kernel.
    """

    name: str
    array: Array
    origin: Origin

    def available(self, axis: str) -> int:
        """The number of "rows" or "columns" from the origin to the end."""
        i = _AXES.index(axis)
        return self.array.shape[i - 2] - self.origin[i]


class Batch(NamedTuple):
    """The matrices start, ..., start + size - 1."""

    start: int
    size: int


def matrix(name: str, value: ArrayLike, origin_name: str, origin: Origin) -> Matrix:
    """A matrix argument.

    Raises:
      TypeError: it does not have a floating dtype.
      ValueError: it does not have two or three axes, or the origin lies outside of it.
    """
    array = floating(name, value)
    if array.ndim not in (2, 3):
        raise ValueError(
            f"{name} must have shape [rows, columns] or [matrices, rows, columns], got {array.shape}"
        )
    for start, size in zip(origin, array.shape[-2:], strict=True):
        if start and start >= size:
            rows, columns = array.shape[-2:]
            raise ValueError(
                f"{origin_name} must lie inside {name}, which has {rows} rows and {columns} columns, "
                f"got {origin}"
            )
    return Matrix(name, array, origin)


def shared_size(name: str, requested: int | None, *extents: tuple[Matrix, str]) -> int:
    """The size that several matrices share: the requested one, or the available one if that is smaller.

    Args:
      name: the kernel's property that requests the size.
      requested: its value; None for all rows or columns.
      extents: each matrix with the axis that has this size, "rows" or "columns".

    Raises:
      ValueError: the matrices do not share one size.
    """
    found = [m.available(axis) for m, axis in extents]
    sizes = [n if requested is None else min(n, requested) for n in found]
    if len(set(sizes)) > 1:
        each = ", ".join(
            f"{m.name} has {n} {axis} from its origin {m.origin}"
            for (m, axis), n in zip(extents, found, strict=True)
        )
        raise ValueError(f"{name} must be at most {min(found)} here, got {requested}: {each}")
    return sizes[0]


def batch_of(start: int, size: int | None, *sources: Matrix) -> Batch | None:
    """The matrices that batch_start and batch_size select; None for sources of shape [rows, columns].

    Raises:
      ValueError: the sources do not have these matrices, or differ in their number of axes.
    """
    if len({m.array.ndim for m in sources}) > 1:
        names = " and ".join(m.name for m in sources)
        shapes = " and ".join(str(m.array.shape) for m in sources)
        raise ValueError(
            f"{names} must both have shape [rows, columns] or both [matrices, rows, columns], got {shapes}"
        )
    name, array, _ = sources[0]
    if array.ndim == 2:
        if start != 0 or size not in (None, 1):
            raise ValueError(
                f"batch_start must be 0 and batch_size 1 or None for {name}, a single matrix of shape "
                f"{array.shape}, got {start} and {size}"
            )
        return None
    for m in sources:
        there = m.array.shape[0]
        if (start and start >= there) or (size is not None and start + size > there):
            raise ValueError(
                f"batch_start and batch_size must select from the {there} matrices of {m.name} (shape "
                f"{m.array.shape}), got {start} and {size}"
            )
    counts = [m.array.shape[0] - start for m in sources]
    if size is None and len(set(counts)) > 1:
        each = ", ".join(f"{m.name} has {m.array.shape[0]} matrices" for m in sources)
        raise ValueError(f"batch_size must be given where the numbers of matrices differ, got None: {each}")
    return Batch(start, counts[0] if size is None else size)


def read(source: Matrix, batch: Batch | None, rows: int, columns: int) -> Array:
    """The region of a source. A source of shape [rows, columns] is shared by the batch."""
    array, (row, column) = source.array, source.origin
    starts, sizes = (row, column), (rows, columns)
    if array.ndim == 3:
        assert batch is not None
        return _slice(array, (batch.start, *starts), (batch.size, *sizes))
    return _slice(array, starts, sizes)


def read_vector(name: str, value: ArrayLike, batch: Batch | None, length: int, columns: str) -> Array:
    """The first `length` elements of a vector, or of each vector of a batch.

    Args:
      name: the argument's name.
      value: shape [length or more], or [vectors, length or more] with a batch.
      batch: the batch, or None.
      length: the length.
      columns: the name of the matrix whose columns give the length, for error messages.

    Raises:
      TypeError: it does not have a floating dtype.
      ValueError: it has another number of axes, or too few elements or vectors.
    """
    array = floating(name, value)
    if array.ndim not in ((1,) if batch is None else (1, 2)):
        shapes = "[length]" if batch is None else "[length] or [vectors, length]"
        raise ValueError(f"{name} must have shape {shapes}, got {array.shape}")
    if array.shape[-1] < length:
        raise ValueError(
            f"{name} must have at least {length} elements to match the columns of {columns}'s region, "
            f"got shape {array.shape}"
        )
    if array.ndim == 1:
        return _slice(array, (0,), (length,))
    assert batch is not None
    if array.shape[0] < batch.start + batch.size:
        raise ValueError(
            f"{name} must have at least {batch.start + batch.size} vectors for batch_start {batch.start} "
            f"and {batch.size} matrices, got shape {array.shape}"
        )
    return _slice(array, (batch.start, 0), (batch.size, length))


def by_matrix(function: Callable[..., Any], *operands: tuple[Array | None, int], apart: bool) -> Any:
    """Applies a function to the operands, or to those of each matrix of the batch.

    Args:
      function: the function.
      operands: each operand with its rank for a single matrix. One without a batch axis is shared.
      apart: whether to apply the function to each matrix; otherwise it takes the whole batch at once.
    """
    values = [value for value, _ in operands]
    if not apart:
        return function(*values)
    axes = tuple(0 if value is not None and value.ndim > rank else None for value, rank in operands)
    return jax.vmap(function, axes)(*values)


def write(
    name: str, result: ArrayLike | None, batch: Batch | None, origin: Sequence[int], value: Array
) -> Array:
    """A result with a value written at an origin, in the result's dtype; the value itself without a result.

    Args:
      name: the result's name.
      result: an array of the value's rank, or None.
      batch: where the value's first axis lies in the result, if the value has one more axis than `origin`.
      origin: (row, column) of a matrix, (0,) of a vector.
      value: the region.

    Raises:
      TypeError: the result does not have a floating dtype.
      ValueError: the region does not fit into the result.
    """
    if result is None:
        return value
    array = floating(name, result)
    if array.ndim != value.ndim:
        raise ValueError(
            f"{name} must have {value.ndim} axes with room for shape {value.shape}, got shape {array.shape}"
        )
    starts = (*origin,)
    if value.ndim > len(starts):
        assert batch is not None
        starts = (batch.start, *starts)
    if any(start + n > there for start, n, there in zip(starts, value.shape, array.shape, strict=True)):
        raise ValueError(
            f"{name} must have room for shape {value.shape} from {starts}, got shape {array.shape}"
        )
    value = value.astype(array.dtype)
    return value if value.shape == array.shape else lax.dynamic_update_slice(array, value, starts)


def _slice(array: Array, starts: Sequence[int], sizes: Sequence[int]) -> Array:
    return lax.slice(array, starts, [start + size for start, size in zip(starts, sizes, strict=True)])
