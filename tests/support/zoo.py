"""Neurons to test with: every type, with parameters whose float32 is exact."""

from __future__ import annotations

import numpy as np

from jax_mps_neuron import Neuron, NeuronType
from support.arrays import DTYPES


def slopes(channels: int, dtype: str = "float32"):
    return (np.arange(channels) % 7 / 16.0 - 0.125).astype(dtype)


def neurons(channels: int = 1) -> dict[str, Neuron]:
    """Name to neuron, for an x of about unit scale with that many channels."""
    return {
        "none": Neuron.none(),
        "relu": Neuron.relu(),
        "leaky_relu": Neuron.relu(0.125),
        "linear": Neuron.linear(1.5, 0.25),
        "sigmoid": Neuron.sigmoid(),
        "hard_sigmoid": Neuron.hard_sigmoid(0.25, 0.375),
        "tanh": Neuron.tanh(1.75, 0.625),
        "absolute": Neuron.absolute(),
        "softplus": Neuron.softplus(1.25, 1.5),
        "softsign": Neuron.softsign(),
        "elu": Neuron.elu(1.125),
        "prelu": Neuron.prelu(slopes(channels)),
        "relun": Neuron.relun(0.25, 0.75),
        "power": Neuron.power(0.5, 8.0, 2.75),
        "square": Neuron.power(1.0, 0.5, 2.0),
        "exponential": Neuron.exponential(0.75, 0.125),
        "exponential_base": Neuron.exponential(0.75, 0.125, 1.875),
        "logarithm": Neuron.logarithm(0.5, 8.0),
        "logarithm_base": Neuron.logarithm(0.5, 8.0, 3.0),
        "gelu": Neuron.gelu(),
    }


def parameters(neuron: Neuron):
    """a, b and c; 0 where the type has no such parameter."""
    return tuple(0.0 if p is None else p for p in (neuron.a, neuron.b, neuron.c))


def scalars(neuron: Neuron, alpha: float = 1.0, dtype: str = "float32"):
    """alpha, a, b and c as the primitives take them: 0 for unused parameters and in place of slopes."""
    a, b, c = parameters(neuron)
    return np.asarray([alpha, 0.0 if neuron.type is NeuronType.PRELU else a, b, c], dtype)


NAMES = list(neurons())

# For tests of code that does not know the type: without parameters, with slopes, with scalar parameters.
SOME = ["gelu", "prelu", "linear"]


def in_dtypes(*every: str) -> list[tuple[str, str]]:
    """(name, dtype): all neurons in the dtypes given, and some in the others."""
    return [(name, dtype) for dtype in DTYPES for name in (NAMES if dtype in every else SOME)]


assert {n.type for n in neurons().values()} == set(NeuronType)
