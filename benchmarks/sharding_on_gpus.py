"""Measures how data-parallel training scales with the devices of one host.

    python benchmarks/sharding_on_gpus.py [--batch N] [--width N] [--layers N] [--json FILE]

A perceptron trains by plain SGD on random numbers, on 1, 2, 4, ... devices of a mesh axis "data". Its
hidden layers alternate GELU and PReLU with learned slopes. In weak scaling each device has its own batch;
in strong scaling all devices share one batch. The script checks that every program reduces each gradient
once, moves nothing else between devices, and computes the losses of one device.

Without GPUs, XLA_FLAGS=--xla_force_host_platform_device_count=8 provides virtual devices for a trial.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jax_mps_neuron as jmn
from jax_mps_neuron._lowering.routes import route

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from collectives import collectives

TURNS, STEPS, COMPARED = 5, 10, 5
RATE = 0.02


def initialize(width: int, layers: int) -> list[dict[str, jax.Array]]:
    """The float32 parameters of each layer. Odd layers have slopes."""
    keys = jax.random.split(jax.random.key(0), layers)
    parameters = []
    for i, key in enumerate(keys):
        layer = {"weight": jax.random.normal(key, (width, width)) / width**0.5, "bias": jnp.zeros(width)}
        if i % 2:
            layer["slopes"] = jnp.full(width, 0.25, jnp.float32)
        parameters.append(layer)
    return parameters


def loss(parameters: list[dict[str, jax.Array]], x: jax.Array, y: jax.Array, lowering: str) -> jax.Array:
    """The mean squared error, [] in float32."""
    for layer in parameters:
        neuron = jmn.Neuron.prelu(layer["slopes"]) if "slopes" in layer else jmn.Neuron.gelu()
        x = jmn.neuron(x @ layer["weight"].astype(x.dtype), neuron, layer["bias"], lowering=lowering)
    return jnp.mean((x.astype(jnp.float32) - y) ** 2)


def communication(compiled: Any, mesh: Mesh, parameters: Any) -> dict[str, Any]:
    """The collectives by kind, and whether they only sum each gradient and the loss, possibly combined."""
    found = collectives(compiled, mesh)
    kinds = Counter(collective.kind for collective in found)
    sums = all(collective.kind == "all-reduce" and collective.axes == ("data",) for collective in found)
    elements = sum(collective.elements for collective in found)
    wanted = sum(p.size for p in jax.tree.leaves(parameters)) + 1  # the loss
    only_sums = mesh.size == 1 or (sums and elements == wanted)
    if not only_sums:
        print(f"communication must be one sum per gradient, got {found}", file=sys.stderr)
    return {"collectives": dict(kinds), "only sums of gradients": only_sums}


def measure(count: int, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains on `count` devices, which share `batch` rows."""
    mesh = Mesh(np.asarray(jax.devices()[:count]), ("data",))
    replicated, rows = NamedSharding(mesh, P()), NamedSharding(mesh, P("data"))

    @partial(jax.jit, donate_argnums=0, out_shardings=(replicated, replicated))
    def step(parameters, x, y):
        value, gradients = jax.value_and_grad(loss)(parameters, x, y, arguments.lowering)
        return jax.tree.map(lambda p, g: p - RATE * g, parameters, gradients), value

    @partial(jax.jit, out_shardings=rows)
    def draw(key):
        return jax.random.normal(key, (batch, arguments.width))

    parameters = jax.device_put(initialize(arguments.width, arguments.layers), replicated)
    x, y = (draw(key) for key in jax.random.split(jax.random.key(1), 2))
    x = x.astype(arguments.dtype)
    compiled = step.lower(parameters, x, y).compile()
    found = communication(compiled, mesh, parameters)
    losses = []
    for _ in range(COMPARED):
        parameters, value = compiled(parameters, x, y)
        losses.append(float(value))
    turns = []
    for _ in range(TURNS):
        jax.block_until_ready(parameters)
        start = time.perf_counter()
        for _ in range(STEPS):
            parameters, value = compiled(parameters, x, y)
        jax.block_until_ready((parameters, value))
        turns.append((time.perf_counter() - start) / STEPS)
    seconds = statistics.median(turns)
    # Three products per layer, except that the gradient of x needs none.
    products = 2 * batch * arguments.width**2 * (3 * arguments.layers - 1)
    return {
        "devices": count,
        "rows": batch,
        "ms a step": round(1e3 * seconds, 3),
        "rows a second": round(batch / seconds),
        "TFLOP/s a device": round(products / seconds / count / 1e12, 1),
        **found,
        "losses": losses,
    }


