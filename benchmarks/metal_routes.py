"""What the ways to the Metal kernel cost beside its work: chains of layers, a kernel that does nothing.

    python benchmarks/metal_routes.py [--rows N] [--channels N]

`jmn.metal.jit` runs a stretch and a stage of kernels for each layer, `lowering="metal"` a host callback.
Prints the microseconds of a call for several depths beside those of the plain inline program, and the
slopes: what one more layer adds. On the CPU, whose memory the kernels share as they do an Apple GPU's.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

import jax_mps_neuron as jmn
from jax_mps_neuron._metal import device

DEPTHS = (1, 2, 4, 8, 16)


def nothing(name: str, operands: list[np.ndarray], **_: object) -> list[np.ndarray]:
    return [np.empty_like(operands[0])]


def microseconds(function: Callable, *args: jax.Array, repeats: int = 200) -> float:
    """The fastest of several runs, a call."""
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(10):
        start = time.perf_counter()
        for _ in range(repeats // 10):
            jax.block_until_ready(function(*args))
        times.append((time.perf_counter() - start) / (repeats // 10))
    return min(times) * 1e6


def chain(depth: int, lowering: str) -> Callable:
    def layers(x):
        for _ in range(depth):
            x = jmn.neuron(x * 0.5, jmn.Neuron.relu(), lowering=lowering)
        return x

    return layers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--channels", type=int, default=8)
    arguments = parser.parse_args()
    device.execute, device.problem = nothing, lambda: ""
    x = jnp.ones((arguments.rows, arguments.channels))

    ways = {
        "inline": lambda depth: jax.jit(chain(depth, "inline")),
        "metal.jit": lambda depth: jmn.metal.jit(chain(depth, "auto")),
        "callback": lambda depth: jax.jit(chain(depth, "metal")),
    }
    print(f"jax {jax.__version__}, {jax.default_backend()}, {list(x.shape)}; microseconds a call")
    print(f"{'layers':>6}" + "".join(f"{name:>12}" for name in ways))
    rows = []
    for depth in DEPTHS:
        rows.append([microseconds(make(depth), x) for make in ways.values()])
        print(f"{depth:>6}" + "".join(f"{cost:>12.0f}" for cost in rows[-1]))
    slopes = np.polyfit(DEPTHS, rows, 1)[0]
    print("a layer" + " ".join(f"{slope:>11.0f}" for slope in slopes))


if __name__ == "__main__":
    main()
