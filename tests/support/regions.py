"""Regions of matrices, and loops over them in float64, for the tests of Apple's classes.

A case names what a kernel's sizes come to, so that the rule for them is tested too.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from support import zoo
from support.arrays import draw

DTYPES = ["float32", "float16", "bfloat16"]
ALPHA = 1.25


@dataclass(frozen=True)
class Case:
    """A kernel's properties, shapes of arrays, and the region that the properties stand for."""

    rows: int
    channels: int
    x: tuple[int, ...]
    result: tuple[int, ...] | None
    bias: tuple[int, ...] | None
    matrices: range | None = None
    outputs: int = 0
    other: tuple[int, ...] = ()  # the incoming gradient or the weights
    sums: tuple[int, ...] | None = None  # the result for the bias gradient
    properties: dict = field(default_factory=dict)

    def origin(self, name):
        return self.properties.get(f"{name}_matrix_origin", (0, 0))

    def batch(self):
        """Index prefixes of the matrices of the region."""
        return [()] if self.matrices is None else [(m,) for m in self.matrices]

    def empty(self, *sizes):
        """What an encode without a result writes to: a NaN that nobody overwrites is seen."""
        shape = sizes if self.matrices is None else (self.matrices.stop, *sizes)
        return np.full(shape, np.nan)

    def trimmed(self, expected):
        """The matrices of the batch, of an `empty`."""
        return expected if self.matrices is None else expected[self.matrices.start :]


def wide(array):
    return None if array is None else np.asarray(array, np.float64)


def at(vector, m, j):
    """Element j of a vector, or of the vector of matrix m."""
    return 0.0 if vector is None else vector[(*m, j) if vector.ndim == 2 else j]


def parameters(neuron, j):
    a, b, c = (wide(p) for p in zoo.parameters(neuron))
    return (a[j] if a.ndim else a), b, c


def shifted(origin, m, i, j):
    return (*m, origin[0] + i, origin[1] + j)


def operand(seed, shape, dtype):
    return None if shape is None else draw(seed, shape, dtype)


def outside_unchanged(actual, before, expected):
    """Elements that the loops did not write hold the very bits they had."""
    untouched = expected == wide(before)
    assert np.array_equal(np.asarray(actual)[untouched], np.asarray(before)[untouched])
