"""The peers: our routes, and what JAX users write without this package."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ..._core.descriptor import Neuron, NeuronType
from ..._lowering.routes import route
from ..._ops.activation import neuron

__all__ = [
    "CUSTOM_CALL",
    "INLINE",
    "JAX_NN",
    "PEERS",
    "PLAIN",
    "TORCH",
    "TORCH_COMPILE",
    "XLA",
    "Activation",
    "activations",
    "neuron_for",
    "our_route",
]

# The names of the peers in tables and in the JSON.
CUSTOM_CALL, INLINE, XLA, JAX_NN = "custom call", "inline", "XLA", "jax.nn"
TORCH, TORCH_COMPILE = "torch", "torch.compile"
PEERS = (CUSTOM_CALL, INLINE, XLA, JAX_NN, TORCH, TORCH_COMPILE)

Activation = Callable[[Array, Neuron, "Array | None"], Array]


def _relu(z: Array, a: Any, b: Any, c: Any) -> Array:
    return jnp.where(z >= 0, z, a * z)


# The formula as JAX users write it: z, a, b, c -> f(z).
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

# jax.nn's functions, with the parameters that they support: z, a -> f(z).
_JAX_NN: dict[NeuronType, Callable[..., Array]] = {
    NeuronType.RELU: lambda z, a: jax.nn.relu(z),
    NeuronType.SIGMOID: lambda z, a: jax.nn.sigmoid(z),
    NeuronType.HARD_SIGMOID: lambda z, a: jax.nn.hard_sigmoid(z),
    NeuronType.TANH: lambda z, a: jnp.tanh(z),
    NeuronType.SOFTPLUS: lambda z, a: jax.nn.softplus(z),
    NeuronType.SOFTSIGN: lambda z, a: jax.nn.soft_sign(z),
    NeuronType.ELU: lambda z, a: jax.nn.elu(z),
    NeuronType.PRELU: lambda z, a: jax.nn.leaky_relu(z, a),
    NeuronType.RELUN: lambda z, a: jax.nn.relu6(z),
    NeuronType.GELU: lambda z, a: jax.nn.gelu(z, approximate=False),
}


def neuron_for(neuron_type: NeuronType, channels: int) -> Neuron:
    """A neuron whose parameters avoid shortcuts and domain edges for inputs around 0."""
    slopes = np.linspace(0.05, 0.35, channels, dtype=np.float32)
    return {
        NeuronType.RELU: Neuron.relu(0.1),
        NeuronType.LINEAR: Neuron.linear(1.5, 0.25),
        NeuronType.TANH: Neuron.tanh(1.7, 0.6),
        NeuronType.PRELU: Neuron.prelu(slopes),
        NeuronType.POWER: Neuron.power(0.5, 8.0, 2.75),
        NeuronType.EXPONENTIAL: Neuron.exponential(0.5, 0.1),
        NeuronType.LOGARITHM: Neuron.logarithm(0.5, 8.0),
    }.get(neuron_type) or Neuron(neuron_type)


def our_route(platform: str) -> str:
    """The peer that is the default route of a platform."""
    return CUSTOM_CALL if route(platform)[0] == "custom_call" else INLINE


def activations(neuron_type: NeuronType, platform: str) -> dict[str, Activation]:
    """The JAX peers of a neuron type on a platform: name to (x, neuron, bias) -> y."""
    peers: dict[str, Activation] = {INLINE: partial(_ours, "inline"), XLA: _plain}
    if our_route(platform) == CUSTOM_CALL:
        peers = {CUSTOM_CALL: partial(_ours, "custom_call"), **peers}
    if neuron_type in _JAX_NN:
        peers[JAX_NN] = _jax_nn
    return peers


def _ours(lowering: str, x: Array, n: Neuron, bias: Array | None) -> Array:
    return neuron(x, n, bias, lowering=lowering)


def _biased(x: Array, bias: Array | None) -> Array:
    return x if bias is None else x + bias.astype(x.dtype)


def _plain(x: Array, n: Neuron, bias: Array | None) -> Array:
    parameters = (None if p is None else jnp.asarray(p, x.dtype) for p in (n.a, n.b, n.c))
    return PLAIN[n.type](_biased(x, bias), *parameters)


def _jax_nn(x: Array, n: Neuron, bias: Array | None) -> Array:
    return _JAX_NN[n.type](_biased(x, bias), None if n.a is None else jnp.asarray(n.a, x.dtype))
