"""The Metal source of one kernel, and the shape of its launches.

What a launcher needs to know stands here once: the name and the buffers of a kernel, the grid, the constant
buffer and the size of the partial sums. The tile sizes are read from the kernel's source.
"""

from __future__ import annotations

import dataclasses
import re
import struct
import sys
from functools import cache
from pathlib import Path

import numpy as np

from .._core.descriptor import FROM_Y, NeuronType
from .._core.signature import Signature

__all__ = ["Kernel", "Launch", "launch_for", "source"]

# NumPy's names of the element types, and Metal's.
DTYPES = {"float32": "float", "float16": "half", "bfloat16": "bfloat"}
ITEMSIZES = {"float32": 4, "float16": 2, "bfloat16": 2}


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One specialization of the kernels in ``neuron_gradient.metal``.

    Its buffers in the order of their indices, of which absent ones are not bound:

    - forward: x, scalars, bias, slope, y, launch
    - gradient: gradient, x or y, scalars, bias, slope, data, bias partials, slope partials, launch

    Args:
      type: the neuron type.
      dtype: "float32", "float16" or "bfloat16" (Metal 3.1), of gradient, x, y and data. Everything else
        is float32.
      forward: whether this is the forward kernel.
      bias: whether there is a bias.
      bias_gradient: whether the gradient kernel makes the bias gradient.
      slope_gradient: whether it makes that of PReLU's slopes.
      from_y: whether the gradient kernel reads y in place of x: SIGMOID's, TANH's and EXPONENTIAL's can.

    Raises:
      ValueError: there is no such kernel.
    """

    type: NeuronType
    dtype: str = "float32"
    forward: bool = False
    bias: bool = False
    bias_gradient: bool = False
    slope_gradient: bool = False
    from_y: bool = False

    @classmethod
    def of(cls, signature: Signature, dtype: str) -> Kernel:
        """The kernel of a call whose x has that dtype."""
        s = signature
        return cls(s.neuron_type, dtype, s.forward, s.bias, s.bias_gradient, s.slope_gradient, s.from_y)

    def __post_init__(self) -> None:
        if not isinstance(self.type, NeuronType):
            raise ValueError(f"type is {self.type!r}; it may be a NeuronType")
        if not isinstance(self.dtype, str) or self.dtype not in DTYPES:
            raise ValueError(f"dtype is {self.dtype!r}; it may be one of {', '.join(map(repr, DTYPES))}")
        if self.forward and (self.bias_gradient or self.slope_gradient):
            raise ValueError("bias_gradient or slope_gradient is True; the forward kernel has none")
        if self.bias_gradient and not self.bias:
            raise ValueError("bias_gradient is True without a bias; it may be False")
        if self.slope_gradient and self.type is not NeuronType.PRELU:
            raise ValueError(f"slope_gradient is True for {self.type.name}; only PRELU has slopes")
        if self.from_y and (self.forward or self.type not in FROM_Y):
            may_be = ", ".join(kind.name for kind in FROM_Y)
            what = "the forward kernel" if self.forward else self.type.name
            raise ValueError(f"from_y is True for {what}; it may be for the gradient of {may_be}")

    @property
    def by_column(self) -> bool:
        """Whether columns matter; else the arrays are flat."""
        return self.bias or self.type is NeuronType.PRELU

    @property
    def name(self) -> str:
        """The kernel's host name."""
        parts = ["forward" if self.forward else "gradient", self.type.name.lower(), DTYPES[self.dtype]]
        flags = ("bias", "bias_gradient", "slope_gradient", "from_y")
        parts += [name for name in flags if getattr(self, name)]
        return "_".join(["neuron", *parts])

    @property
    def instantiation(self) -> str:
        """The line that instantiates it."""
        operation = "".join(part.capitalize() for part in self.type.name.split("_"))
        operation += "OfValue" if self.from_y else ""
        flags = [self.bias] if self.forward else [self.bias, self.bias_gradient, self.slope_gradient]
        arguments = [f"neuron::{operation}", DTYPES[self.dtype], *(str(flag).lower() for flag in flags)]
        function, buffers = ("forward", 6) if self.forward else ("gradient", 9)
        return f"INSTANTIATE({buffers}, {self.name}, neuron::{function}<{', '.join(arguments)}>)\n"


SUM_NAME = "neuron_add_strips"
SUM_INSTANTIATION = f"INSTANTIATE(3, {SUM_NAME}, neuron::add_strips<float>)\n"


