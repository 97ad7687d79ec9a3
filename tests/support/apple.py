"""f and f' in float64 NumPy, written from Apple's tables alone.

MPSCNNNeuronType.h for f, MPSCNNNeuronGradient's table in MPSCNNNeuron.h for f'. Kept independent of the
package: nothing here may import from it but the names of the types.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.special import ndtr

from jax_mps_neuron import Neuron
from jax_mps_neuron import NeuronType as T


def f(kind, x, a, b, c):
    with np.errstate(all="ignore"):
        if kind is T.NONE:
            return x
        if kind in (T.RELU, T.PRELU):
            return np.where(x >= 0, x, a * x)
        if kind is T.LINEAR:
            return a * x + b
        if kind is T.SIGMOID:
            return np.where(x >= 0, 1 / (1 + np.exp(-x)), np.exp(x) / (1 + np.exp(x)))
        if kind is T.HARD_SIGMOID:
            return np.clip(a * x + b, 0, 1)
        if kind is T.TANH:
            return a * np.tanh(b * x)
        if kind is T.ABSOLUTE:
            return np.abs(x)
        if kind is T.SOFTPLUS:
            return a * np.logaddexp(0, b * x)
        if kind is T.SOFTSIGN:
            return x / (1 + np.abs(x))
        if kind is T.ELU:
            return np.where(x >= 0, x, a * np.expm1(x))
        if kind is T.RELUN:
            return np.minimum(np.where(x >= 0, x, a * x), b)
        if kind is T.POWER:
            return (a * x + b) ** c
        if kind is T.EXPONENTIAL:
            return np.exp(a * x + b) if c == -1 else c ** (a * x + b)
        if kind is T.LOGARITHM:
            return np.log(a * x + b) / (1 if c == -1 else np.log(c))
        if kind is T.GELU:
            return x * ndtr(x)
    raise AssertionError(kind)


def df(kind, x, a, b, c):
    with np.errstate(all="ignore"):
        if kind is T.NONE:
            return np.ones_like(x)
        if kind in (T.RELU, T.PRELU, T.ELU, T.RELUN):
            left = a * np.exp(x) if kind is T.ELU else a
            slope = np.where(x >= 0, 1.0, left)
            return np.where(x >= b, 0.0, slope) if kind is T.RELUN else slope
        if kind is T.LINEAR:
            return np.full_like(x, a)
        if kind is T.SIGMOID:
            return np.exp(-np.abs(x)) / (np.exp(-np.abs(x)) + 1) ** 2
        if kind is T.HARD_SIGMOID:
            return np.where((a * x + b >= 0) & (a * x + b <= 1), a, 0.0)
        if kind is T.TANH:
            return a * b / np.cosh(b * x) ** 2
        if kind is T.ABSOLUTE:
            return np.sign(x)
        if kind is T.SOFTPLUS:
            return a * b / (1 + np.exp(-b * x))
        if kind is T.SOFTSIGN:
            return 1 / (np.abs(x) + 1) ** 2
        if kind is T.POWER:
            return a * c * (a * x + b) ** (c - 1)
        if kind is T.EXPONENTIAL:
            return a * np.exp(a * x + b) if c == -1 else a * np.log(c) * c ** (a * x + b)
        if kind is T.LOGARITHM:
            return a / ((a * x + b) * (1 if c == -1 else np.log(c)))
        if kind is T.GELU:
            return ndtr(x) + x * np.exp(-x * x / 2) / np.sqrt(2 * np.pi)
    raise AssertionError(kind)


def df_of_value(kind, y, a, b, c):
    """f' with y put for f in it, where that leaves no x."""
    if kind is T.SIGMOID:
        return y * (1 - y)
    if kind is T.TANH:
        return a * b * np.maximum(1 - (y / a) ** 2, 0)  # y may be rounded beyond a
    if kind is T.EXPONENTIAL:
        return a * y * (1 if c == -1 else np.log(c))
    raise AssertionError(kind)


class Gradient(NamedTuple):
    data: np.ndarray
    bias: np.ndarray
    a: np.ndarray


def _argument(x, neuron, bias, alpha):
    as64 = lambda v: np.asarray(v, np.float64)  # noqa: E731
    x = as64(x)
    z = alpha * x + (0 if bias is None else as64(bias))
    # Parameters enter the kernels in float32, or in float64 for a float64 x.
    return z, (as64(neuron.a), as64(neuron.b), as64(neuron.c))


def neuron(x, neuron: Neuron, bias=None, alpha=1.0):
    """y in float64."""
    z, parameters = _argument(x, neuron, bias, alpha)
    return f(neuron.type, z, *parameters)


def neuron_gradient(gradient, x, neuron: Neuron, bias=None, alpha=1.0):
    """The three gradients in float64, wanted or not."""
    z, parameters = _argument(x, neuron, bias, alpha)
    gradient = np.asarray(gradient, np.float64)
    return _gradient(gradient, z, df(neuron.type, z, *parameters) * gradient, alpha)


def neuron_gradient_of_value(gradient, y, neuron: Neuron, alpha=1.0):
    """The same from y in place of x."""
    y, *parameters = (np.asarray(v, np.float64) for v in (y, neuron.a, neuron.b, neuron.c))
    gradient = np.asarray(gradient, np.float64)
    return _gradient(gradient, y, df_of_value(neuron.type, y, *parameters) * gradient, alpha)


def _gradient(gradient, z, d, alpha):
    rows = tuple(range(z.ndim - 1))
    return Gradient(alpha * d, d.sum(rows), (gradient * np.where(z < 0, z, 0)).sum(rows))
