"""`NeuronGradient`, and how it is made of the results of a gradient call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from .arguments import Arguments

__all__ = ["NeuronGradient", "as_neuron_gradient"]


class NeuronGradient(NamedTuple):
    """Gradients of a neuron.

    Attributes:
      data: with respect to x, in its shape and dtype.
      bias: with respect to the bias, shape [channels], in its dtype; None without a bias.
      a: with respect to PReLU's slopes, in their shape and dtype; None for other types.
    """

    data: Array
    bias: Array | None
    a: Array | None


def as_neuron_gradient(results: Sequence[Any], given: Arguments) -> NeuronGradient:
    """The results of a gradient call, each in the shape and dtype of the argument that it belongs to."""
    data, *sums = results
    of_bias = None if given.bias is None else _like(sums.pop(0), given.bias)
    of_slope = None if given.slope is None else _like(sums.pop(0), given.slope)
    return NeuronGradient(_like(data, given.x), of_bias, of_slope)


def _like(value: Array, like: Any) -> Array:
    if jnp.size(like) == 1 and value.size != 1:
        value = value.sum(keepdims=True)  # one slope is shared by all channels
    return value.reshape(jnp.shape(like)).astype(jnp.result_type(like), copy=False)
