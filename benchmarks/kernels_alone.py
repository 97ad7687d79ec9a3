"""Times the CPU kernels by themselves: one thread, data in the caches, no JAX.

    python benchmarks/kernels_alone.py

Prints nanoseconds an element of f and of f' with its sums, for each type and dtype, by the newest
instruction set of this CPU. Needs CMake and a C++ compiler.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from jax_mps_neuron import NeuronType  # noqa: E402
from jax_mps_neuron._tools.bench import neuron_for  # noqa: E402
from support import zoo  # noqa: E402
from support.cpu_kernels import build  # noqa: E402


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        program = build.build(Path(folder), build.HOST, source=ROOT / "benchmarks" / "kernels_alone.cc")
        lines = []
        for kind in NeuronType:
            _, a, b, c = zoo.scalars(neuron_for(kind, 1))
            lines.append(f"{kind.value} {a} {b} {c}")
        done = subprocess.run([program], input="\n".join(lines), capture_output=True, text=True, check=True)
    dtypes = ("float32", "float16", "bfloat16")
    print(f"{'':<13}" + "".join(f"{d + ' f':>12}{d + chr(32) + 'f' + chr(39):>13}" for d in dtypes))
    for kind, row in zip(NeuronType, done.stdout.splitlines(), strict=True):
        values = row.split()
        pairs = zip(values[::2], values[1::2], strict=True)
        print(f"{kind.name.lower():<13}" + "".join(f"{f:>12}{df:>13}" for f, df in pairs))


if __name__ == "__main__":
    main()
