"""Measures the overhead of the Metal routes: chains of layers, with a kernel that does nothing.

    python benchmarks/metal_routes.py [--rows N] [--channels N]

For each layer, `jmn.metal.jit` runs a compiled stretch and a stage of kernels, and `lowering="metal"` runs
a host callback. The script prints the microseconds per call for several depths, beside those of the inline
program, and what each further layer adds. It runs on the CPU, whose memory the kernels share as they share
an Apple GPU's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

import jax_mps_neuron as jmn
from jax_mps_neuron._core.signature import Signature
from jax_mps_neuron._metal import device

DEPTHS = (1, 2, 4, 8, 16)


def nothing(signature: Signature, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    """A kernel whose result is uninitialized memory."""
    return [np.empty_like(operands[0])]


def microseconds(function: Callable, *args: jax.Array, repeats: int = 200) -> float:
    """The time per call of the fastest of several runs."""
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(repeats // 10):
            jax.block_until_ready(function(*args))
        times.append((time.perf_counter() - start) / (repeats // 10))
    return min(times) * 1e6


def chain(depth: int, lowering: str) -> Callable:
    """A function of that many neurons."""

    def layers(x):
        for _ in range(depth):
            x = jmn.neuron(x * 0.5, jmn.Neuron.relu(), lowering=lowering)
        return x

    return layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8, help="rows of x (default: %(default)s)")
    parser.add_argument("--channels", type=int, default=8, help="channels of x (default: %(default)s)")
    arguments = parser.parse_args()
    device.execute, device.unavailable_reason = nothing, lambda: ""
    x = jnp.ones((arguments.rows, arguments.channels))

    ways = {
        "inline": lambda depth: jax.jit(chain(depth, "inline")),
        "metal.jit": lambda depth: jmn.metal.jit(chain(depth, "auto")),
        "callback": lambda depth: jax.jit(chain(depth, "metal")),
    }
    print(f"jax {jax.__version__}, {jax.default_backend()}, {list(x.shape)}; microseconds per call")
    print(f"{'layers':>6}" + "".join(f"{name:>12}" for name in ways))
    rows = []
    for depth in DEPTHS:
        rows.append([microseconds(make(depth), x) for make in ways.values()])
        print(f"{depth:>6}" + "".join(f"{cost:>12.0f}" for cost in rows[-1]))
    slopes = np.polyfit(DEPTHS, rows, 1)[0]
    print("per layer" + " ".join(f"{slope:>11.0f}" for slope in slopes))


if __name__ == "__main__":
    main()