def source(*kernels: Kernel) -> str:
    """The Metal source of these kernels and of the one that adds their partial sums, self-contained.

    Compile it with fast math off: NaN, infinities and the comparisons at a bend depend on it.

    Raises:
      TypeError: one is no `Kernel`.
    """
    for kernel in kernels:
        if not isinstance(kernel, Kernel):
            raise TypeError(f"kernel is {kernel!r}; it may be a jax_mps_neuron.metal.Kernel")
    text = _read("neuron_gradient.metal")
    for name in ("neuron_math.h", "neuron_four.h"):
        text = text.replace(f'#include "{name}"\n', _read(name))
    lines = "".join(kernel.instantiation for kernel in dict.fromkeys(kernels))
    return text + "\n" + lines + SUM_INSTANTIATION


@dataclasses.dataclass(frozen=True)
class Launch:
    """How a kernel is launched on matrices of [rows, channels].

    Attributes:
      grid: threadgroups along x, y, z.
      threads: threads of a threadgroup along x, y, z.
      constants: the bytes of the constant buffer.
      strips: partial sums of each column. With one the partials are the sums, and the second kernel is
        not needed.
      partials: elements (float32) of the partials of one sum; 0 where no sum is made.
      sum_grid: the second kernel's grid; its constants are the same.
      sum_threads: threads of its threadgroups.
    """

    grid: tuple[int, int, int]
    threads: tuple[int, int, int]
    constants: bytes
    strips: int
    partials: int
    sum_grid: tuple[int, int, int]
    sum_threads: tuple[int, int, int]


def launch_for(
    kernel: Kernel,
    matrices: int,
    rows: int,
    channels: int,
    *,
    shared: tuple[str, ...] = (),
) -> Launch:
    """The launch of a kernel.

    Args:
      kernel: the kernel.
      matrices: how many, at least 1.
      rows: of each matrix, at least 1.
      channels: of each row, at least 1. A kernel that is not by column takes rows and channels as one
        flat array.
      shared: which of "gradient", "x", "scalars", "bias" and "slope" hold one matrix for all.

    Raises:
      ValueError: a size is no integer of at least 1, they make more than 2^63 elements or 2^32
        threadgroups along an axis, or shared has another name.
    """
    for name, size in (("matrices", matrices), ("rows", rows), ("channels", channels)):
        if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{name} is {size!r}; it may be an integer of at least 1")
    matrices, rows, channels = int(matrices), int(rows), int(channels)
    tile = _constants()
    across = tile["kThreadsX"] * tile["kColumns"]
    down = tile["kThreadsYPerByte"] * ITEMSIZES[kernel.dtype]
    elements = rows * channels
    strips = -(-rows // tile["kStrip"]) if kernel.by_column else 1
    if kernel.by_column:
        grid = (-(-channels // across), strips, matrices)
    else:
        grid = (-(-elements // (across * down * tile["kFlatSteps"])), 1, matrices)
    # The kernels count elements in 64 bits, and Metal threadgroups in 32 along each axis.
    if matrices * elements > 2**63 or max(grid) >= 2**32:
        raise ValueError(
            f"matrices is {matrices}, rows is {rows} and channels is {channels}; a launch may have "
            f"up to 2^63 elements and fewer than 2^32 threadgroups along an axis, "
            f"and this has {matrices * elements} and {grid}"
        )
    steps = {"gradient": elements, "x": elements, "scalars": 4, "bias": channels, "slope": channels}
    if not isinstance(shared, tuple) or not all(isinstance(n, str) and n in steps for n in shared):
        raise ValueError(f"shared is {shared!r}; it may be a tuple of {', '.join(map(repr, steps))}")
    # Every row starts at a vector if they are a multiple of one apart; a flat array has one row a matrix.
    apart = channels if kernel.by_column else elements if matrices > 1 else 0
    aligned = apart % tile["kColumns"] == 0
    constants = struct.pack(
        "<9Q",
        rows,
        channels,
        strips,
        *(0 if name in shared else step for name, step in steps.items()),
        aligned,
    )
    return Launch(
        grid=grid,
        threads=(tile["kThreadsX"], down, 1),
        constants=constants,
        strips=strips,
        partials=matrices * strips * channels if kernel.bias_gradient or kernel.slope_gradient else 0,
        sum_grid=(-(-channels // tile["kThreadsX"]), 1, matrices),
        sum_threads=(tile["kThreadsX"], tile["kThreadsYPerByte"] * ITEMSIZES["float32"], 1),
    )


@cache
def _constants() -> dict[str, int]:
    text = _read("neuron_gradient.metal")
    return {name: int(value) for name, value in re.findall(r"constexpr uint (k\w+) = (\d+);", text)}


@cache
def _read(name: str) -> str:
    # Beside the package's modules when installed, beside the package in the source tree.
    folders = [Path(folder) for folder in sys.modules["jax_mps_neuron"].__path__]
    for folder in [f / "kernels" for f in folders] + [f.parent / "kernels" for f in folders]:
        if (folder / name).exists():
            return (folder / name).read_text()
    raise FileNotFoundError(f"{name} is in none of {[str(f) for f in folders]}")
