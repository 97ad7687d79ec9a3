"""Which dimensions of a primitive's operands and results are the same.

They are numbered as those of the first result, [*M, *rows, C]. None stands for a dimension that is none of
these: the four scalars', or one of size 1, along which an operand is shared.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["arrays", "of_operands", "of_results"]


def arrays(parameters: Mapping[str, Any]) -> int:
    """How many operands, the first ones, are [*M, *rows, C]: x, or gradient and x."""
    return 2 if "bias_gradient" in parameters else 1


def of_operands(
    shapes: Sequence[Sequence[Any]], whole: Sequence[Any], parameters: Mapping[str, Any]
) -> list[list[int | None]]:
    """Those of each operand, from their shapes and that of the first result."""
    every = list(range(len(whole)))
    matrices, count = every[: parameters["matrix_axes"]], arrays(parameters)
    vectors = len(shapes) - count - 1
    roles: list[list[Any]] = [every] * count + [[*matrices, None]] + [[*matrices, *every[-1:]]] * vectors
    return [
        [d if d is not None and size == whole[d] else None for d, size in zip(role, shape, strict=True)]
        for role, shape in zip(roles, shapes, strict=True)
    ]


def of_results(rank: int, parameters: Mapping[str, Any]) -> list[list[int]]:
    """Those of each result: of y, or of data and sums."""
    every = list(range(rank))
    sums = sum(bool(parameters.get(name)) for name in ("bias_gradient", "slope_gradient"))
    return [every] + [[*every[: parameters["matrix_axes"]], *every[-1:]]] * sums
