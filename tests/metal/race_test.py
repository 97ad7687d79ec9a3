"""Data races in the Metal source that no order of its threads shows, found by ThreadSanitizer: two threads
that write one element, or a read that only luck puts after the write."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from jax_mps_neuron import NeuronType, metal
from jax_mps_neuron._metal.source import SUM_NAME
from support.metal_host import build

HOST = build.HERE

pytestmark = pytest.mark.slow  # a compilation with ThreadSanitizer for each test

ALL_SUMS = metal.Kernel(NeuronType.PRELU, "float16", False, True, True, True)
KERNELS = [
    ALL_SUMS,
    metal.Kernel(NeuronType.PRELU, "float32", False, True, True, True),
    metal.Kernel(NeuronType.GELU, "float16"),
    metal.Kernel(NeuronType.GELU, "float16", forward=True, bias=True),
]


def compile_checked(text: str, folder: Path) -> Path:
    """The program that launches a source's kernels under ThreadSanitizer: they are instrumented, the
    threads that run them are not."""
    (folder / "kernels.metal").write_text(text)
    steps = [
        [*build.FLAGS, "-fsanitize=thread", f"-I{HOST}", "-c", "kernels.metal"],
        ["-O1", "-DSHIM_TSAN", "-c", str(HOST / "runtime.cc"), str(HOST / "race.cc")],
        ["-fsanitize=thread", "-rdynamic", "kernels.o", "runtime.o", "race.o", "-ldl", "-o", "race"],
    ]
    for step in steps:
        subprocess.run([*build.COMPILER, *step], cwd=folder, check=True)
    return folder / "race"


def race(program: Path, kernel: metal.Kernel, shape: tuple[int, int, int], name: str = "") -> str:
    """What ThreadSanitizer says of a launch; empty if nothing."""
    matrices, rows, channels = shape
    launch = metal.launch_for(kernel, *shape)
    array, vector = 4 * matrices * rows * channels, 4 * matrices * channels
    partials = 4 * matrices * launch.strips * channels
    grid, threads = launch.grid, launch.threads
    if name == SUM_NAME:
        sizes, grid, threads = [partials, vector], launch.sum_grid, launch.sum_threads
    elif kernel.forward:
        sizes = [array, 16 * matrices, vector, vector, array]
    else:
        sizes = [array, array, 16 * matrices, vector, vector, array, partials, partials]
    commas = lambda values: ",".join(map(str, values))  # noqa: E731
    result = subprocess.run(
        [
            program,
            name or kernel.name,
            commas(grid),
            commas(threads),
            launch.constants.hex(),
            *map(str, sizes),
        ],
        env={**os.environ, "TSAN_OPTIONS": "exitcode=66 halt_on_error=1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if "unexpected memory mapping" in result.stderr:
        pytest.skip(f"ThreadSanitizer does not run on this kernel: {result.stderr.strip()[:200]}")
    assert result.returncode in (0, 66), result.stderr[-2000:]
    return result.stderr if result.returncode else ""


@pytest.fixture(scope="module")
def sanitizer(metal_cache):
    """Skips, with the reason, where the compiler has no ThreadSanitizer."""
    (metal_cache / "empty.cc").write_text("int main() { return 0; }")
    command = [*build.COMPILER, "-fsanitize=thread", "empty.cc", "-o", "empty"]
    result = subprocess.run(command, cwd=metal_cache, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.skip(f"{build.COMPILER[0]} has no ThreadSanitizer: {result.stderr[:300]}")


@pytest.mark.usefixtures("sanitizer")
def test_no_races(tmp_path):
    program = compile_checked(metal.source(*KERNELS), tmp_path)
    for kernel in KERNELS:
        for shape in ((1, 130, 130), (2, 20, 132)):  # ragged, and in vectors
            assert race(program, kernel, shape) == ""
    for strips in (2, 130):
        assert race(program, ALL_SUMS, (1, 128 * strips, 40), SUM_NAME) == ""


# Races that give the right result in every order of the threads, or nearly.
RACES = {
    "all threads write the sum": ("if (ty == 0) {", "if (left > 0) {"),
    "threads share an element": (
        "row = top + thread_in_group.y;",
        "row = top + thread_in_group.y / 2 * 2;",
    ),
    "threadgroups share partials": ("entry * launch->strips + group.y", "entry * launch->strips"),
    "a dropped barrier": (
        "metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);\n  if (ty",
        "if (ty",
    ),
}


@pytest.mark.usefixtures("sanitizer")
@pytest.mark.parametrize("name", RACES)
def test_a_race_is_noticed(name, tmp_path):
    before, after = RACES[name]
    text = metal.source(ALL_SUMS)
    assert before in text
    program = compile_checked(text.replace(before, after), tmp_path)
    assert "data race" in race(program, ALL_SUMS, (2, 130, 130))
