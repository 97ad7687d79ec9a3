"""Checks the shipped Metal source on an NVIDIA GPU, and measures its bandwidth.

    python benchmarks/metal_on_cuda.py [--check-only] [--compile-only] [--arch ARCH] [--json FILE]

Every kernel of every type and dtype is compared with float64 on ragged shapes. Then the gradient kernels
(data and bias gradient in one pass, and the sum of the partials) are timed on [65536, 4096], in turns
with a kernel that reads two such arrays and writes a third. Needs nvcc and a GPU.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"  # JAX only supplies dtypes and the CPU reference
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np  # noqa: E402

from jax_mps_neuron import NeuronType, metal  # noqa: E402
from jax_mps_neuron._metal.source import DTYPES, SUM_NAME  # noqa: E402
from jax_mps_neuron._tools.bench import neuron_for  # noqa: E402
from support import metal_kernels, zoo  # noqa: E402
from support.metal_cuda import launcher  # noqa: E402
from support.metal_host.build import kernels_of  # noqa: E402

ROWS, CHANNELS = 65536, 4096

# Two reads and a write of four elements per thread and step, like the flat path of the kernels.
FLOOR = """
extern "C" __global__ void floor_{t}(::shim::Buffers b) {{
  const metal::vec<{t}, 4>* x = static_cast<const metal::vec<{t}, 4>*>(b.pointers[0]);
  const metal::vec<{t}, 4>* g = static_cast<const metal::vec<{t}, 4>*>(b.pointers[1]);
  metal::vec<{t}, 4>* y = static_cast<metal::vec<{t}, 4>*>(b.pointers[2]);
  const uint64_t first = (uint64_t(blockIdx.x) * {steps}) * blockDim.x + threadIdx.x;
#pragma unroll
  for (int i = 0; i < {steps}; ++i) {{
    metal::vec<{t}, 4> u = x[first + i * blockDim.x], v = g[first + i * blockDim.x], r;
    r.x = {t}(float(u.x) * float(v.x));
    r.y = {t}(float(u.y) * float(v.y));
    r.z = {t}(float(u.z) * float(v.z));
    r.w = {t}(float(u.w) * float(v.w));
    y[first + i * blockDim.x] = r;
  }}
}}
"""
STEPS = 4
# Flat arrays that end within the first step or a later one, and more strips than one pass reads.
EXTRA_SHAPES = [(1, 1, 3 * 16384 + 4), (1, 1, 2055), (1, 1, 14343), (1, 129 * 128, 2)]


def compile_all(folder: Path, arch: str) -> dict[str, Path]:
    """Compiles every kernel and the floor: dtype to cubin."""
    cubins = {}
    for dtype, name in DTYPES.items():
        text = metal.source(*(k for neuron_type in NeuronType for k in kernels_of(neuron_type, dtype)))
        cubins[dtype] = launcher.compile_kernels(
            text + FLOOR.format(t=name, steps=STEPS), folder, dtype, arch
        )
    return cubins


def check(driver: launcher.Driver, cubins: dict[str, Path]) -> int:
    """Compares every neuron and shape with float64. Returns the number of cases."""
    count = 0
    for dtype, cubin in cubins.items():
        gpu = launcher.Gpu(driver, cubin)
        shapes = [*metal_kernels.SHAPES, *EXTRA_SHAPES]
        for name in zoo.NAMES:
            for shape in shapes:
                metal_kernels.check(gpu, zoo.neurons(shape[-1])[name], dtype, shape)
                count += 1
        print(f"{dtype}: correct on {len(zoo.NAMES)} neurons x {len(shapes)} shapes", flush=True)
    return count


def check_huge(driver: launcher.Driver, cubin: Path) -> int:
    """Checks a bfloat16 gradient of more than 2^31 elements, with its bias gradient."""
    rows, channels = 2**20 + 3, 2048
    kernel = metal.Kernel(NeuronType.LINEAR, "bfloat16", bias=True, bias_gradient=True)
    launch = metal.launch_for(kernel, 1, rows, channels)
    two, three = 0x4000, 0x4040  # in bfloat16
    arrays = [driver.allocate(2 * rows * channels) for _ in range(3)]
    for array in arrays[:2]:
        driver.call("cuMemsetD16_v2", array, ctypes.c_ushort(two), ctypes.c_size_t(rows * channels))
    gradient, x, data = arrays
    scalars = driver.upload(np.float32([1.0, 1.5, 0.0, 0.0]))
    bias = driver.upload(np.zeros(channels, np.float32))
    partials = driver.allocate(4 * launch.partials)
    sums = driver.allocate(4 * channels)
    constants = driver.upload(np.frombuffer(launch.constants, np.uint8))
    module = driver.module(cubin)
    pointers = [p.value for p in (gradient, x, scalars, bias, bias, data, partials, partials, constants)]
    driver.launch(driver.function(module, kernel.name), pointers, launch.grid, launch.threads)
    adding = [partials.value, sums.value, constants.value]
    driver.launch(driver.function(module, SUM_NAME), adding, launch.sum_grid, launch.sum_threads)
    driver.synchronize()
    for begin in (0, 2**31 - 4, rows * channels - 8):
        some = np.zeros(8, np.uint16)
        driver.download(ctypes.c_uint64(data.value + 2 * begin), some)
        assert (some == three).all(), (begin, some)
    total = np.zeros(channels, np.float32)
    driver.download(sums, total)
    assert (total == 3.0 * rows).all(), total
    for pointer in (*arrays, scalars, bias, partials, sums, constants):
        driver.call("cuMemFree_v2", pointer)
    print(f"bfloat16: correct on {rows * channels} elements", flush=True)
    return rows * channels


def timed(driver: launcher.Driver, run, repeats: int = 10) -> float:
    """Milliseconds per call by the GPU's clock."""
    begin, end = ctypes.c_void_p(), ctypes.c_void_p()
    for event in (begin, end):
        driver.call("cuEventCreate", ctypes.byref(event), 0)
    driver.call("cuEventRecord", begin, None)
    for _ in range(repeats):
        run()
    driver.call("cuEventRecord", end, None)
    driver.call("cuEventSynchronize", end)
    milliseconds = ctypes.c_float()
    driver.call(
        "cuEventElapsedTime_v2" if hasattr(driver.lib, "cuEventElapsedTime_v2") else "cuEventElapsedTime",
        ctypes.byref(milliseconds),
        begin,
        end,
    )
    return milliseconds.value / repeats


