"""Measures the inline route on a GPU: how near to the memory's speed XLA's code for our formulas comes, and
how exact it is.

    python benchmarks/inline_on_gpu.py [--shape ROWSxCHANNELS] [--types TYPE ...] [--json FILE]

For each type and dtype, as fractions of the speed of x * g, which reads two such arrays and writes one:
the data gradient (dx); data and bias gradient (dx + dbias, and PReLU's slope gradient); the same with the
parameters and alpha as arguments of the compiled function; and XLA's autodiff of the plain formula for
both. Programs and floor take turns.

Then the errors of dx, ours and the plain formula's, against Apple's table in float64, in units of the
last place: over all finite values of the 16-bit dtypes, and every 2039th float32. Needs SciPy.
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
    """A call, of CALLS that follow each other."""
    start = time.perf_counter()
    for _ in range(CALLS):
        result = function(*arrays)
    jax.block_until_ready(result)
    return (time.perf_counter() - start) / CALLS


def programs(neuron: jmn.Neuron) -> dict[str, Callable]:
    """Programs of the gradient, x, the bias, alpha, and the neuron with parameters as arrays."""

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


def speeds(kinds: list[jmn.NeuronType], shape: tuple[int, int], dtype: str) -> dict[str, dict[str, float]]:
    """type -> program -> fraction of the speed of x * g."""
    keys = jax.random.split(jax.random.key(0), 2)
    g, x = (jax.random.normal(key, shape).astype(dtype) for key in keys)
    bias = jnp.full(shape[1], 0.1, dtype)

    def compiled(job: tuple[str, Callable, jmn.Neuron]) -> tuple[str, Callable, tuple[Any, ...]]:
        name, program, neuron = job
        alpha, traced = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), (1.0, neuron))
        arrays = (g, x, bias, alpha, traced)
        return name, jax.jit(program, keep_unused=True).lower(*arrays).compile(), arrays

    neurons = {kind: neuron_for(kind, shape[1]) for kind in kinds}
    jobs = [(FLOOR, lambda g, x, *_: x * g, jmn.Neuron.none())]
    jobs += [(name, f, n) for n in neurons.values() for name, f in programs(n).items()]
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
    bits = np.arange(0, 2**32, 2039, np.uint32) if dtype == "float32" else np.arange(2**16, dtype=np.uint16)
    values = bits.view(jnp.dtype(dtype))
    return values[np.isfinite(values.astype(np.float32))]


def errors(kind: jmn.NeuronType, dtype: str) -> dict[str, list[float]]:
    """Maximum and mean error of dx, in units of the last place, where the exact f' is a normal number."""
    x = sweep(dtype)
    neuron = neuron_for(kind, 1)
    a = neuron.a[0] if kind is jmn.NeuronType.PRELU else neuron.a
    parameters = [np.float64(np.float32(0 if p is None else p)) for p in (a, neuron.b, neuron.c)]
    exact = apple.df(kind, x.astype(np.float64), *parameters)
    limits = jnp.finfo(dtype)
    # A type without rounding at its kinks has the one or the other branch's slope there.
    normal = np.isfinite(exact) & (abs(exact) >= float(limits.tiny)) & (abs(exact) <= float(limits.max))
    unit = np.exp2(np.floor(np.log2(np.abs(exact[normal]))) - limits.nmant)
    result = {}
    all_programs = programs(neuron)
    for who, name in (("inline", "dx"), ("plain", "plain dx")):
        column = jnp.asarray(x)[:, None]
        dx = jax.jit(all_programs[name])(jnp.ones_like(column), column, jnp.zeros(1, dtype))[:, 0]
        error = np.abs(np.asarray(dx, np.float64)[normal] - exact[normal]) / unit
        # A plain formula that gives NaN or infinity where f' is a number is off by as much as can be.
        error = np.where(np.isfinite(error), error, 2.0**limits.nmant)
        result[who] = [float(f"{v:.4g}") for v in (error.max(), error.mean())]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", type=shape_argument, default=(65536, 4096), metavar="ROWSxCHANNELS")
    parser.add_argument(
        "--types", type=type_argument, nargs="+", default=list(jmn.NeuronType), metavar="TYPE"
    )
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    kinds, device = arguments.types, jax.devices()[0]
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
        rows = result["fraction of x * g"][dtype] = speeds(kinds, arguments.shape, dtype)
        with ThreadPoolExecutor() as pool:
            of_kinds = pool.map(errors, kinds, [dtype] * len(kinds))
        exact = {kind.name.lower(): e for kind, e in zip(kinds, of_kinds, strict=True)}
        result["maximum and mean error of dx, ULP"][dtype] = exact
        for name, row in rows.items():
            print(f"{dtype:9} {name:13}", *row.values(), exact[name], flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
