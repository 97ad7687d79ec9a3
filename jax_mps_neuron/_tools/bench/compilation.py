"""What a training step costs before it runs: trace, lower and compile time, temporaries, recompilations."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
from jax import Array

from ... import nn
from ..._core.descriptor import Neuron
from ..._ops.activation import neuron

__all__ = ["compilations", "learned", "network"]

_ROWS, _CHANNELS = 32, 64
_RATE = 1e-2
_STEPS = 4
_COMPILED = "/jax/core/compile/backend_compile_duration"

# A residual block's activation: (x W, bias) -> y.
_ACTIVATIONS: dict[str, Callable[[Array, Array], Array]] = {
    "neuron(z, Neuron.gelu(), bias)": lambda z, bias: neuron(z, Neuron.gelu(), bias),
    "nn.gelu(z + bias, False)": lambda z, bias: nn.gelu(z + bias, approximate=False),
    "jax.nn.gelu(z + bias, False)": lambda z, bias: jax.nn.gelu(z + bias, approximate=False),
}


def network(layers: int, turns: int) -> dict[str, Any]:
    """Measures a training step of a residual network, x + gelu(x W + bias) in each layer.

    Args:
      layers: the number of layers, which the step unrolls.
      turns: how often the activations take turns. JAX's caches are empty before each.

    Returns:
      ``layers``, ``shape``, and under ``activations`` for each activation the medians of ``trace``,
      ``lower`` and ``compile`` in milliseconds and the step's ``temporary bytes``.
    """
    random = np.random.default_rng(0)
    weight = random.standard_normal((_CHANNELS, _CHANNELS), np.float32) / 8
    blocks = [{"weight": jnp.asarray(weight), "bias": jnp.zeros(_CHANNELS)} for _ in range(layers)]
    x = jnp.asarray(random.standard_normal((_ROWS, _CHANNELS), np.float32))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in _ACTIVATIONS}
    for turn in range(turns):
        names = list(_ACTIVATIONS)
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(_stages(_ACTIVATIONS[name], blocks, x))
    medians = {
        name: {key: float(f"{statistics.median(r[key] for r in rounds):.4g}") for key in rounds[0]}
        for name, rounds in found.items()
    }
    return {"layers": layers, "shape": [_ROWS, _CHANNELS], "turns": turns, "activations": medians}


def _stages(activation: Callable[[Array, Array], Array], blocks: Any, x: Array) -> dict[str, float]:
    def loss(blocks: Any, x: Array) -> Array:
        for block in blocks:
            x = x + activation(x @ block["weight"], block["bias"])
        return jnp.mean(x**2)

    def step(blocks: Any, x: Array) -> Any:
        value, gradients = jax.value_and_grad(loss)(blocks, x)
        return jax.tree.map(lambda w, d: w - _RATE * d, blocks, gradients), value

    jax.clear_caches()
    start = time.perf_counter()
    traced = jax.jit(step, donate_argnums=0).trace(blocks, x)
    at_trace = time.perf_counter()
    lowered = traced.lower()
    at_lower = time.perf_counter()
    compiled = lowered.compile()
    end = time.perf_counter()
    return {
        "trace": 1e3 * (at_trace - start),
        "lower": 1e3 * (at_lower - at_trace),
        "compile": 1e3 * (end - at_lower),
        "temporary bytes": compiled.memory_analysis().temp_size_in_bytes,
    }


class _Learned(NamedTuple):
    """Initial parameters, and the activation that they parametrize: (parameters, x) -> y."""

    parameters: Any
    activation: Callable[[Any, Array], Array]


_LEARNED = {
    "elu": {
        "ours": _Learned(Neuron.elu(0.5), lambda n, x: neuron(x, n)),
        "jax.nn": _Learned({"alpha": 0.5}, lambda p, x: jax.nn.elu(x, p["alpha"])),
    },
    "tanh": {
        "ours": _Learned(Neuron.tanh(1.0, 1.0), lambda n, x: neuron(x, n)),
        "jax.nn": _Learned({"a": 1.0, "b": 1.0}, lambda p, x: p["a"] * jax.nn.tanh(p["b"] * x)),
    },
}


def learned() -> dict[str, Any]:
    """Counts the compilations of a training step that runs four times and learns a neuron's parameters.

    Returns:
      ``steps``, and under ``compilations`` for each neuron type the counts of ``ours`` and ``jax.nn``.
    """
    counts = {name: {who: _count(*peer) for who, peer in peers.items()} for name, peers in _LEARNED.items()}
    return {"steps": _STEPS, "compilations": counts}


def _count(parameters: Any, activation: Callable[[Any, Array], Array]) -> int:
    random = np.random.default_rng(0)
    weight = jnp.asarray(random.standard_normal((_CHANNELS, _CHANNELS), np.float32) / 8)
    x = jnp.asarray(random.standard_normal((_ROWS, _CHANNELS), np.float32))

    @jax.jit
    def step(state: Any) -> Any:
        def loss(state: Any) -> Array:
            weight, parameters = state
            return jnp.mean(activation(parameters, x @ weight) ** 2)

        return jax.tree.map(lambda w, d: w - _RATE * d, state, jax.grad(loss)(state))

    state = jax.block_until_ready((weight, parameters))
    before = compilations()
    for _ in range(_STEPS):
        state = step(state)
    return compilations() - before


def compilations() -> int:
    """The number of programs that XLA has compiled in this process since the first call."""
    return len(_durations())


@cache
def _durations() -> list[float]:
    durations: list[float] = []

    def listen(event: str, duration_secs: float, **_: Any) -> None:
        if event == _COMPILED:
            durations.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return durations
