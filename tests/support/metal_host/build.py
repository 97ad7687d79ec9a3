"""Compiles the Metal source with the host's C++ compiler and launches its kernels on NumPy arrays."""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import numpy as np

from jax_mps_neuron._core.descriptor import FROM_Y, NeuronType
from jax_mps_neuron._metal import source as metal
from jax_mps_neuron._metal.launch import launch_for

HERE = Path(__file__).parent
# Bytes around every buffer that a kernel must leave alone: more than a tile of columns, by which a broken
# one may miss.
GUARD = 4096
COMPILER = shlex.split(os.environ.get("CXX", "g++"))
FLAGS = ["-x", "c++", "-std=c++14", "-O1", "-fPIC", "-Wall", "-Wextra", "-Werror", "-Wno-clobbered"]


def kernels_of(kind: NeuronType, dtype: str) -> list[metal.Kernel]:
    """Every kernel of a type and dtype."""
    prelu = kind is NeuronType.PRELU
    kernels = []
    for bias in (False, True):
        kernels.append(metal.Kernel(kind, dtype, forward=True, bias=bias))
        for sums in itertools.product({False, bias}, {False, prelu}):
            for from_y in {False, kind in FROM_Y}:
                kernels.append(metal.Kernel(kind, dtype, False, bias, *sums, from_y))
    return kernels


def problem(folder: Path) -> str:
    """Why Metal source cannot be executed here; empty if it can."""
    if shutil.which(COMPILER[0]) is None:
        return f"no C++ compiler {COMPILER[0]} to execute Metal source with"
    kernels = [metal.Kernel(NeuronType.NONE, dtype) for dtype in metal.DTYPES]
    try:
        compile_kernels(metal.source(*kernels), folder, "probe")
    except RuntimeError as error:
        return f"{COMPILER[0]} does not take the shim (it needs GCC 12 or later): {error}"
    return ""


def compile_kernels(text: str, folder: Path, name: str) -> ctypes.CDLL:
    """The library of an assembled Metal source, which the folder keeps for whoever has the same text."""
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    library = folder / f"lib{name}-{digest}.so"
    if not library.exists():
        runtime = folder / "runtime.o"
        if not runtime.exists():
            _compile(runtime, "-c", str(HERE / "runtime.cc"))
        unit = folder / f"{name}-{digest}.metal"
        unit.write_text(text)
        _compile(library, "-shared", str(unit), "-x", "none", str(runtime))
    return ctypes.CDLL(str(library))


def _compile(result: Path, *arguments: str) -> None:
    """Another process sees the result whole or not at all."""
    unfinished = result.with_suffix(f".{os.getpid()}")
    command = [*COMPILER, *FLAGS, f"-I{HERE}", *arguments, "-o", str(unfinished)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[:2000])
    unfinished.replace(result)


class Buffer:
    """A copy of an array between guard bytes; results start as NaN."""

    def __init__(self, array: np.ndarray):
        self.memory = np.full(array.nbytes + 2 * GUARD, 0xA5, np.uint8)
        self.memory[GUARD : GUARD + array.nbytes] = np.ascontiguousarray(array).view(np.uint8).ravel()
        self.like = array

    @property
    def pointer(self) -> int:
        return self.memory.ctypes.data + GUARD

    def array(self) -> np.ndarray:
        inside = self.memory[GUARD:-GUARD]
        return inside.view(self.like.dtype).reshape(self.like.shape)


def check_guards(buffers: list[Buffer | None]) -> None:
    """Asserts that nothing was written beside any of them."""
    for buffer in buffers:
        if buffer is not None:
            assert (buffer.memory[:GUARD] == 0xA5).all(), "written before its begin"
            assert (buffer.memory[-GUARD:] == 0xA5).all(), "written past its end"


def nans(shape, dtype) -> np.ndarray:
    return np.full(shape, np.nan, np.float32).astype(dtype)


class Host:
    """Launches the kernels of a library, threads in a given order."""

    def __init__(self, library: ctypes.CDLL):
        self.library = library

    def launch(self, name: str, buffers: list[Buffer | None], grid, threads, order: int) -> None:
        pointers = (ctypes.c_void_p * len(buffers))(*(b.pointer if b else None for b in buffers))
        to_c = lambda sizes: (ctypes.c_uint32 * 3)(*sizes)  # noqa: E731
        failed = self.library.shim_launch(
            getattr(self.library, name), pointers, to_c(grid), to_c(threads), ctypes.c_uint64(order)
        )
        assert not failed, "not all threads of a threadgroup reached a barrier"
        check_guards(buffers)

    def forward(self, kernel, x, scalars, bias=None, slope=None, *, shared=(), order=0):
        """x [M, rows, channels], scalars [M, 4], bias and slope [M, channels]; y like x."""
        matrices = max(len(o) for o in (x, scalars, bias, slope) if o is not None)
        rows, channels = x.shape[1:]
        launch = launch_for(kernel, matrices, rows, channels, shared=shared)
        buffers = [None if o is None else Buffer(o) for o in (x, scalars, bias, slope)]
        y = Buffer(nans((matrices, rows, channels), x.dtype))
        constants = Buffer(np.frombuffer(launch.constants, np.uint8))
        self.launch(kernel.name, [*buffers, y, constants], launch.grid, launch.threads, order)
        return y.array()

    def gradient(self, kernel, gradient, x, scalars, bias=None, slope=None, *, shared=(), order=0):
        """Operands as in forward; data, bias gradient, slope gradient (None where not wanted)."""
        matrices = max(len(o) for o in (gradient, x, scalars, bias, slope) if o is not None)
        rows, channels = x.shape[1:]
        launch = launch_for(kernel, matrices, rows, channels, shared=shared)
        buffers = [None if o is None else Buffer(o) for o in (gradient, x, scalars, bias, slope)]
        data = Buffer(nans((matrices, rows, channels), x.dtype))
        constants = Buffer(np.frombuffer(launch.constants, np.uint8))
        partials = [
            Buffer(nans((matrices, launch.strips, channels), np.float32)) if wanted else None
            for wanted in (kernel.bias_gradient, kernel.slope_gradient)
        ]
        self.launch(kernel.name, [*buffers, data, *partials, constants], launch.grid, launch.threads, order)
        sums = []
        for partial in partials:
            if partial is None:
                sums.append(None)
            elif launch.strips == 1:
                sums.append(partial.array()[:, 0])
            else:
                total = Buffer(nans((matrices, channels), np.float32))
                sum_buffers = [partial, total, constants]
                self.launch(metal.SUM_NAME, sum_buffers, launch.sum_grid, launch.sum_threads, order)
                sums.append(total.array())
        return data.array(), *sums
