"""One of several processes that train together; multiprocess_test.py starts them.

python multiprocess_worker.py PORT PROCESSES PROCESS
"""

from __future__ import annotations

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import jax_mps_neuron as jmn

STEPS, ROWS = 5, 32


def initialize() -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    return [
        {
            "weight": (random.standard_normal((n, m)) / n**0.5).astype(np.float32),
            "bias": np.zeros(m, np.float32),
            "slopes": np.full(m, 0.25, np.float32),
        }
        for n, m in ((8, 16), (16, 4))
    ]


def loss(parameters, x, y):
    for p in parameters:
        x = jmn.neuron(x @ p["weight"], jmn.Neuron.prelu(p["slopes"]), p["bias"])
    return ((x - y) ** 2).mean()


@jax.jit
def step(parameters, x, y):
    value, gradients = jax.value_and_grad(loss)(parameters, x, y)
    return jax.tree.map(lambda p, g: p - 0.1 * g, parameters, gradients), value


def main() -> None:
    port, processes, process = map(int, sys.argv[1:])
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", processes, process, initialization_timeout=60)
    mesh = Mesh(np.asarray(jax.devices()), ("data",))
    rows, replicated = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    random = np.random.default_rng(1)
    x, y = (random.standard_normal((ROWS, n)).astype(np.float32) for n in (8, 4))

    def spread(value, sharding):
        return jax.make_array_from_callback(value.shape, sharding, lambda part: value[part])

    parameters = jax.tree.map(lambda p: spread(p, replicated), initialize())
    sharded = spread(x, rows), spread(y, rows)
    text = step.lower(parameters, *sharded).compile().as_text()
    losses = []
    for _ in range(STEPS):
        parameters, value = step(parameters, *sharded)
        losses.append(float(value))
    alone = initialize()
    expected = []
    for _ in range(STEPS):
        alone, value = step(alone, jnp.asarray(x), jnp.asarray(y))
        expected.append(float(value))
    result = {
        "devices": [jax.local_device_count(), jax.device_count()],
        "losses": losses,
        "one device": expected,
        "bias": np.asarray(parameters[0]["bias"]).tolist(),
        "one device's bias": np.asarray(alone[0]["bias"]).tolist(),
        "calls": text.count('custom_call_target="jax_mps_neuron.neuron_gradient"'),
        "gathers": text.count(" all-gather("),
    }
    print(json.dumps(result), flush=True)


main()
