"""Builds the CPU kernels with CMake for a compiler, and runs strips of them in a program of its own.

The program is what CMakeLists.txt builds, linked to driver.cc in place of the FFI handlers: it needs no JAX
where it runs, which may be another processor by way of qemu.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from jax_mps_neuron._compat.ffi import ffi
from jax_mps_neuron._core.descriptor import Neuron, NeuronType
from support import zoo

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
STORAGES = ("float32", "float16", "bfloat16", "float64")
FAULTS = {
    1: "the kernel wrote beside the result, or between its rows",
    2: "the kernel wrote beside the sums",
    3: "the kernel wrote into an operand",
}

AARCH64 = {
    "compiler": "aarch64-linux-gnu-g++",
    "runner": ("qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"),
    "options": ("-DCMAKE_SYSTEM_NAME=Linux", "-DCMAKE_SYSTEM_PROCESSOR=aarch64"),
}
# This machine's, as it is, and as a processor that has nothing beyond SSE4.2.
HOST: dict[str, Any] = {"compiler": "c++", "runner": (), "options": ()}
NEHALEM: dict[str, Any] = {**HOST, "runner": ("qemu-x86_64", "-cpu", "Nehalem")}


def problem(toolchain: dict[str, Any]) -> str:
    """Why kernels cannot be built and run for a toolchain; empty if they can."""
    if not (ROOT / "kernels" / "cpu" / "kernels.cc").exists():
        return "the kernels' sources are not beside the tests"
    needed = ("cmake", toolchain["compiler"], *toolchain["runner"][:1])
    missing = [name for name in needed if shutil.which(name) is None]
    return f"not installed here: {', '.join(missing)}" if missing else ""


def build(
    folder: Path, toolchain: dict[str, Any], *options: str, source: Path = HERE / "driver.cc"
) -> Path:
    """Builds the whole library in `folder`, and a program of its kernels, by default the driver."""
    configure = ["cmake", "-S", str(ROOT), "-B", str(folder), f"-DXLA_FFI_INCLUDE_DIR={ffi.include_dir()}"]
    compiler = f"-DCMAKE_CXX_COMPILER={toolchain['compiler']}"
    _run(*configure, compiler, *toolchain["options"], *options)
    _run("cmake", "--build", str(folder), "--parallel", "2")
    objects = sorted(str(o) for o in folder.rglob("*.cc.o") if not o.name.startswith("ffi"))
    program = folder / source.stem
    compile_options = [str(source), f"-I{ROOT}", "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror"]
    _run(toolchain["compiler"], *compile_options, *objects, "-pthread", "-static", "-o", str(program))
    return program


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")


class Kernels:
    """The kernels built in a folder, for one instruction set."""

    def __init__(self, folder: Path, toolchain: dict[str, Any], isa: str):
        self.command = [*toolchain["runner"], str(folder / "driver"), isa]

    def run(self, *requests: bytes) -> bytes:
        """The answers to requests."""
        done = subprocess.run(self.command, input=b"".join(requests), capture_output=True, check=False)
        if done.returncode:
            raise RuntimeError(f"the driver ended with {done.returncode}: {done.stderr.decode()}")
        return done.stdout


def isas(folder: Path, toolchain: dict[str, Any]) -> list[str]:
    """The instruction sets that the processor has, newest first."""
    command = [*toolchain["runner"], str(folder / "driver"), "--isas"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


class Request:
    """One strip: x [rows, width], gradient like it or None (forward), bias and slope [width] or None.

    stride: elements from row to row in memory; at_end, offset: where arrays lie, see driver.cc; sums: what
    the sums hold before, [width] each; from_y: whether x is y.
    """

    def __init__(
        self,
        neuron: Neuron,
        x: np.ndarray,
        gradient: np.ndarray | None = None,
        bias: np.ndarray | None = None,
        slope: np.ndarray | None = None,
        *,
        alpha: float = 1.0,
        sums: float | None = None,
        stride: int = 0,
        at_end: bool = False,
        offset: int = 0,
        in_place: bool = False,
        from_y: bool = False,
    ):
        self.x, self.with_sums = x, sums is not None
        compute = np.float64 if x.dtype == np.float64 else np.float32
        self.compute = np.dtype(compute)
        scalars = zoo.scalars(neuron, alpha, compute)
        rows, width = x.shape
        kind, storage = int(neuron.type), STORAGES.index(str(x.dtype))
        function = 0 if gradient is None else 2 if from_y else 1
        header = [storage, kind, function, rows, width, stride or width, at_end, offset]
        header += [bias is not None, slope is not None, self.with_sums, in_place]
        self.slopes = slope is not None
        start = [np.full(width, sums, compute)] * (1 + self.slopes) if self.with_sums else []
        columns = [np.asarray(v, compute) for v in (bias, slope) if v is not None]
        elements = [x] if gradient is None else [x, gradient]
        self.bytes = b"".join(
            np.ascontiguousarray(part).tobytes()
            for part in (np.array(header, np.int64), scalars, *elements, *columns, *start)
        )

    def take(self, answer: bytes) -> tuple[list[np.ndarray], bytes]:
        """The result and the sums, out of the answers from here on, and what follows."""
        fault = int(np.frombuffer(answer, np.int64, 1)[0])
        assert not fault, FAULTS[fault]
        place, arrays = 8, []
        parts = [(self.x.dtype, self.x.shape)]
        parts += [(self.compute, self.x.shape[1:])] * (self.with_sums * (1 + self.slopes))
        for dtype, shape in parts:
            count = int(np.prod(shape))
            arrays.append(np.frombuffer(answer, dtype, count, place).reshape(shape))
            place += count * dtype.itemsize
        return arrays, answer[place:]


def answers(kernels: Kernels, requests: list[Request]) -> list[list[np.ndarray]]:
    """Runs all requests in one process."""
    rest, results = kernels.run(*(r.bytes for r in requests)), []
    for request in requests:
        result, rest = request.take(rest)
        results.append(result)
    assert not rest
    return results


def values(kernels: Kernels, neuron: Neuron, x: np.ndarray, *, derivative: bool) -> np.ndarray:
    """f(x) or f'(x), x [n, channels], as one long row."""
    row = x.reshape(1, -1)
    prelu = neuron.type is NeuronType.PRELU
    slope = np.tile(np.asarray(neuron.a), len(x)) if prelu else None
    gradient = np.ones_like(row) if derivative else None
    return answers(kernels, [Request(neuron, row, gradient, None, slope)])[0][0].reshape(x.shape)
