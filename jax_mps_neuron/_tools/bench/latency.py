"""Latency against `jax.nn`: eager calls, their gradients, and what `compilation` measures.

An eager call is timed until its result is ready. Both peers of a pair take turns.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ... import nn, reference
from ..._core.descriptor import Neuron
from ..._ops.activation import neuron, neuron_gradient
from . import compilation
from .timing import Program, interleaved

__all__ = ["JAX_NN", "OURS", "SHAPE", "Pair", "measure", "pairs"]

OURS, JAX_NN = "ours", "jax.nn"
SHAPE = (32, 64)
_TURNS = 15
_GELU = Neuron.gelu()
_NN = (
    "relu",
    "relu6",
    "sigmoid",
    "tanh",
    "elu",
    "softplus",
    "leaky_relu",
    "soft_sign",
    "log_sigmoid",
    "hard_sigmoid",
    "selu",
)


class Pair(NamedTuple):
    """One of our functions, and what a user of `jax.nn` writes in its place.

    Attributes:
      name: how a table names ours.
      peer: how a table names the other.
      ours, theirs: the functions, of `inputs`.
      inputs: arrays; the gradient is taken with respect to all of them.
      differentiated: whether the gradient is timed too.
    """

    name: str
    peer: str
    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    inputs: tuple[Array, ...]
    differentiated: bool = True


def pairs(shape: tuple[int, int] = SHAPE) -> list[Pair]:
    """Every pair, on float32 inputs of a shape."""
    random = np.random.default_rng(0)
    x, gradient = (jnp.asarray(random.standard_normal(shape, np.float32)) for _ in range(2))
    bias = jnp.asarray(random.standard_normal(shape[1:], np.float32))
    found = [
        Pair(f"nn.{name}(x)", f"jax.nn.{name}(x)", getattr(nn, name), getattr(jax.nn, name), (x,))
        for name in _NN
    ]
    gelu = "jax.nn.gelu(x, False)"
    biased = "jax.nn.gelu(x + bias, False)"
    return [
        *found,
        Pair("nn.gelu(x, False)", gelu, lambda x: nn.gelu(x, False), _gelu, (x,)),
        Pair("neuron(x, Neuron.gelu())", gelu, lambda x: neuron(x, _GELU), _gelu, (x,)),
        Pair(
            "neuron(x, Neuron.gelu(), bias)",
            biased,
            lambda x, bias: neuron(x, _GELU, bias),
            lambda x, bias: _gelu(x + bias),
            (x, bias),
        ),
        Pair("reference.neuron(x, Neuron.gelu())", gelu, lambda x: reference.neuron(x, _GELU), _gelu, (x,)),
        Pair(
            "neuron_gradient(g, x, Neuron.gelu(), bias)",
            f"jax.jit of the vjp of {biased}",
            lambda g, x, bias: neuron_gradient(g, x, _GELU, bias),
            jax.jit(lambda g, x, bias: jax.vjp(lambda x, b: _gelu(x + b), x, bias)[1](g)),
            (gradient, x, bias),
            differentiated=False,
        ),
    ]


def _gelu(x: Array) -> Array:
    return jax.nn.gelu(x, approximate=False)


def measure(*, quick: bool = False, turns: int | None = None) -> dict[str, Any]:
    """Measures everything.

    Args:
      quick: whether to use few turns and a small network.
      turns: how often each pair takes turns.

    Returns:
      The part of the JSON under ``latency``: ``calls``, a list with the medians in microseconds of each
      pair; ``network`` and ``learned``, as `compilation` returns them.
    """
    turns = turns or (2 if quick else _TURNS)
    calls = []
    for pair in pairs():
        print(f"  {pair.name} ...", file=sys.stderr, flush=True)
        call = _microseconds(pair, pair.ours, pair.theirs, turns)
        gradients = None
        if pair.differentiated:
            gradients = _microseconds(pair, _gradient(pair, pair.ours), _gradient(pair, pair.theirs), turns)
        calls.append({"name": pair.name, "peer": pair.peer, "us": call, "grad us": gradients})
    print("  training steps ...", file=sys.stderr, flush=True)
    return {
        "shape": list(SHAPE),
        "dtype": "float32",
        "turns": turns,
        "calls": calls,
        "network": compilation.network(layers=4 if quick else 48, turns=1 if quick else 5),
        "learned": compilation.learned(),
    }


def _gradient(pair: Pair, function: Callable[..., Any]) -> Callable[..., Any]:
    everything = tuple(range(len(pair.inputs)))
    return jax.grad(lambda *inputs: function(*inputs).sum(), everything)


def _microseconds(
    pair: Pair, ours: Callable[..., Any], theirs: Callable[..., Any], turns: int
) -> dict[str, float]:
    def program(function: Callable[..., Any]) -> Program:
        return Program(
            lambda: None, lambda _: jax.block_until_ready(function(*pair.inputs)), lambda _: None
        )

    times = interleaved({OURS: program(ours), JAX_NN: program(theirs)}, turns)
    return {name: float(f"{1e3 * figures['median']:.4g}") for name, figures in times.items()}
