"""`fully_connected`, a dense layer with a neuron."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from .._core.arguments import channels_of, floating
from .._core.descriptor import Neuron, NeuronType, require_neuron
from .activation import neuron as activate

__all__ = ["fully_connected"]


def fully_connected(
    x: ArrayLike,
    weights: ArrayLike,
    neuron: Neuron,
    bias: ArrayLike | None = None,
    alpha: ArrayLike = 1.0,
    *,
    lowering: str | None = None,
    residual: str = "x",
) -> Array:
    r"""A dense layer :math:`y = f(\alpha x W + \mathrm{bias})`, as MPSMatrixFullyConnected defines it.

    The backward pass is one neuron-gradient call, for the product, bias and slopes together, and two matrix
    products, for x and weights. Between the passes the layer keeps x, the weights, and the product x W or
    y: no other array of y's size.

    Args:
      x: shape [..., channels], of any rank from 1; float32, float16, bfloat16 or float64.
      weights: shape [channels, outputs], of any of these dtypes. The product is made in the dtype that
        holds both, and rounded to it, as by `jnp.matmul`, whose precision is that of
        `jax.default_matmul_precision`; what follows is computed in float32 at least.
      neuron: the type f and its parameters; PReLU's slopes have shape [outputs].
      bias: shape [outputs], or None.
      alpha: a real scalar.
      lowering: that of the neuron; None for the default.
      residual: "x", which is here the product, or "y", as in `neuron`.

    Returns:
      y, shape [..., outputs], in x's dtype. Each gradient has the shape and dtype of its argument.

    Raises:
      TypeError: x, weights, bias or slopes do not have a floating dtype, a parameter is not real, or neuron
        is not a `Neuron`.
      ValueError: weights is not a matrix with one row per channel of x, bias or slopes do not match its
        columns, a PReLU has no slopes, a parameter is not a scalar, the lowering is unknown, or the neuron
        type does not support the residual.
    """
    require_neuron(neuron)
    x, w = floating("x", x), floating("weights", weights)
    if w.ndim != 2:
        raise ValueError(f"weights must have shape [channels, outputs], got {w.shape}")
    if channels_of(x, "weights") != w.shape[0]:
        raise ValueError(f"weights must have {x.shape[-1]} rows to match x's channels, got shape {w.shape}")
    if bias is not None:
        _require_outputs("bias", bias, w)
    one_slope = neuron.a is None or jnp.size(neuron.a) == 1  # shared by all outputs
    if neuron.type is NeuronType.PRELU and not one_slope:
        _require_outputs("a (PReLU's slopes)", neuron.a, w)
    product = jnp.matmul(x, w)
    y = activate(product, neuron, bias, alpha=alpha, lowering=lowering, residual=residual)
    return y.astype(x.dtype)


def _require_outputs(name: str, value: Any, weights: Array) -> None:
    shape = floating(name, value).shape
    if shape != weights.shape[1:]:
        raise ValueError(
            f"{name} must have shape {weights.shape[1:]} to match the columns of weights, got {shape}"
        )
