"""Which dimensions of a primitive's operands and results are the same.

They are numbered as those of the first result, [*M, *rows, C]. None is a dimension that is none of these:
the four scalars, or one of size 1, along which a matrix is shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Dimensions", "arrays", "of_operands", "of_results"]

Dimensions = list[int | None]


def arrays(parameters: Mapping[str, Any]) -> int:
    """How many operands, the first ones, are [*M, *rows, C]: x, or gradient and x."""
    return 2 if "bias_gradient" in parameters else 1


def of_operands(
    shapes: Sequence[Sequence[Any]], whole: Sequence[Any], parameters: Mapping[str, Any]
) -> list[Dimensions]:
    """Those of each operand, from their shapes and that of the first result."""
    every, matrices = _every(len(whole), parameters)
    count = arrays(parameters)
    roles = [every] * count + [[*matrices, None]] + [[*matrices, *every[-1:]]] * (len(shapes) - count - 1)
    return [
        [d if d is not None and size == whole[d] else None for d, size in zip(role, shape, strict=True)]
        for role, shape in zip(roles, shapes, strict=True)
    ]


def of_results(rank: int, parameters: Mapping[str, Any]) -> list[Dimensions]:
    """Those of each result: y, or data and sums."""
    every, matrices = _every(rank, parameters)
    sums = sum(bool(parameters.get(name)) for name in ("bias_gradient", "slope_gradient"))
    return [every] + [[*matrices, *every[-1:]]] * sums


def _every(rank: int, parameters: Mapping[str, Any]) -> tuple[Dimensions, Dimensions]:
    return list(range(rank)), list(range(parameters["matrix_axes"]))
