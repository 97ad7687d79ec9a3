"""Measures the custom call against XLA's own autodiff of the formula as one writes it."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from . import native
from .activation import neuron
from .descriptor import Neuron, NeuronType

__all__ = ["PLAIN", "add_arguments", "run"]

CALLS = 8  # in one measurement


def _relu(z: Array, a: Any, b: Any, c: Any) -> Array:
    return jnp.where(z >= 0, z, a * z)


# What one writes without this package: z, a, b, c -> f(z).
PLAIN: dict[NeuronType, Callable[..., Array]] = {
    NeuronType.NONE: lambda z, a, b, c: z,
    NeuronType.RELU: _relu,
    NeuronType.LINEAR: lambda z, a, b, c: a * z + b,
    NeuronType.SIGMOID: lambda z, a, b, c: jax.nn.sigmoid(z),
    NeuronType.HARD_SIGMOID: lambda z, a, b, c: jnp.clip(a * z + b, 0, 1),
    NeuronType.TANH: lambda z, a, b, c: a * jnp.tanh(b * z),
    NeuronType.ABSOLUTE: lambda z, a, b, c: jnp.abs(z),
    NeuronType.SOFTPLUS: lambda z, a, b, c: a * jnp.logaddexp(b * z, 0),
    NeuronType.SOFTSIGN: lambda z, a, b, c: z / (1 + jnp.abs(z)),
    NeuronType.ELU: lambda z, a, b, c: jnp.where(z >= 0, z, a * jnp.expm1(jnp.where(z >= 0, 0, z))),
    NeuronType.PRELU: _relu,
    NeuronType.RELUN: lambda z, a, b, c: jnp.minimum(_relu(z, a, b, c), b),
    NeuronType.POWER: lambda z, a, b, c: jnp.power(a * z + b, c),
    NeuronType.EXPONENTIAL: lambda z, a, b, c: jnp.exp(a * z + b),
    NeuronType.LOGARITHM: lambda z, a, b, c: jnp.log(a * z + b),
    NeuronType.GELU: lambda z, a, b, c: jax.nn.gelu(z, approximate=False),
}


def neuron_for(kind: NeuronType, channels: int) -> Neuron:
    """A neuron with parameters that make the type do its whole work on inputs around 0."""
    slopes = np.linspace(0.05, 0.35, channels, dtype=np.float32)
    return {
        NeuronType.RELU: Neuron.relu(0.1),
        NeuronType.LINEAR: Neuron.linear(1.5, 0.25),
        NeuronType.TANH: Neuron.tanh(1.7, 0.6),
        NeuronType.PRELU: Neuron.prelu(slopes),
        NeuronType.POWER: Neuron.power(0.5, 8.0, 2.75),
        NeuronType.EXPONENTIAL: Neuron.exponential(0.5, 0.1),
        NeuronType.LOGARITHM: Neuron.logarithm(0.5, 8.0),
    }.get(kind) or Neuron(kind)


def _plain(x: Array, n: Neuron, bias: Array | None) -> Array:
    z = x if bias is None else x + bias.astype(x.dtype)
    parameters = (jnp.asarray(p, x.dtype) for p in (n.a, n.b, n.c))
    return PLAIN[n.type](z, *parameters)


def _ours(x: Array, n: Neuron, bias: Array | None) -> Array:
    return neuron(x, n, bias, lowering="custom_call")


def _programs(n: Neuron) -> dict[str, dict[str, Callable[..., Any]]]:
    """The peers of each mode: mode -> who -> program of (gradient, x, bias), the gradient donated.

    Backward, each call is a program of its own: within one, XLA would merge its own consecutive loops into
    one, which the matrix products of a real network do not let it. The gradient is donated, as in a
    training step its buffer is free.
    """

    def forward(activation):
        return jax.jit(lambda g, x, bias: (activation(x, n, bias), None))

    def dx(activation):
        def program(g, x, bias):
            return jax.vjp(lambda x: activation(x, n, None), x)[1](g)[0], None

        return jax.jit(program, donate_argnums=0)

    def dx_dbias(activation):
        def program(g, x, bias):
            return jax.vjp(lambda x, bias: activation(x, n, bias), x, bias)[1](g)

        return jax.jit(program, donate_argnums=0)

    modes = {"forward": forward, "dx": dx, "dx + dbias": dx_dbias}
    return {mode: {"custom call": make(_ours), "XLA": make(_plain)} for mode, make in modes.items()}


@jax.jit
def _fresh(g: Array) -> Array:
    return g + 0


def _interleaved(
    programs: Mapping[str, Callable[..., Any]], g: Array, x: Array, bias: Array, repeats: int
) -> dict[str, float]:
    """Median milliseconds a call of each program, all measured in turns of CALLS calls."""
    times: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(repeats + 1):
        for name, program in programs.items():
            gradient = jax.block_until_ready(_fresh(g))
            start = time.perf_counter()
            for _ in range(CALLS):
                gradient, sums = program(gradient, x, bias)
            jax.block_until_ready((gradient, sums))
            if turn:  # the first turn compiles
                times[name].append((time.perf_counter() - start) / CALLS * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(
    shape: tuple[int, int], dtype: str, kinds: Iterable[NeuronType], repeats: int
) -> dict[str, Any]:
    """Runs the benchmark and returns its figures: milliseconds a call by type, mode and peer."""
    random = np.random.default_rng(0)
    x, g = (jnp.asarray(random.standard_normal(shape, np.float32), dtype) for _ in range(2))
    bias = jnp.asarray(random.standard_normal(shape[-1], np.float32) * 0.1, dtype)
    floor = {"x * g": jax.jit(lambda g, x, bias: (x * g, None), donate_argnums=0)}
    figures: dict[str, Any] = {}
    for kind in kinds:
        print(f"  {kind.name.lower()} ...", file=sys.stderr, flush=True)
        figures[kind.name.lower()] = {
            mode: _interleaved(programs, g, x, bias, repeats)
            for mode, programs in _programs(neuron_for(kind, shape[-1])).items()
        }
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "device": str(jax.devices()[0].device_kind),
        "isa": native.isa(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python -m jax_mps_neuron", *sys.argv[1:]]),
        "shape": list(shape),
        "dtype": dtype,
        "x * g, ms": _interleaved(floor, g, x, bias, repeats)["x * g"],
        "ms": figures,
    }


def table(result: dict[str, Any]) -> str:
    """The figures as a Markdown table: milliseconds of the custom call, and how many times XLA takes."""
    modes = ("forward", "dx", "dx + dbias")
    lines = [
        "| type | " + " | ".join(f"{m}, ms | XLA / ours" for m in modes) + " |",
        "| --- |" + " ---: | ---: |" * len(modes),
    ]
    ratios: dict[str, list[float]] = {m: [] for m in modes}
    for name, by_mode in result["ms"].items():
        cells = []
        for mode in modes:
            ours, xla = by_mode[mode]["custom call"], by_mode[mode]["XLA"]
            ratios[mode].append(xla / ours)
            cells.append(f"{ours:.2f} | {xla / ours:.2g}x")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    means = (f" | {math.exp(statistics.fmean(map(math.log, ratios[m]))):.2g}x" for m in modes)
    lines.append("| geometric mean |" + " |".join(means) + " |")
    return "\n".join(lines)


def shape_argument(text: str) -> tuple[int, int]:
    try:
        rows, channels = map(positive_argument, text.lower().split("x"))
    except (ValueError, argparse.ArgumentTypeError):
        message = f"{text!r} is no shape; it may be ROWSxCHANNELS, as 4096x2048"
        raise argparse.ArgumentTypeError(message) from None
    return rows, channels


def positive_argument(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no count; it may be 1 or more")
    return int(text)


def file_argument(text: str) -> Path:
    """A file that can be written, which minutes of measurements later would be bad news."""
    try:
        with Path(text).open("a"):
            return Path(text)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"can't open {text!r}: {error.strerror}") from None


def type_argument(text: str) -> NeuronType:
    try:
        return NeuronType[text.upper()]
    except KeyError:
        names = ", ".join(t.name.lower() for t in NeuronType)
        raise argparse.ArgumentTypeError(f"{text!r} is no neuron type; it may be {names}") from None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--shape", type=shape_argument, default=(4096, 2048), metavar="ROWSxCHANNELS")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], default="float32")
    parser.add_argument("--types", type=type_argument, nargs="+", default=list(NeuronType), metavar="TYPE")
    parser.add_argument("--repeats", type=positive_argument, default=9, help="measurements of each program")
    parser.add_argument("--json", type=file_argument, metavar="FILE", help="also write the figures here")


def run(arguments: argparse.Namespace) -> int:
    if native.problem():
        print(f"There is no custom call to measure: {native.problem()}.", file=sys.stderr)
        return 1
    with jax.default_device(jax.devices("cpu")[0]):
        result = measure(arguments.shape, arguments.dtype, arguments.types, arguments.repeats)
    rows, channels = arguments.shape
    size = rows * channels * jnp.dtype(arguments.dtype).itemsize
    gigabytes = 3 * size / result["x * g, ms"] / 1e6
    print(
        f"{result['device']}, {result['cores']} cores, {result['isa']}, jax {result['jax']}, "
        f"[{rows}, {channels}] {arguments.dtype}; median of {arguments.repeats} x {CALLS} calls\n"
        f"x * g by XLA, two reads and a write: {result['x * g, ms']:.2f} ms a call, {gigabytes:.0f} GB/s\n"
    )
    print(table(result))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0
