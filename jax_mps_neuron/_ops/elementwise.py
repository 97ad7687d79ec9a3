"""What `nn`'s functions are made of: a neuron in `jax.nn`'s dtypes, differentiable in both modes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero
from jax.typing import ArrayLike

from .._compat.avals import vary_together
from .._core.arguments import DTYPES, Arguments, gather, operands_of, prepare, signature_of
from .._core.descriptor import FROM_Y, Neuron, NeuronType
from .._core.evaluation import evaluate
from .._core.signature import Signature, compute_dtype
from .._lowering.routes import resolve
from .dispatch import dispatch
from .primitives import bind

__all__ = ["activate", "fixed", "supported"]


def activate(
    x: ArrayLike,
    neuron: Neuron,
    fallback: Callable[[Any], Array],
    *,
    left_at_zero: bool = False,
    value: Callable[[Array], Array] | None = None,
) -> Array:
    """The neuron of x, or `fallback` of x where no neuron covers the dtypes and shapes.

    Args:
      x: array of any shape.
      neuron: the neuron; a may be an array.
      fallback: `jax.nn`'s function.
      left_at_zero: whether the derivative at 0 is that of the left branch.
      value: computes y in place of a call; the gradient then reads y in place of x.
    """
    array = _promoted(x, neuron)
    if array is None:
        return fallback(x)
    static = _static(neuron.type, array, left_at_zero, value)
    y: Array = dispatch(_jitted(static), gather(array, neuron, None, 1.0))
    return y


def fixed(
    neuron: Neuron,
    fallback: Callable[[Any], Array],
    *,
    left_at_zero: bool = False,
    value: Callable[[Array], Array] | None = None,
) -> Callable[[ArrayLike], Array]:
    """`activate` as a function of x, for a neuron whose parameters are constants of the compiled program.

    An eager call of it transfers no parameters.
    """

    @cache
    def jitted(static: _Static) -> Any:
        def activation(x: Array) -> Array:
            return _activate(static, *vary_together(prepare(neuron.type, gather(x, neuron, None, 1.0))))

        return jax.jit(activation, inline=True)

    def call(x: ArrayLike) -> Array:
        array = supported(x)
        if array is None:
            return fallback(x)
        y: Array = jitted(_static(neuron.type, array, left_at_zero, value))(array)
        return y

    return call


def supported(x: Any) -> Array | None:
    """x as an array if the kernels support its dtype, else None."""
    if not isinstance(x, (jax.Array, np.ndarray, np.generic, float)) and not hasattr(x, "__jax_array__"):
        return None
    array = x if isinstance(x, jax.Array) else jnp.asarray(x)
    return array if array.dtype in DTYPES else None


def _promoted(x: Any, neuron: Neuron) -> Array | None:
    """x in the dtype to which it and the parameter a promote; None where no neuron covers the two."""
    array = supported(x)
    # A bool and NumPy's numbers promote x, a Python number does not.
    if array is None or neuron.a is None or type(neuron.a) in (int, float):
        return array
    a = jnp.asarray(neuron.a)
    per_channel = neuron.type is NeuronType.PRELU
    real = jnp.issubdtype(a.dtype, jnp.floating) or jnp.issubdtype(a.dtype, jnp.integer)
    if not (per_channel or a.shape == ()) or not real or (per_channel and a.dtype not in DTYPES):
        return None
    if not (array.weak_type and (a.weak_type or jnp.issubdtype(a.dtype, jnp.integer))):
        array = array.astype(jnp.result_type(array, a))
    return supported(array)


class _Static(NamedTuple):
    """The static configuration of `activate`; reads_y: whether the gradient reads y in place of x."""

    neuron_type: NeuronType
    lowering: str
    left_at_zero: bool
    value: Callable[[Array], Array] | None
    reads_y: bool


def _static(
    neuron_type: NeuronType, x: Array, left_at_zero: bool, value: Callable[[Array], Array] | None
) -> _Static:
    # From y, as jax.nn does. A 16-bit y is too coarse for that, and the memory is the same.
    from_y = neuron_type in FROM_Y and x.dtype.itemsize > 2
    return _Static(neuron_type, resolve(None), left_at_zero, value, value is not None or from_y)


@cache
def _jitted(static: _Static) -> Any:
    def activation(given: Arguments) -> Array:
        return _activate(static, *vary_together(prepare(static.neuron_type, given)))

    return jax.jit(activation, inline=True)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _activate(static: _Static, *arguments: Any) -> Array:
    o = Arguments(*arguments)
    if static.value is not None:
        return static.value(o.x)
    signature = signature_of(static.neuron_type, o, forward=True)
    (y,) = bind(signature, operands_of(o), lowering=static.lowering)
    return y


def _activate_jvp(
    static: _Static, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Array, Any]:
    o, moves = Arguments(*primals), Arguments(*tangents)
    y = _activate(static, *primals)
    tangent = None
    if not isinstance(moves.x, SymbolicZero):
        tangent = _data(static, o._replace(x=y) if static.reads_y else o, moves.x)
    name = "a" if o.slope is None else "slope"
    move = getattr(moves, name)
    if move is not None and not isinstance(move, SymbolicZero):
        signature = signature_of(static.neuron_type, o, forward=True)

        def of_parameter(value: Array) -> Array:
            at = o._replace(x=o.x.astype(compute_dtype(o.x)), **{name: value})
            return evaluate(signature, *signature.ordered(operands_of(at)))[0]

        _, moved = jax.jvp(of_parameter, [getattr(o, name)], [move])
        tangent = moved.astype(y.dtype) if tangent is None else tangent + moved.astype(y.dtype)
    return y, jnp.zeros_like(y) if tangent is None else tangent


_activate.defjvp(_activate_jvp, symbolic_zeros=True)


def _data(static: _Static, o: Arguments, gradient: Array) -> Array:
    """f'(x) * gradient: the tangent of f along `gradient`, and also its cotangent."""
    x, bias = o.x, None
    if static.left_at_zero:
        # A bias of the smallest normal number moves 0 to the left of the kink, and moves no other number
        # across it. With one channel, the bias costs nothing however many channels x has.
        x, gradient = x.reshape(*x.shape, 1), gradient.reshape(*x.shape, 1)
        dtype = compute_dtype(x)
        bias = jnp.full(1, -jnp.finfo(dtype).tiny, dtype)
    from_y = static.reads_y and static.neuron_type in FROM_Y
    signature = Signature(static.neuron_type, bias=bias is not None, from_y=from_y)
    operands = operands_of(o._replace(x=x, bias=bias), gradient)
    (data,) = bind(signature, operands, lowering=static.lowering)
    return data.reshape(o.x.shape)