def numbers(dtype: str) -> np.ndarray:
    """Random numbers of shape [ROWS, CHANNELS], the 16-bit dtypes as their bits."""
    block = np.random.default_rng(0).standard_normal((1024, CHANNELS), np.float32)
    if dtype == "float16":
        block = block.astype(np.float16).view(np.uint16)
    elif dtype == "bfloat16":
        block = (block.view(np.uint32) >> 16).astype(np.uint16)
    return np.tile(block, (ROWS // 1024, 1))


def gradient_launcher(
    driver: launcher.Driver, module: Any, kind: NeuronType, dtype: str, arrays: list[Any]
):
    """A function that runs a type's gradient with all sums on g, x, a vector and y, and what to free."""
    kernel = metal.Kernel(
        kind, dtype, bias=True, bias_gradient=True, slope_gradient=kind is NeuronType.PRELU
    )
    launch = metal.launch_for(kernel, 1, ROWS, CHANNELS)
    g, x, vector, y = arrays
    scalars = driver.upload(zoo.scalars(neuron_for(kind, CHANNELS)))
    partials = [driver.allocate(4 * launch.partials) for _ in range(2)]
    sums = [driver.allocate(4 * CHANNELS) for _ in range(2)]
    constants = driver.upload(np.frombuffer(launch.constants, np.uint8))
    function, add = driver.function(module, kernel.name), driver.function(module, SUM_NAME)
    pointers = [p.value for p in (g, x, scalars, vector, vector, y, *partials, constants)]

    def run():
        driver.launch(function, pointers, launch.grid, launch.threads)
        for strip_sums, total in zip(partials[: 1 + kernel.slope_gradient], sums, strict=False):
            adding = [strip_sums.value, total.value, constants.value]
            driver.launch(add, adding, launch.sum_grid, launch.sum_threads)

    return run, [scalars, constants, *partials, *sums]


def free(driver: launcher.Driver, pointers: Iterable[Any]) -> None:
    for pointer in pointers:
        driver.call("cuMemFree_v2", pointer)


def bandwidth(driver: launcher.Driver, cubins: dict[str, Path]) -> dict[str, dict[str, float]]:
    """Each type's bandwidth as a fraction of the floor's, by dtype."""
    fractions: dict[str, dict[str, float]] = {}
    random = np.random.default_rng(0)
    for dtype, cubin in cubins.items():
        block = random.standard_normal((1024, CHANNELS), np.float32)
        if dtype != "float32":
            bits = (block.view(np.uint32) >> 16).astype(np.uint16)
            block = block.astype(np.float16).view(np.uint16) if dtype == "float16" else bits
        filled = np.tile(block, (ROWS // 1024, 1))
        x, g, y = driver.upload(filled), driver.upload(filled), driver.allocate(filled.nbytes)
        vector = driver.upload(np.linspace(0.05, 0.35, CHANNELS, dtype=np.float32))
        module = driver.module(cubin)
        floor = driver.function(module, f"floor_{DTYPES[dtype]}")
        of_floor = [x.value, g.value, y.value], (filled.size // (4 * STEPS * 256), 1, 1), (256, 1, 1)
        run_floor = partial(driver.launch, floor, *of_floor)
        rows: dict[str, float] = {}
        for kind in NeuronType:
            run, own = gradient_launcher(driver, module, kind, dtype, [g, x, vector, y])
            for warm in (run_floor, run):
                timed(driver, warm, 2)
            turns = [(timed(driver, run_floor), timed(driver, run)) for _ in range(7)]
            floors, times = (statistics.median(column) for column in zip(*turns, strict=True))
            rows[kind.name.lower()] = round(floors / times, 4)
            if kind is NeuronType.NONE:
                rows["floor, GB/s"] = round(3 * filled.nbytes / floors / 1e6)
            free(driver, own)
        fractions[dtype] = rows
        print(dtype, rows, flush=True)
        free(driver, (x, g, y, vector))
    return fractions


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check-only", action="store_true", help="measure nothing")
    parser.add_argument("--compile-only", action="store_true", help="run nothing; needs nvcc and no GPU")
    parser.add_argument("--arch", default="sm_90", help="nvcc's -arch (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements to a file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cubins = compile_all(Path(folder), arguments.arch)
        if arguments.compile_only:
            return
        driver = launcher.Driver()
        result = {
            "device": driver.name,
            "date": time.strftime("%Y-%m-%d"),
            "command": " ".join(["python benchmarks/metal_on_cuda.py", *sys.argv[1:]]),
            "cases checked": check(driver, cubins),
        }
        if not arguments.check_only:
            result["elements of the largest case"] = check_huge(driver, cubins["bfloat16"])
            result["shape"] = [ROWS, CHANNELS]
            result["fraction of two reads and a write"] = bandwidth(driver, cubins)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
