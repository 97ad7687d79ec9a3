"""Checks what users pass and puts it in the form that the primitives take."""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .descriptor import Neuron, NeuronType

__all__ = [
    "DTYPES",
    "Operands",
    "as_scalars",
    "compute_dtype",
    "floating",
    "prepare",
    "prepare_gradient",
    "require_array",
    "require_neuron",
    "scalar",
]

DTYPES = tuple(jnp.dtype(t) for t in (jnp.float32, jnp.float16, jnp.bfloat16, jnp.float64))
_DTYPE_NAMES = "float32, float16, bfloat16 or float64"


class Operands(NamedTuple):
    """Checked operands. All but `x` are in the type that x is computed in: float32 or float64."""

    x: Array
    bias: Array | None
    slope: Array | None
    alpha: Array
    a: Array
    b: Array
    c: Array


def compute_dtype(x: Array) -> np.dtype[Any]:
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


def prepare(
    x: ArrayLike, neuron: Neuron, bias: ArrayLike | None, alpha: ArrayLike
) -> tuple[NeuronType, Operands]:
    """Checks the arguments of `neuron`; see there for what is raised."""
    require_neuron(neuron)
    x = floating("x", x)
    dtype = compute_dtype(x)
    bias = None if bias is None else _channels("bias", bias, x).astype(dtype)
    slope, a = None, neuron.a
    if neuron.type is NeuronType.PRELU:
        if a is None:
            raise ValueError(
                "neuron is a PRELU without slopes; its parameter a may be an array of shape [channels]"
            )
        slope, a = _channels("a (PRELU's slopes)", a, x).astype(dtype), 0.0
    scalars = (
        scalar(name, value, neuron.type, dtype)
        for name, value in (("alpha", alpha), ("a", a), ("b", neuron.b), ("c", neuron.c))
    )
    return neuron.type, Operands(x, bias, slope, *scalars)


def prepare_gradient(
    gradient: ArrayLike, x: ArrayLike, neuron: Neuron, bias: ArrayLike | None, alpha: ArrayLike
) -> tuple[NeuronType, Array, Operands]:
    """Checks the arguments of `neuron_gradient`: the type, the gradient, the rest.

    Gradient and x of different dtypes both come back in the one that holds both.
    """
    kind, operands = prepare(x, neuron, bias, alpha)
    gradient = floating("gradient", gradient)
    if gradient.shape != operands.x.shape:
        raise ValueError(f"gradient has shape {gradient.shape}; it may be x's, {operands.x.shape}")
    if gradient.dtype != operands.x.dtype:
        wide = jnp.promote_types(gradient.dtype, operands.x.dtype)
        kind, operands = prepare(operands.x.astype(wide), neuron, bias, alpha)
        gradient = gradient.astype(wide)
    return kind, gradient, operands


def as_scalars(operands: Operands) -> Array:
    """alpha, a, b, c as one array of shape [4]."""
    scalars = (operands.alpha, operands.a, operands.b, operands.c)
    # Plain numbers become one constant; stacking them with jnp would be four operations.
    numpy = all(isinstance(s, (np.ndarray, np.generic)) for s in scalars)
    return jnp.asarray(np.stack(scalars)) if numpy else jnp.stack(scalars)


def require_neuron(neuron: Any) -> None:
    """Raises unless a value is a Neuron."""
    if not isinstance(neuron, Neuron):
        raise TypeError(
            f"neuron is {neuron!r}; it may be a jax_mps_neuron.Neuron, such as Neuron.gelu() or "
            f"Neuron(NeuronType.GELU)"
        )


def require_array(name: str, value: Any) -> None:
    """Raises unless a value is an array or a number."""
    arrays = (jax.Array, np.ndarray, np.generic, numbers.Number)
    if not isinstance(value, arrays) and not hasattr(value, "__jax_array__"):
        raise TypeError(f"{name} is {value!r}; it may be an array (jnp.asarray makes one) or a number")


def _as_array(name: str, value: Any) -> Array:
    require_array(name, value)
    return jnp.asarray(value)


def floating(name: str, value: Any) -> Array:
    """A value as an array; raises unless it is one of a dtype that we compute in."""
    array = _as_array(name, value)
    if array.dtype not in DTYPES:
        raise TypeError(f"{name} has dtype {array.dtype}; it may be {_DTYPE_NAMES}")
    return array


def _channels(name: str, value: Any, x: Array) -> Array:
    array = floating(name, value)
    if x.ndim == 0:
        may_be = f"{name} may be None" if name == "bias" else "x may have shape [..., channels]"
        raise ValueError(f"x is a scalar, which has no channels; {may_be}")
    if array.shape != x.shape[-1:]:
        raise ValueError(
            f"{name} has shape {array.shape}, but x has {x.shape[-1]} channels (its last axis); "
            f"it may have shape {x.shape[-1:]}"
        )
    return array


def scalar(name: str, value: Any, kind: NeuronType, dtype: np.dtype[Any]) -> Array:
    """alpha or a parameter of that type in a dtype; raises unless it is one real number."""
    array: Any
    if isinstance(value, int) and not isinstance(value, np.generic):
        value = float(value)  # also one of more than 64 bits
    if isinstance(value, (numbers.Real, np.generic)) and not isinstance(value, complex):
        array = np.asarray(value)
    else:
        array = _as_array(name, value)
    if array.shape != ():
        hint = "" if name == "alpha" else f" ({kind.name} has no parameter for each channel)"
        raise ValueError(f"{name} has shape {array.shape}; it may be a scalar{hint}")
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(f"{name} has dtype {array.dtype}; it may be a real number")
    with np.errstate(over="ignore"):  # to infinity, as everywhere
        cast: Array = array.astype(dtype)
    return cast
