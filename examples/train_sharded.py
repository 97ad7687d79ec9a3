"""Trains the network of train_digits.py on meshes of devices, with the axes "data" and "model".

    python examples/train_sharded.py [--mesh DATAxMODEL ...] [--epochs N]

The batch is divided along "data". The channels of the first hidden layer, and with them the rows of the
next weights, are divided along "model". The script uses the devices that JAX finds, or 8 virtual CPU
devices if there is only one. It prints what a training step sends between devices, how fast it is, and the
difference between the losses and those of one device.
"""

from __future__ import annotations

import argparse
import os
import time
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from tqdm import tqdm

import jax_mps_neuron as jmn
from collectives import Collective, collectives
from jax_mps_neuron._lowering.routes import resolve, route
from train_digits import BATCH, WIDTHS, batches, initialize, load, logits

VIRTUAL = 8


class Run(NamedTuple):
    losses: np.ndarray  # of each step
    accuracy: float  # on the test set
    steps_per_second: float
    communication: list[Collective]  # in one training step


def find_devices() -> list[jax.Device]:
    """The devices that JAX finds, or virtual CPU devices if there is only one."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "xla_force_host_platform_device_count" not in flags:  # read when JAX starts the CPU's
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={VIRTUAL}"
    devices = jax.devices()
    return devices if len(devices) > 1 else jax.devices("cpu")


def mesh_argument(text: str) -> tuple[int, int]:
    """Parses DATAxMODEL. DATA divides the batch, MODEL the channels of the first hidden layer."""
    try:
        data, model = map(int, text.split("x"))
        possible = data > 0 and model > 0 and BATCH % data == 0 and WIDTHS[1] % model == 0
    except ValueError:
        possible = False
    if not possible:
        raise argparse.ArgumentTypeError(
            f"must be DATAxMODEL, such as 4x2, where DATA divides {BATCH} and MODEL divides {WIDTHS[1]}, "
            f"got {text!r}"
        )
    return data, model


def shardings(mesh: Mesh) -> dict[str, Any]:
    """The sharding of each parameter."""
    specs = {
        "weights": [P(None, "model"), P("model", None), P()],
        "biases": [P("model"), P(), P()],
        "slopes": P(),
    }
    return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs, is_leaf=lambda s: isinstance(s, P))


def train(mesh: Mesh, data: tuple[np.ndarray, ...], epochs: int) -> Run:
    x_train, x_test, y_train, y_test = data
    optimizer = optax.adam(1e-3)
    of_parameters, replicated = shardings(mesh), NamedSharding(mesh, P())
    parameters = initialize(jax.random.key(0))
    state = optimizer.init(parameters)
    of_state = optax.tree_map_params(
        optimizer, lambda _, s: s, state, of_parameters, transform_non_params=lambda _: replicated
    )
    parameters, state = jax.device_put((parameters, state), (of_parameters, of_state))

    def loss(parameters, x, y):
        scores = logits(parameters, x, jmn.neuron)
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

    @partial(jax.jit, donate_argnums=(0, 1), out_shardings=(of_parameters, of_state, replicated))
    def step(parameters, state, x, y):
        value, gradients = jax.value_and_grad(loss)(parameters, x, y)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(parameters, updates), state, value

    def put(x, y):
        return jax.device_put((x, y), NamedSharding(mesh, P("data")))

    compiled = step.lower(parameters, state, *put(x_train[:BATCH], y_train[:BATCH])).compile()
    values = []
    name = "x".join(str(n) for n in mesh.devices.shape)
    steps = epochs * (len(x_train) // BATCH)
    start = time.perf_counter()
    for x, y in tqdm(batches(x_train, y_train, epochs), f"mesh {name}", steps, unit="step"):
        parameters, state, value = compiled(parameters, state, *put(x, y))
        if jax.default_backend() == "cpu":
            # With several steps in flight and fewer cores than devices, XLA's CPU collectives can deadlock,
            # on every route. XLA then ends the process after a minute.
            value.block_until_ready()
        values.append(value)
    losses = np.asarray(jax.device_get(values))
    seconds = time.perf_counter() - start
    accuracy = (np.asarray(logits(parameters, x_test, jmn.neuron)).argmax(-1) == y_test).mean()
    return Run(losses, float(accuracy), steps / seconds, collectives(compiled, mesh))


def describe(collective: Collective) -> str:
    shapes = ", ".join("x".join(map(str, shape)) or "1" for shape in collective.shapes)
    axes = " and ".join(collective.axes) if collective.axes else "some devices"
    return f"{collective.kind} over {axes}: {shapes}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--mesh", type=mesh_argument, nargs="+", metavar="DATAxMODEL", default=None)
    parser.add_argument("--epochs", type=int, choices=range(1, 1001), metavar="N", default=10)
    arguments = parser.parse_args()

    devices = find_devices()
    meshes = arguments.mesh or [
        m for m in [(2, 1), (4, 1), (8, 1), (2, 2), (4, 2), (2, 4)] if m[0] * m[1] <= len(devices)
    ]
    for data, model in meshes:
        if data * model > len(devices):
            parser.error(f"--mesh is {data}x{model}, but there are {len(devices)} devices")
    platform = devices[0].platform
    print(f"{len(devices)} devices of {platform}, route {route(platform, resolve(None))[0]}")
    digits = load()
    runs = {}
    for data, model in dict.fromkeys([(1, 1), *meshes]):
        mesh = Mesh(np.asarray(devices[: data * model]).reshape(data, model), ("data", "model"))
        runs[data, model] = train(mesh, digits, arguments.epochs)

    one = runs[1, 1]
    print("\n mesh   steps/s  images/s  test accuracy  largest difference of the losses")
    for (data, model), run in runs.items():
        difference = np.abs(run.losses - one.losses).max()
        speed = f"{run.steps_per_second:>9.0f}{BATCH * run.steps_per_second:>10.0f}"
        print(f"{data:>2}x{model:<2}{speed}{run.accuracy:>15.1%}{difference:>34.1e}")
    for (data, model), run in runs.items():
        print(f"\nA training step on {data}x{model} sends, for a device:")
        for collective in run.communication:
            print(f"  {describe(collective)}")
        if not run.communication:
            print("  nothing")


if __name__ == "__main__":
    main()
