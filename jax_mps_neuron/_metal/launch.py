"""The shape of a kernel's launch: its grid, its constant buffer and the size of its partial sums.

The tile sizes come from the kernels' source.
"""

from __future__ import annotations

import dataclasses
import re
import struct
from functools import cache

import numpy as np

from .source import Kernel, read

__all__ = ["Launch", "launch_for"]

_ITEMSIZES = {"float32": 4, "float16": 2, "bfloat16": 2}

# Limits of the kernels, which count elements in 64 bits, and of Metal, which counts threadgroups in 32.
_MOST_ELEMENTS = 2**63
_MOST_THREADGROUPS = 2**32 - 1

Size = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Launch:
    """A launch of a kernel on [batch, rows, channels].

    Attributes:
      grid: the number of threadgroups along x, y and z.
      threads: the number of threads of a threadgroup along x, y and z.
      constants: the bytes of the constant buffer.
      strips: the number of partial sums per column. If it is 1, they are the sums, and the second kernel is
        not needed.
      partials: the number of float32 elements of each buffer of partial sums; 0 for a kernel without sums.
      sum_grid: the grid of the second kernel, which has the same constants.
      sum_threads: the threads of its threadgroups.

    Example:
      >>> kernel = Kernel(NeuronType.GELU, bias=True, bias_gradient=True)
      >>> launch = launch_for(kernel, batch=1, rows=4096, channels=2048)
      >>> launch.strips, launch.partials
      (32, 65536)
    """

    grid: Size
    threads: Size
    constants: bytes
    strips: int
    partials: int
    sum_grid: Size
    sum_threads: Size


def launch_for(
    kernel: Kernel,
    batch: int,
    rows: int,
    channels: int,
    *,
    shared: tuple[str, ...] = (),
) -> Launch:
    """The launch of a kernel on [batch, rows, channels].

    Args:
      kernel: the kernel.
      batch: the number of batch entries, at least 1.
      rows: the rows of each entry, at least 1.
      channels: the channels of each row, at least 1.
      shared: the operands that hold one entry for the whole batch, of "gradient", "x", "scalars", "bias"
        and "slope".

    Returns:
      The launch.

    Raises:
      ValueError: a size is not an integer of at least 1, the launch exceeds 2^63 elements or 2^32 - 1
        threadgroups along an axis, or `shared` has another name.

    Example:
      >>> launch = launch_for(Kernel(NeuronType.GELU), batch=1, rows=4096, channels=2048)
      >>> launch.grid, launch.threads
      ((512, 1, 1), (32, 16, 1))
    """
    for name, size in (("batch", batch), ("rows", rows), ("channels", channels)):
        if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} must be an integer of at least 1, got {size!r}")
    batch, rows, channels = int(batch), int(rows), int(channels)
    elements = rows * channels
    steps = {"gradient": elements, "x": elements, "scalars": 4, "bias": channels, "slope": channels}
    if not isinstance(shared, tuple) or not all(isinstance(n, str) and n in steps for n in shared):
        raise ValueError(f"shared must be a tuple of {', '.join(map(repr, steps))}, got {shared!r}")
    tile = _tile()
    x_threads, y_threads = tile["kThreadsX"], tile["kThreadsYPerByte"] * _ITEMSIZES[kernel.dtype]
    strips = -(-rows // tile["kStrip"]) if kernel.by_column else 1
    across = x_threads * tile["kColumns"]
    if kernel.by_column:
        grid = -(-channels // across), strips, batch
    else:
        grid = -(-elements // (across * y_threads * tile["kFlatSteps"])), 1, batch
    if batch * elements > _MOST_ELEMENTS or max(grid) > _MOST_THREADGROUPS:
        raise ValueError(
            f"batch, rows and channels must make at most 2^63 elements and 2^32 - 1 threadgroups along an "
            f"axis, got {(batch, rows, channels)}: {batch * elements} elements and {grid} threadgroups"
        )
    # The offset between rows, or between the entries of flat arrays. If it is a multiple of a vector, every
    # row starts at one.
    apart = channels if kernel.by_column else elements if batch > 1 else 0
    aligned = apart % tile["kColumns"] == 0
    offsets = (0 if name in shared else step for name, step in steps.items())
    return Launch(
        grid=grid,
        threads=(x_threads, y_threads, 1),
        constants=struct.pack("<9Q", rows, channels, strips, *offsets, aligned),
        strips=strips,
        partials=batch * strips * channels if kernel.bias_gradient or kernel.slope_gradient else 0,
        sum_grid=(-(-channels // x_threads), 1, batch),
        sum_threads=(x_threads, tile["kThreadsYPerByte"] * _ITEMSIZES["float32"], 1),
    )


@cache
def _tile() -> dict[str, int]:
    """The sizes that the kernels' source declares."""
    text = read("neuron_gradient.metal")
    return {name: int(value) for name, value in re.findall(r"constexpr uint (k\w+) = (\d+);", text)}
