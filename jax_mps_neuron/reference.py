"""The neuron and its gradient in pure ``jax.numpy``: no custom call, differentiable in either mode.

`neuron` and `neuron_gradient` here take and return what their namesakes in ``jax_mps_neuron`` do. They are
what those run where no kernel can, and what the kernels are tested against.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike

from . import formulas
from .descriptor import Neuron, NeuronType
from .operands import as_scalars, compute_dtype, prepare, prepare_gradient

__all__ = ["NeuronGradient", "neuron", "neuron_gradient"]


class NeuronGradient(NamedTuple):
    """Gradients of a neuron.

    Attributes:
      data: with respect to x; its shape and dtype.
      bias: with respect to the bias, shape [channels], its dtype; None without a bias.
      a: with respect to PReLU's slopes, shape [channels], their dtype; None for other types.
    """

    data: Array
    bias: Array | None
    a: Array | None


def neuron(x: ArrayLike, neuron: Neuron, bias: ArrayLike | None = None, *, alpha: ArrayLike = 1.0) -> Array:
    """y = f(alpha * x + bias); see `jax_mps_neuron.neuron`."""
    kind, operands = prepare(x, neuron, bias, alpha)
    return forward(operands.x, as_scalars(operands), operands.bias, operands.slope, kind=kind)


def neuron_gradient(
    gradient: ArrayLike,
    x: ArrayLike,
    neuron: Neuron,
    bias: ArrayLike | None = None,
    *,
    alpha: ArrayLike = 1.0,
) -> NeuronGradient:
    """The gradient as a function; see `jax_mps_neuron.neuron_gradient`."""
    kind, gradient, operands = prepare_gradient(gradient, x, neuron, bias, alpha)
    results = backward(
        gradient,
        operands.x,
        as_scalars(operands),
        operands.bias,
        operands.slope,
        kind=kind,
        bias_gradient=bias is not None,
        slope_gradient=operands.slope is not None,
    )
    return as_neuron_gradient(results, x, neuron, bias)


def as_neuron_gradient(
    results: tuple[Array, ...], x: ArrayLike, neuron: Neuron, bias: ArrayLike | None
) -> NeuronGradient:
    """The results of `backward` in the dtypes of what they are gradients of."""
    data, *sums = results
    of_bias = sums.pop(0).astype(jnp.asarray(bias).dtype) if bias is not None else None
    of_slope = sums.pop(0).astype(jnp.asarray(neuron.a).dtype) if sums else None
    return NeuronGradient(data.astype(jnp.asarray(x).dtype), of_bias, of_slope)


# The types whose f' takes a GPU about as long as reading 16-bit arrays.
_COSTLY = frozenset(
    (
        NeuronType.SIGMOID,
        NeuronType.TANH,
        NeuronType.SOFTPLUS,
        NeuronType.ELU,
        NeuronType.POWER,
        NeuronType.EXPONENTIAL,
        NeuronType.GELU,
    )
)

# The functions of the two primitives, on operands in the primitives' shapes (primitives.py): the first
# `matrix_axes` axes of each operand number matrices, and broadcast against each other.


def forward(
    x: Array,
    scalars: Array,
    bias: Array | None,
    slope: Array | None,
    *,
    kind: NeuronType,
    matrix_axes: int = 0,
) -> Array:
    """What `neuron_p` computes."""
    z, _, parameters = _argument(x, scalars, bias, slope, matrix_axes)
    return formulas.value(kind, z, *parameters).astype(x.dtype)


def backward(
    gradient: Array,
    x: Array,
    scalars: Array,
    bias: Array | None,
    slope: Array | None,
    *,
    kind: NeuronType,
    bias_gradient: bool,
    slope_gradient: bool,
    matrix_axes: int = 0,
    from_y: bool = False,
    for_gpu: bool = False,
) -> tuple[Array, ...]:
    """What `neuron_gradient_p` computes.

    from_y: x is y = f(z), of which f' is computed.
    for_gpu: in the form of which XLA makes a fast GPU kernel.
    """
    rows = tuple(range(matrix_axes, x.ndim - 1))
    reads_x = kind not in (NeuronType.NONE, NeuronType.LINEAR)
    # With 16 bits an element, the same arithmetic has to fit in the time of half the bytes.
    coarse = for_gpu and x.dtype.itemsize == 2
    apart = for_gpu and (bias_gradient or slope_gradient) and (kind in _COSTLY if coarse else reads_x)
    tied = apart and coarse

    def slopes(gradient: Array, x: Array) -> tuple[Array, Array, Array, Array]:
        z, alpha, parameters = _argument(x, scalars, bias, slope, matrix_axes, from_y=from_y)
        g = gradient.astype(z.dtype)
        if tied:
            # z, but needing g: the compiler would read g only after computing f', and wait once more.
            z = jnp.maximum(z, jnp.minimum(g, -jnp.inf))
        if from_y:
            return z, g, alpha, formulas.derivative_of_value(kind, z, *parameters) * g
        return z, g, alpha, formulas.derivative(kind, z, *parameters, coarse=coarse) * g

    z, g, alpha, d = slopes(gradient, x)
    results = [(alpha * d).astype(x.dtype)]
    if apart:
        # Once more for the sums: of what both need, XLA often writes a part to memory and reads it back. In
        # this form it makes one kernel of both, in which its compiler finds what is the same. Cheap types
        # in 16 bits are one kernel anyway, and in this form some take more registers.
        z, g, _, d = slopes(*lax.optimization_barrier((gradient, x)))
    if bias_gradient:
        results.append(jnp.sum(d, rows))
    if slope_gradient:
        results.append(jnp.sum(g * formulas.slope_derivative(z), rows))
    return tuple(results)


def _argument(
    x: Array,
    scalars: Array,
    bias: Array | None,
    slope: Array | None,
    matrix_axes: int,
    *,
    from_y: bool = False,
) -> tuple[Array, Array, tuple[Array, Array, Array]]:
    """z (or x, from y), alpha and (a, b, c), broadcast against x: [*matrices, ..., channels]."""

    def by_matrix(v: Array) -> Array:
        """[*matrices, *rest] with as many axes as x, the rest last."""
        ones = (1,) * (x.ndim - v.ndim)
        return v.reshape(*v.shape[:matrix_axes], *ones, *v.shape[matrix_axes:])

    alpha, a, b, c = (by_matrix(lax.index_in_dim(scalars, i, -1, keepdims=False)) for i in range(4))
    z = x.astype(compute_dtype(x))
    if not from_y:
        z = alpha * z
        if bias is not None:
            z = z + by_matrix(bias)
    a = a if slope is None else by_matrix(slope)
    shape = jnp.broadcast_shapes(z.shape, alpha.shape, a.shape)  # more matrices of parameters than of x
    return jnp.broadcast_to(z, shape), alpha, (a, b, c)
