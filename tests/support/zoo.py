"""Neurons to test with: every type, with parameters whose float32 is exact."""

from __future__ import annotations

import numpy as np

from jax_mps_neuron import Neuron, NeuronType


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


def scalars(neuron: Neuron, alpha: float = 1.0, dtype: str = "float32"):
    """alpha, a, b, c as the primitives take them: 0 for what the type does not use, and for slopes."""
    a = None if neuron.type is NeuronType.PRELU else neuron.a
    return np.asarray([alpha, *(0.0 if v is None else v for v in (a, neuron.b, neuron.c))], dtype)


NAMES = list(neurons())

assert {n.type for n in neurons().values()} == set(NeuronType)
