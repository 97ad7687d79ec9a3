"""Measures the inline route on a GPU: how near to the memory's speed XLA's code for our formulas comes.

    python benchmarks/inline_on_gpu.py [--shape ROWSxCHANNELS] [--json FILE]

For each type and dtype, the data gradient (dx), data and bias gradient (dx + dbias), and XLA's autodiff of
the plain formula (for both), as fractions of the speed of x * g, which reads two such arrays and
writes one. Programs and floor take turns.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

import jax_mps_neuron as jmn
from jax_mps_neuron.bench import PLAIN, neuron_for, shape_argument

TURNS, CALLS = 5, 10


def seconds(function: Callable, *arrays: jax.Array) -> float:
    """A call, of CALLS that follow each other."""
    start = time.perf_counter()
    for _ in range(CALLS):
        result = function(*arrays)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / CALLS


def programs(neuron: jmn.Neuron) -> dict[str, Callable]:
    def dx(g, x, bias):
        return jmn.neuron_gradient(g, x, neuron).data

    def dx_dbias(g, x, bias):
        return jmn.neuron_gradient(g, x, neuron, bias)[:2]

    def plain(g, x, bias):
        a, b, c = (jnp.asarray(p, x.dtype) for p in (neuron.a, neuron.b, neuron.c))
        return jax.vjp(lambda x, bias: PLAIN[neuron.type](x + bias, a, b, c), x, bias)[1](g)

    return {"dx": jax.jit(dx), "dx + dbias": jax.jit(dx_dbias), "plain dx + dbias": jax.jit(plain)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=shape_argument, default=(65536, 4096), metavar="ROWSxCHANNELS")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    device = jax.devices()[0]
    result = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python benchmarks/inline_on_gpu.py", *sys.argv[1:]]),
        "shape": list(arguments.shape),
        "fraction of x * g": {},
    }
    print(f"{device.device_kind}, jax {jax.__version__}, {list(arguments.shape)}")
    floor = jax.jit(lambda g, x, bias: x * g)
    for dtype in ("float32", "float16", "bfloat16"):
        keys = jax.random.split(jax.random.key(0), 2)
        g, x = (jax.random.normal(key, arguments.shape).astype(dtype) for key in keys)
        bias = jnp.full(arguments.shape[1], 0.1, dtype)
        rows: dict[str, dict[str, float]] = {}
        for kind in jmn.NeuronType:
            rows[kind.name.lower()] = {}
            for name, program in programs(neuron_for(kind, arguments.shape[1])).items():
                for warm in (floor, program):
                    jax.block_until_ready(warm(g, x, bias))
                turns = [(seconds(floor, g, x, bias), seconds(program, g, x, bias)) for _ in range(TURNS)]
                floors, times = (statistics.median(column) for column in zip(*turns, strict=True))
                rows[kind.name.lower()][name] = round(floors / times, 3)
            print(dtype, kind.name.lower(), rows[kind.name.lower()], flush=True)
        result["fraction of x * g"][dtype] = rows
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
