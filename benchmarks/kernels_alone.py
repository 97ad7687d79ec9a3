"""Times the CPU kernels alone: on one thread, with data in the caches, without JAX.

    python benchmarks/kernels_alone.py

Prints nanoseconds per element of f, and of f' with its sums, for each neuron type and dtype, on the newest
instruction set of this CPU. Needs CMake and a C++ compiler.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from jax_mps_neuron import NeuronType  # noqa: E402
from jax_mps_neuron._tools.bench import neuron_for  # noqa: E402
from support.cpu_kernels import build  # noqa: E402

DTYPES = ("float32", "float16", "bfloat16")


def line(neuron_type: NeuronType) -> str:
    """What the program reads: the type and a, b, c, with 0 for slopes and unused parameters."""
    n = neuron_for(neuron_type, 1)
    parameters = (0.0 if p is None or np.ndim(p) else p for p in (n.a, n.b, n.c))
    return " ".join(map(str, (neuron_type.value, *parameters)))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = build.build(Path(folder), build.HOST, source=ROOT / "benchmarks" / "kernels_alone.cc")
        lines = "\n".join(map(line, NeuronType))
        done = subprocess.run([program], input=lines, capture_output=True, text=True, check=True)
    print(" " * 13 + "".join(f"{f'{d} f':>12}{f'{d} df':>13}" for d in DTYPES))
    for neuron_type, row in zip(NeuronType, done.stdout.splitlines(), strict=True):
        values = row.split()
        pairs = zip(values[::2], values[1::2], strict=True)
        print(f"{neuron_type.name.lower():<13}" + "".join(f"{f:>12}{df:>13}" for f, df in pairs))


if __name__ == "__main__":
    main()
