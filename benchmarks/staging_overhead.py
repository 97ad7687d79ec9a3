"""What a stage of `jmn.metal.jit` costs beside its work: chains of layers with a kernel that does nothing.

    python benchmarks/staging_overhead.py [--rows N] [--channels N]

Prints the microseconds of a call of plain `jax.jit` and of the staged function for several depths, and
the slope: what one more layer, a stretch and a kernel stage, adds.
"""

from __future__ import annotations

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

import jax_mps_neuron as jmn
from jax_mps_neuron.metal import device

DEPTHS = (1, 2, 4, 8, 16)


def execute(name: str, operands: list[np.ndarray], **_: object) -> list[np.ndarray]:
    return [np.empty_like(operands[0])]


def microseconds(function, *args, repeats: int = 200) -> float:
    """The fastest of several runs, a call."""
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(repeats // 10):
            jax.block_until_ready(function(*args))
        times.append((time.perf_counter() - start) / (repeats // 10))
    return min(times) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--channels", type=int, default=8)
    arguments = parser.parse_args()
    device.execute = execute
    x = jnp.ones((arguments.rows, arguments.channels))

    staged = []
    print(f"jax {jax.__version__}, {jax.default_backend()}, [{arguments.rows}, {arguments.channels}]")
    print(f"{'layers':>6} {'stages':>6} {'jit, us':>8} {'staged, us':>10}")
    for depth in DEPTHS:

        def chain(x, depth=depth):
            for _ in range(depth):
                x = jmn.neuron(x * 0.5, jmn.Neuron.relu())
            return x

        cut = jmn.metal.jit(chain)
        plain, cost = microseconds(jax.jit(chain), x), microseconds(cut, x)
        staged.append(cost)
        print(f"{depth:>6} {len(cut.stages(x)):>6} {plain:>8.0f} {cost:>10.0f}")
    slope, start = np.polyfit(DEPTHS, staged, 1)
    print(f"a call {start:.0f} us, and {slope:.0f} us for each stretch with its kernel stage")


if __name__ == "__main__":
    main()
