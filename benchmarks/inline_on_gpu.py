"""Measures the speed and the accuracy of the inline route on a GPU.

    python benchmarks/inline_on_gpu.py [--shape ROWSxCHANNELS] [--types TYPE ...] [--json FILE]

Speeds are fractions of the speed of x * g, which reads two arrays and writes one. For each neuron type and
dtype, the script measures the data gradient (dx); data and bias gradient, with PReLU's slope gradient
(dx + dbias); the same with alpha and the parameters as arguments of the compiled function; and XLA's
autodiff of the plain formula for both. Programs and floor take turns.

Errors are those of dx, ours and the plain formula's, against Apple's table in float64. They are in units in
the last place, over all finite values of the 16-bit dtypes and every 2039th float32. Needs SciPy.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jax_mps_neuron as jmn
from jax_mps_neuron._tools.bench import PLAIN, neuron_for, shape_argument, type_argument

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support import apple

TURNS, CALLS = 7, 10
FLOOR = "x * g"


def seconds(function: Callable, *arrays: jax.Array) -> float:
    """The time per call of CALLS consecutive calls."""
    start = time.perf_counter()
    for _ in range(CALLS):
        result = function(*arrays)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / CALLS


def programs(neuron: jmn.Neuron) -> dict[str, Callable]:
    """Name to program of (g, x, bias, alpha, the neuron with arrays as parameters)."""

    def dx(g, x, bias, *_):
        return jmn.neuron_gradient(g, x, neuron, lowering="inline").data

    def dx_dbias(g, x, bias, *_):
        return jmn.neuron_gradient(g, x, neuron, bias, lowering="inline")

    def dx_dbias_traced(g, x, bias, alpha, traced):
        return jmn.neuron_gradient(g, x, traced, bias, alpha=alpha, lowering="inline")

    def plain(x, bias):
        a, b, c = (None if p is None else jnp.asarray(p, x.dtype) for p in (neuron.a, neuron.b, neuron.c))
        return PLAIN[neuron.type](x + bias, a, b, c)

    def plain_dx(g, x, bias, *_):
        return jax.vjp(lambda x: plain(x, jnp.zeros((), x.dtype)), x)[1](g)[0]

    def plain_dx_dbias(g, x, bias, *_):
        return jax.vjp(plain, x, bias)[1](g)

    return {
        "dx": dx,
        "dx + dbias": dx_dbias,
        "dx + dbias, parameters traced": dx_dbias_traced,
        "plain dx": plain_dx,
        "plain dx + dbias": plain_dx_dbias,
    }


def speeds(types: list[jmn.NeuronType], shape: tuple[int, int], dtype: str) -> dict[str, dict[str, float]]:
    """Neuron type to program to fraction of the speed of x * g."""
    keys = jax.random.split(jax.random.key(0), 2)
    g, x = (jax.random.normal(key, shape).astype(dtype) for key in keys)
    bias = jnp.full(shape[1], 0.1, dtype)

    def compiled(job: tuple[str, Callable, jmn.Neuron]) -> tuple[str, Callable, tuple[Any, ...]]:
        name, program, neuron = job
        alpha, traced = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), (1.0, neuron))
        arrays = (g, x, bias, alpha, traced)
        return name, jax.jit(program, keep_unused=True).lower(*arrays).compile(), arrays

    neurons = [neuron_for(neuron_type, shape[1]) for neuron_type in types]
    jobs = [(FLOOR, lambda g, x, *_: x * g, jmn.Neuron.none())]
    jobs += [(name, f, n) for n in neurons for name, f in programs(n).items()]
    with ThreadPoolExecutor() as pool:
        (_, floor, some), *rest = pool.map(compiled, jobs)
    rows: dict[str, dict[str, float]] = {}
    for (_, _, neuron), (name, program, arrays) in zip(jobs[1:], rest, strict=True):
        for f, a in ((floor, some), (program, arrays)):
            jax.block_until_ready(f(*a))
        turns = [(seconds(floor, *some), seconds(program, *arrays)) for _ in range(TURNS)]
        floors, times = (statistics.median(column) for column in zip(*turns, strict=True))
        rows.setdefault(neuron.type.name.lower(), {})[name] = round(floors / times, 3)
    return rows


def sweep(dtype: str) -> np.ndarray:
    """All finite values of a 16-bit dtype, or every 2039th of float32."""
    bits = np.arange(0, 2**32, 2039, np.uint32) if dtype == "float32" else np.arange(2**16, dtype=np.uint16)
    values = bits.view(jnp.dtype(dtype))
    return values[np.isfinite(values.astype(np.float32))]


def errors(neuron_type: jmn.NeuronType, dtype: str) -> dict[str, list[float]]:
    """Maximum and mean error of dx in units in the last place, where the exact f' is a normal number."""
    x = sweep(dtype)
    neuron = neuron_for(neuron_type, 1)
    used = [np.float64(np.float32(np.ravel(p)[0])) for p in jax.tree.leaves(neuron)]
    a, b, c = (used + [None] * 3)[:3]
    exact = apple.df(neuron_type, x.astype(np.float64), a, b, c)
    limits = jnp.finfo(dtype)
    normal = np.isfinite(exact) & (abs(exact) >= float(limits.tiny)) & (abs(exact) <= float(limits.max))
    unit = np.exp2(np.floor(np.log2(np.abs(exact[normal]))) - limits.nmant)
    result = {}
    all_programs = programs(neuron)
    for who, name in (("inline", "dx"), ("plain", "plain dx")):
        column = jnp.asarray(x)[:, None]
        dx = jax.jit(all_programs[name])(jnp.ones_like(column), column, jnp.zeros(1, dtype))[:, 0]
        error = np.abs(np.asarray(dx, np.float64)[normal] - exact[normal]) / unit
        # NaN or infinity where f' is finite counts as the largest error.
        error = np.where(np.isfinite(error), error, 2.0**limits.nmant)
        result[who] = [float(f"{v:.4g}") for v in (error.max(), error.mean())]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--shape",
        type=shape_argument,
        default=(65536, 4096),
        metavar="ROWSxCHANNELS",
        help="the shape of x (default: 65536x4096)",
    )
    parser.add_argument(
        "--types",
        type=type_argument,
        nargs="+",
        default=list(jmn.NeuronType),
        metavar="TYPE",
        help="neuron types (default: all)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements to a file")
    arguments = parser.parse_args()
    types, device = arguments.types, jax.devices()[0]
    result: dict[str, Any] = {
        "device": device.device_kind,
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python benchmarks/inline_on_gpu.py", *sys.argv[1:]]),
        "shape": list(arguments.shape),
        "fraction of x * g": {},
        "maximum and mean error of dx, ULP": {},
    }
    print(f"{device.device_kind}, jax {jax.__version__}, {list(arguments.shape)}")
    for dtype in ("float32", "float16", "bfloat16"):
        rows = result["fraction of x * g"][dtype] = speeds(types, arguments.shape, dtype)
        with ThreadPoolExecutor() as pool:
            found = [*pool.map(errors, types, [dtype] * len(types))]
        exact = {neuron_type.name.lower(): e for neuron_type, e in zip(types, found, strict=True)}
        result["maximum and mean error of dx, ULP"][dtype] = exact
        for name, row in rows.items():
            print(f"{dtype:9} {name:13}", *row.values(), exact[name], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
