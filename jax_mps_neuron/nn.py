"""`jax.nn`'s activations, with a neuron's gradient: ``from jax_mps_neuron import nn``.

Each function has the signature, the defaults, the dtype rules (weak types too) and the edge values of
its namesake in `jax.nn`, and works in reverse and forward mode, each of which is one neuron-gradient
call where a kernel can run. At a bend, where Apple takes the right-hand branch, these take the slope that
`jax.nn` takes. What no neuron type covers is passed on to `jax.nn`: integers, complex numbers and other
dtypes than float32, float16, bfloat16 and float64, parameters that are no scalars (but `leaky_relu`'s slope
for each channel), and the approximate `gelu`.

In a float16 or bfloat16 x everything is computed in float32, and rounded once. Bias, alpha, learned
slopes with a fused gradient, and routes are arguments of `jax_mps_neuron.neuron`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from . import primitives, reference
from .descriptor import FROM_Y, Neuron, NeuronType
from .lowering import resolve
from .operands import DTYPES, Operands, as_scalars, compute_dtype, prepare, require_array

__all__ = [
    "elu",
    "gelu",
    "hard_sigmoid",
    "identity",
    "leaky_relu",
    "log_sigmoid",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "soft_sign",
    "softplus",
    "tanh",
]


def identity(x: ArrayLike) -> Array:
    """x itself, as an array; `Neuron.none()` without a call.

    Args:
      x: array of any shape and dtype.
    """
    require_array("x", x)
    return jnp.asarray(x)


def relu(x: ArrayLike) -> Array:
    """max(x, 0); `Neuron.relu()`, and slope 0 at 0.

    Only the gradient is a call, which reads the result in place of x: the next layer keeps that anyway.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape and dtype.
    """
    return _neuron(x, Neuron.relu(), jax.nn.relu, left=True, own_value=True)


def relu6(x: ArrayLike) -> Array:
    """min(max(x, 0), 6); `Neuron.relun(0, 6)`, and slope 0 at 0 and at 6.

    Only the gradient is a call, which reads the result in place of x: the next layer keeps that anyway.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape; integers give floats.
    """
    return _neuron(x, Neuron.relun(0.0, 6.0), jax.nn.relu6, left=True, own_value=True)


def leaky_relu(x: ArrayLike, negative_slope: ArrayLike = 1e-2) -> Array:
    """x where x >= 0, negative_slope * x below; `Neuron.relu(negative_slope)`.

    For learned slopes, one for each channel, `jax_mps_neuron.neuron` with `Neuron.prelu` computes the
    gradients of x and of the slopes in one pass.

    Args:
      x: array of any shape.
      negative_slope: a scalar, a slope for each element of x's last axis (`Neuron.prelu`), or any array
        that broadcasts with x (`jax.nn`'s own).

    Returns:
      An array in the type to which x and negative_slope promote.
    """
    own = partial(jax.nn.leaky_relu, negative_slope=negative_slope)
    if _is_none(negative_slope):
        return own(x)
    slopes = jnp.shape(negative_slope)
    per_channel = len(slopes) == 1 and slopes == jnp.shape(x)[-1:]
    make = Neuron.prelu if per_channel else Neuron.relu
    return _neuron(x, make(negative_slope), own)


def elu(x: ArrayLike, alpha: ArrayLike = 1.0) -> Array:
    """x where x > 0, alpha (e^x - 1) below; `Neuron.elu(alpha)`, and slope alpha at 0.

    Args:
      x: array of any shape.
      alpha: a scalar, or any array that broadcasts with x (`jax.nn`'s own).

    Returns:
      An array in the type to which x and alpha promote.
    """
    own = partial(jax.nn.elu, alpha=alpha)
    if _is_none(alpha):
        return own(x)
    # With alpha 1 both branches have one slope at 0.
    bends = type(alpha) not in (int, float) or alpha != 1
    return _neuron(x, Neuron.elu(alpha), own, left=bool(bends))


def selu(x: ArrayLike) -> Array:
    """1.0507... * elu(x, 1.6732...), the scaled exponential linear unit.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape; integers give floats.
    """
    if _covered(x) is None:
        return jax.nn.selu(x)
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


def softplus(x: ArrayLike) -> Array:
    """log(1 + e^x); `Neuron.softplus()`.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape; integers give floats.
    """
    return _neuron(x, Neuron.softplus(), jax.nn.softplus)


def log_sigmoid(x: ArrayLike) -> Array:
    """log(sigmoid(x)) = -log(1 + e^-x); `Neuron.softplus(-1, -1)`.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape; integers give floats.
    """
    return _neuron(x, Neuron.softplus(-1.0, -1.0), jax.nn.log_sigmoid)


def sigmoid(x: ArrayLike) -> Array:
    """1 / (1 + e^-x); `Neuron.sigmoid()`.

    In float32 and float64 the gradient reads the result in place of x: the next layer keeps that anyway.

    Args:
      x: array of any shape, not of integers.

    Returns:
      An array of x's shape and dtype.
    """
    return _neuron(x, Neuron.sigmoid(), jax.nn.sigmoid)


def hard_sigmoid(x: ArrayLike) -> Array:
    """relu6(x + 3) / 6, as x / 6 + 1/2 clamped; `Neuron.hard_sigmoid(1/6, 1/2)`, and slope 0 at -3 and 3.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape; integers give floats.
    """
    array = _covered(x)
    if array is None:
        return jax.nn.hard_sigmoid(x)
    # Apple's slope is a up to both bends, where a z is 1/2 and -1/2: with an a that is larger by its last
    # bit, 3 a and -3 a are beyond them, and what lies between is not. In float64 that takes two.
    a = compute_dtype(array).type(1 / 6)
    for _ in range(1 if a.dtype == np.float32 else 2):
        a = np.nextafter(a, a.dtype.type(1))
    return _neuron(array, Neuron.hard_sigmoid(float(a), 0.5), jax.nn.hard_sigmoid)


def soft_sign(x: ArrayLike) -> Array:
    """x / (abs(x) + 1); `Neuron.softsign()`.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape; integers give floats.
    """
    return _neuron(x, Neuron.softsign(), jax.nn.soft_sign)


def tanh(x: ArrayLike, /) -> Array:
    """The hyperbolic tangent, `jax.numpy.tanh`; `Neuron.tanh()`.

    In float32 and float64 the gradient reads the result in place of x: the next layer keeps that anyway.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape; integers give floats.
    """
    return _neuron(x, Neuron.tanh(), jax.nn.tanh)


def gelu(x: ArrayLike, approximate: bool = True) -> Array:
    """x Phi(x), with the normal distribution function Phi; `Neuron.gelu()` with ``approximate=False``.

    The default is that of `jax.nn`, the approximation by tanh, which is no neuron type: it is
    `jax.nn.gelu` itself, without a call. The two differ by up to 5e-4, so a twin with another default
    would change numbers where a name was replaced. **Pass ``approximate=False`` for the kernel.**

    Args:
      x: array of any shape.
      approximate: whether to use the approximation.

    Returns:
      An array of x's shape; integers give floats.
    """
    own = partial(jax.nn.gelu, approximate=approximate)
    array = _covered(x)
    if approximate or array is None:
        return own(x)
    return _neuron(array.astype(array.dtype), Neuron.gelu(), own)  # never weakly typed


def _is_none(parameter: Any) -> bool:
    """Whether a parameter is None, which is an error of jax.nn's, and of a `Neuron` the default."""
    return parameter is None


def _covered(x: Any) -> Array | None:
    """x as an array if it is one in a dtype of the kernels, otherwise None."""
    if not isinstance(x, (jax.Array, np.ndarray, np.generic, float)) and not hasattr(x, "__jax_array__"):
        return None
    array = jnp.asarray(x)
    return array if array.dtype in DTYPES else None


def _promoted(x: Any, neuron: Neuron) -> Array | None:
    """x in the dtype that it and the parameter a promote to; None where no neuron covers the two."""
    array = _covered(x)
    if array is None or type(neuron.a) in (int, float):  # not bool, nor NumPy's, which promote
        return array
    a = jnp.asarray(neuron.a)
    per_channel = neuron.type is NeuronType.PRELU
    real = jnp.issubdtype(a.dtype, jnp.floating) or jnp.issubdtype(a.dtype, jnp.integer)
    if not (per_channel or a.shape == ()) or not real or (per_channel and a.dtype not in DTYPES):
        return None
    if not (array.weak_type and a.weak_type):
        array = array.astype(jnp.result_type(array, a))
    return _covered(array)


class _Static(NamedTuple):
    """What a twin is besides its operands.

    Attributes:
      kind: the neuron type.
      lowering: as in `neuron`.
      left: whether the slope at 0 is that of the left-hand branch.
      value: what computes the value in place of the call; the gradient then reads the value in place of x.
      reads_y: whether the gradient reads y.
    """

    kind: NeuronType
    lowering: str
    left: bool
    value: Callable[[Array], Array] | None
    reads_y: bool


def _neuron(
    x: ArrayLike,
    neuron: Neuron,
    own: Callable[[Any], Array],
    *,
    left: bool = False,
    own_value: bool = False,
) -> Array:
    """The neuron of x, or `own`, jax.nn's function, of what no neuron covers."""
    array = _promoted(x, neuron)
    if array is None:
        return own(x)
    kind, operands = prepare(array, neuron, None, 1.0)
    # As jax.nn does. With 16 bits y is too coarse for that, and nothing is gained: docs/performance.md.
    from_y = kind in FROM_Y and array.dtype.itemsize > 2
    static = _Static(kind, resolve(None), left, own if own_value else None, own_value or from_y)
    return _activate(static, *operands)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _activate(static: _Static, *operands: Any) -> Array:
    o = Operands(*operands)
    if static.value is not None:
        return static.value(o.x)
    return primitives.neuron(o.x, as_scalars(o), None, o.slope, kind=static.kind, lowering=static.lowering)


def _activate_jvp(
    static: _Static, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Array, Any]:
    o, moves = Operands(*primals), Operands(*tangents)
    y = _activate(static, *primals)
    tangent = None
    if not isinstance(moves.x, SymbolicZero):
        tangent = _data(static, o._replace(x=y) if static.reads_y else o, moves.x)
    parameter = "a" if o.slope is None else "slope"
    if not isinstance(getattr(moves, parameter), SymbolicZero):

        def of_parameter(value: Array) -> Array:
            at = o._replace(x=o.x.astype(compute_dtype(o.x)), **{parameter: value})
            return reference.forward(at.x, as_scalars(at), None, at.slope, kind=static.kind)

        _, moved = jax.jvp(of_parameter, [getattr(o, parameter)], [getattr(moves, parameter)])
        tangent = moved.astype(y.dtype) if tangent is None else tangent + moved.astype(y.dtype)
    return y, jnp.zeros_like(y) if tangent is None else tangent


_activate.defjvp(_activate_jvp, symbolic_zeros=True)


def _data(static: _Static, o: Operands, gradient: Array) -> Array:
    """f'(x) * gradient, which is the tangent of f in the direction `gradient` as well as its cotangent."""
    x, bias = o.x, None
    if static.left:
        # A bias as small as the smallest normal number moves 0 to the left of the bend, and no other
        # across it. For one channel: then it costs nothing, however many x has.
        x, gradient = x.reshape(*x.shape, 1), gradient.reshape(*x.shape, 1)
        dtype = compute_dtype(x)
        bias = jnp.full(1, -jnp.finfo(dtype).tiny, dtype)
    (data,) = primitives.neuron_gradient(
        gradient,
        x,
        as_scalars(o),
        bias,
        o.slope,
        kind=static.kind,
        bias_gradient=False,
        slope_gradient=False,
        from_y=static.reads_y and static.kind in FROM_Y,
        lowering=static.lowering,
    )
    return data.reshape(o.x.shape)
