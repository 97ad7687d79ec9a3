"""The neuron and its gradient in plain ``jax.numpy``: no custom call, differentiable in both modes.

`neuron` and `neuron_gradient` here take and return the same as their namesakes in ``jax_mps_neuron``, but
their results are never weakly typed. Compare with them, or use them where a `jax.custom_vjp` is in the way.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ._core.arguments import (
    Arguments,
    as_operand,
    gather,
    operands_of,
    prepare,
    prepare_gradient,
    signature_of,
)
from ._core.descriptor import Neuron, NeuronType
from ._core.evaluation import evaluate
from ._core.results import NeuronGradient, as_neuron_gradient
from ._ops.dispatch import dispatch

__all__ = ["NeuronGradient", "neuron", "neuron_gradient"]


def neuron(x: ArrayLike, neuron: Neuron, bias: ArrayLike | None = None, *, alpha: ArrayLike = 1.0) -> Array:
    r"""The activation :math:`y = f(\alpha x + \mathrm{bias})`; see `jax_mps_neuron.neuron`.

    Example:
      >>> neuron(jnp.array([-1.0, 0.0, 2.0]), Neuron.relu(0.1))
      Array([-0.1,  0. ,  2. ], dtype=float32)
    """
    given = gather(x, neuron, bias, alpha)
    y: Array = dispatch(_jitted(neuron.type), given)
    return y


def neuron_gradient(
    gradient: ArrayLike,
    x: ArrayLike,
    neuron: Neuron,
    bias: ArrayLike | None = None,
    *,
    alpha: ArrayLike = 1.0,
) -> NeuronGradient:
    """The gradient as a function; see `jax_mps_neuron.neuron_gradient`.

    Example:
      >>> neuron_gradient(jnp.ones(3), jnp.array([-1.0, 0.0, 2.0]), Neuron.relu(0.1)).data
      Array([0.1, 1. , 1. ], dtype=float32)
    """
    gradient = as_operand("gradient", gradient)
    given = gather(x, neuron, bias, alpha, gradient)
    results: NeuronGradient = dispatch(_jitted_gradient(neuron.type), given, gradient)
    return results


@cache
def _jitted(neuron_type: NeuronType) -> Any:
    def neuron(given: Arguments) -> Array:
        arguments = prepare(neuron_type, given)
        signature = signature_of(neuron_type, arguments, forward=True)
        (y,) = evaluate(signature, *signature.ordered(operands_of(arguments)))
        return y.reshape(jnp.shape(given.x))

    return jax.jit(neuron, inline=True)


@cache
def _jitted_gradient(neuron_type: NeuronType) -> Any:
    def neuron_gradient(given: Arguments, gradient: Any) -> NeuronGradient:
        g, arguments = prepare_gradient(neuron_type, gradient, given)
        signature = signature_of(neuron_type, arguments, forward=False)
        operands = operands_of(arguments, g.reshape(arguments.x.shape))
        results = evaluate(signature, *signature.ordered(operands))
        return as_neuron_gradient(results, given)

    return jax.jit(neuron_gradient, inline=True)