HEADER = (
    f"{'scaling':<8}{'devices':>7}{'rows':>9}{'ms a step':>11}{'rows a second':>15}"
    f"{'TFLOP/s a device':>18}{'speedup':>9}{'efficiency':>12}  collectives"
)


def scale(name: str, counts: list[int], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures weak or strong scaling over these numbers of devices, and prints a row for each."""
    rows: list[dict[str, Any]] = []
    total = counts[-1] * arguments.batch
    for count in counts:
        row = measure(count, count * arguments.batch if name == "weak" else total, arguments)
        rows.append(row)
        row["speedup"] = round(row["rows a second"] / rows[0]["rows a second"], 3)
        row["efficiency"] = round(row["speedup"] / count, 3)
        if name == "strong":
            close = np.isclose(row["losses"], rows[0]["losses"], rtol=arguments.tolerance)
            row["losses are one device's"] = bool(close.all() and np.isfinite(row["losses"]).all())
        kinds = ", ".join(f"{n} {kind}" for kind, n in row["collectives"].items()) or "none"
        print(
            f"{name:<8}{count:>7}{row['rows']:>9}{row['ms a step']:>11}{row['rows a second']:>15}"
            f"{row['TFLOP/s a device']:>18}{row['speedup']:>9}{row['efficiency']:>12.1%}  {kinds}",
            flush=True,
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=8192, help="rows per device")
    parser.add_argument("--width", type=int, default=4096, help="channels of each layer")
    parser.add_argument("--layers", type=int, default=8, help="number of layers")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"], help="dtypes of x")
    parser.add_argument("--lowering", default="auto", help="the route of the neurons")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the measurements to a file")
    arguments = parser.parse_args()
    devices = jax.devices()
    counts = [n for n in (1, 2, 4, 8, 16) if n <= len(devices)]
    result: dict[str, Any] = {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "jax": jax.__version__,
        "date": time.strftime("%Y-%m-%d"),
        "command": " ".join(["python benchmarks/sharding_on_gpus.py", *sys.argv[1:]]),
        "environment": {name: value for name, value in os.environ.items() if name.startswith("NCCL_")},
        "route": route(jax.default_backend(), arguments.lowering)[0],
        "batch for each device": arguments.batch,
        "width": arguments.width,
        "layers": arguments.layers,
        "steps": f"median of {TURNS} turns of {STEPS}",
        "scaling": {},
    }
    print(f"{len(devices)} of {result['device']}, jax {jax.__version__}, route {result['route']}")
    for dtype in arguments.dtypes:
        # The sums have another order, and GPUs multiply float32 in TF32.
        arguments.dtype, arguments.tolerance = dtype, 1e-3 if dtype == "float32" else 1e-2
        print(f"\n{dtype}\n{HEADER}")
        result["scaling"][dtype] = {name: scale(name, counts, arguments) for name in ("weak", "strong")}
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    rows = [row for tables in result["scaling"].values() for table in tables.values() for row in table]
    if not all(row["only sums of gradients"] and row.get("losses are one device's", True) for row in rows):
        sys.exit("a program moves more than gradients, or its losses differ from those of one device")


if __name__ == "__main__":
    main()
