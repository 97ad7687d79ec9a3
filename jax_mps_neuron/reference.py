"""The neuron and its gradient in plain ``jax.numpy``: no custom call, differentiable in both modes.

`neuron` and `neuron_gradient` here take and return the same as their namesakes in ``jax_mps_neuron``.
Compare with them, or use them where a `jax.custom_vjp` is in the way.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from ._core.arguments import Arguments, as_scalars, gather, prepare, prepare_gradient, require_array
from ._core.descriptor import Neuron, NeuronType
from ._core.evaluation import evaluate
from ._core.results import NeuronGradient, as_neuron_gradient
from ._core.signature import Signature
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
    require_array("gradient", gradient)
    given = gather(x, neuron, bias, alpha)
    results: NeuronGradient = dispatch(_jitted_gradient(neuron.type), given, gradient)
    return results


@cache
def _jitted(neuron_type: NeuronType) -> Any:
    def neuron(given: Arguments) -> Array:
        arguments = prepare(neuron_type, given)
        signature = Signature(neuron_type, forward=True, bias=arguments.bias is not None)
        (y,) = evaluate(signature, *_operands(arguments))
        return y.reshape(jnp.shape(given.x))

    return jax.jit(neuron, inline=True)


@cache
def _jitted_gradient(neuron_type: NeuronType) -> Any:
    def neuron_gradient(given: Arguments, gradient: Any) -> NeuronGradient:
        g, arguments = prepare_gradient(neuron_type, gradient, given)
        bias, slope = arguments.bias is not None, arguments.slope is not None
        signature = Signature(neuron_type, bias=bias, bias_gradient=bias, slope_gradient=slope)
        results = evaluate(signature, g.reshape(arguments.x.shape), *_operands(arguments))
        return as_neuron_gradient(results, given)

    return jax.jit(neuron_gradient, inline=True)


def _operands(arguments: Arguments) -> list[Array]:
    operands = (arguments.x, as_scalars(arguments), arguments.bias, arguments.slope)
    return [operand for operand in operands if operand is not None]
