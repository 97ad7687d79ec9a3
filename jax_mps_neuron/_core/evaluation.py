"""A call of either primitive in plain ``jax.numpy``, on the operands that `signature` describes.

The reference is made of this, the inline route starts from it, and the primitives take their derivatives
from it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from . import formulas
from .signature import Operands, Signature, compute_dtype

__all__ = ["Terms", "evaluate", "gradient_terms", "results_of"]


def evaluate(signature: Signature, *operands: Array) -> list[Array]:
    """The results of a call."""
    named = signature.named(operands)
    if signature.forward:
        z, _, parameters = _argument(signature, named)
        results = [formulas.value(signature.neuron_type, z, *parameters).astype(named.x.dtype)]
    else:
        terms = gradient_terms(signature, named)
        results = results_of(signature, named, terms, terms)
    return signature.broadcast(results, operands)


class Terms(NamedTuple):
    """What each element contributes to the results, shape [*B, *R, C].

    Attributes:
      data: its data gradient, alpha f'(z) gradient.
      bias: its share of the bias gradient, f'(z) gradient.
      slope: its share of the slope gradient; None without one.
    """

    data: Array
    bias: Array
    slope: Array | None


def gradient_terms(
    signature: Signature, named: Operands, *, coarse: bool = False, gradient_first: bool = False
) -> Terms:
    """The terms of a gradient call.

    Args:
      signature: the call.
      named: its operands.
      coarse: whether f' is needed for 16-bit results only, and never differentiated.
      gradient_first: makes f' depend on the gradient, so that a compiler reads the gradient before it
        computes f' and waits for memory once.
    """
    z, alpha, parameters = _argument(signature, named)
    g = named.gradient.astype(z.dtype)
    if gradient_first:
        z = jnp.maximum(z, jnp.minimum(g, -jnp.inf))
    if signature.from_y:
        derivative = formulas.derivative_of_value(signature.neuron_type, z, *parameters)
    else:
        derivative = formulas.derivative(signature.neuron_type, z, *parameters, coarse=coarse)
    d = derivative * g
    slope = g * formulas.slope_derivative(z) if signature.slope_gradient else None
    return Terms(alpha * d, d, slope)


def results_of(signature: Signature, named: Operands, for_data: Terms, for_sums: Terms) -> list[Array]:
    """The results of a gradient call from its terms; the sums may have terms of their own."""
    rows = tuple(signature.row_axes(named.x.ndim))
    results = [for_data.data.astype(named.x.dtype)]
    if signature.bias_gradient:
        results.append(jnp.sum(for_sums.bias, rows))
    if for_sums.slope is not None:
        results.append(jnp.sum(for_sums.slope, rows))
    return results


def _argument(signature: Signature, named: Operands) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """z = alpha x + bias (or y, from y), alpha, and (a, b, c), broadcast against x."""
    x, axes = named.x, signature.batch_axes

    def by_entry(v: Array) -> Array:
        """[*B, *rest] with as many axes as x, the rest last."""
        ones = (1,) * (x.ndim - v.ndim)
        return v.reshape(*v.shape[:axes], *ones, *v.shape[axes:])

    alpha, a, b, c = (by_entry(lax.index_in_dim(named.scalars, i, -1, keepdims=False)) for i in range(4))
    z = x.astype(compute_dtype(x))
    if not signature.from_y:
        z = alpha * z
        if named.bias is not None:
            z = z + by_entry(named.bias)
    a = a if named.slope is None else by_entry(named.slope)
    # The parameters may have more batch entries than x.
    shape = jnp.broadcast_shapes(z.shape, alpha.shape, a.shape)
    return jnp.broadcast_to(z, shape), alpha, (a, b, c)
