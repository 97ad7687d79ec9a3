"""Checks the arguments of `neuron` and brings them into the form that the primitives take.

`gather` runs on every call, so it only looks at Python types. `prepare` runs while JAX traces, once for
each signature; it checks shapes and dtypes.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .descriptor import Neuron, NeuronType, default_of, parameters_of, require_neuron
from .signature import Operands, Signature, compute_dtype

__all__ = [
    "DTYPES",
    "Arguments",
    "as_operand",
    "as_scalars",
    "channels_of",
    "floating",
    "gather",
    "on_device",
    "operands_of",
    "plain_numbers",
    "prepare",
    "prepare_gradient",
    "require_array",
    "scalar",
    "signature_of",
    "used_scalars",
]

DTYPES = tuple(jnp.dtype(t) for t in (jnp.float32, jnp.float16, jnp.bfloat16, jnp.float64))
_DTYPE_NAMES = "float32, float16, bfloat16 or float64"
_SCALARS = ("alpha", "a", "b", "c")


class Arguments(NamedTuple):
    """The arguments of `neuron`, None where absent.

    Attributes:
      x: shape [..., channels].
      bias: shape [channels].
      slope: PReLU's slopes, [channels].
      numbers: alpha, a, b, c as one array of shape [4], if all of them are plain numbers.
      alpha, a, b, c: scalars otherwise. If numbers and these are None, alpha is 1 and the parameters are
        the type's defaults, constants of the compiled program.
    """

    x: Any
    bias: Any
    slope: Any
    numbers: Any
    alpha: Any
    a: Any
    b: Any
    c: Any


def gather(x: ArrayLike, neuron: Neuron, bias: ArrayLike | None, alpha: ArrayLike, *more: Any) -> Arguments:
    """The arguments as a jitted function takes them: arrays as they are, plain numbers in one array.

    Args:
      x: as in `neuron`, like the next three.
      neuron: the neuron.
      bias: the bias, or None.
      alpha: the scale of x.
      more: other arrays, such as the gradient, whose dtype x may be promoted to.

    Raises:
      TypeError: neuron is not a `Neuron`, or another argument is neither an array nor a number.
      ValueError: a PReLU has no slopes.
    """
    require_neuron(neuron)
    x = as_operand("x", x)
    if bias is not None:
        bias = as_operand("bias", bias)
    values = {"alpha": alpha} | {name: getattr(neuron, name) for name in parameters_of(neuron.type)}
    slope = None
    if neuron.type is NeuronType.PRELU:
        if neuron.a is None:
            raise ValueError("a must be PReLU's slopes, a scalar or an array of shape [channels], got None")
        slope = as_operand("a", values.pop("a"))
    plain = [_plain_number(name, values[name]) if name in values else 0.0 for name in _SCALARS]
    if plain == _default_numbers(neuron.type) and not _has_negative_zero(plain):
        return Arguments(x, bias, slope, None, None, None, None, None)
    if None not in plain:
        x64: bool = jax.config.jax_enable_x64  # type: ignore[attr-defined]
        wide = x64 and any(getattr(v, "dtype", np.float64) == np.float64 for v in (x, *more))
        with np.errstate(over="ignore"):  # a number beyond the dtype becomes infinity
            packed = np.asarray(plain, np.float64 if wide else np.float32)
        return Arguments(x, bias, slope, packed, None, None, None, None)
    scalars = [
        as_operand(name, values[name]) if number is None else number
        for name, number in zip(_SCALARS, plain, strict=True)
    ]
    return Arguments(x, bias, slope, None, *scalars)


def _has_negative_zero(values: Sequence[float | None]) -> bool:
    return any(value == 0 and math.copysign(1.0, value) < 0 for value in values if value is not None)


@cache
def _default_numbers(neuron_type: NeuronType) -> list[float]:
    """alpha = 1 and a type's default a, b, c; 0 for an unused parameter."""
    return [1.0, *(default_of(neuron_type, name) for name in _SCALARS[1:])]


def plain_numbers(neuron_type: NeuronType, given: Arguments) -> Any:
    """alpha, a, b, c if all of them are plain numbers; else None."""
    return _default_numbers(neuron_type) if given.numbers is given.alpha is None else given.numbers


def _plain_number(name: str, value: Any) -> float | None:
    """A plain real number as a float; None for anything else."""
    if type(value) is float:
        return value
    if value is None:
        raise TypeError(f"{name} must be a real scalar, got None")
    if isinstance(value, (bool, complex, np.bool_, np.complexfloating)):
        return None
    try:
        return float(value) if isinstance(value, numbers.Real) else None
    except OverflowError:  # an integer beyond float64
        return math.inf if value > 0 else -math.inf


def as_operand(name: str, value: Any) -> Any:
    """A value that `jax.jit` takes as one array; raises for anything else."""
    if isinstance(value, jax.Array):  # a tracer too, whose __jax_array__ would add operations
        return value
    require_array(name, value)
    dtype = getattr(value, "dtype", None)
    if isinstance(dtype, np.dtype) and (dtype.kind in "OSUMm" or dtype == np.longdouble != np.float64):
        raise TypeError(f"{name} must have dtype {_DTYPE_NAMES}, got {dtype}")
    return jnp.asarray(value) if hasattr(value, "__jax_array__") else value


def prepare(neuron_type: NeuronType, given: Arguments) -> Arguments:
    """Checks shapes and dtypes, and casts all but x to the dtype that a call on x computes in.

    Raises:
      TypeError: x, bias or slopes have no floating dtype, or a scalar is not real.
      ValueError: bias or slopes do not match x's channels, or a parameter is not a scalar.
    """
    x = floating("x", given.x)
    if x.ndim == 0 and given.slope is not None and given.bias is None and jnp.size(given.slope) == 1:
        x = x.reshape(1)  # a scalar is one channel to a PReLU of one slope
    dtype = compute_dtype(x)
    bias = slope = None
    if given.bias is not None:
        bias = _vector("bias", given.bias, x).astype(dtype)
    if given.slope is not None:
        slope = _slopes(given.slope, x).astype(dtype)
    plain = plain_numbers(neuron_type, given)
    if isinstance(plain, (list, np.ndarray)):
        plain = on_device(np.asarray(plain, dtype))
    if plain is not None:
        return Arguments(x, bias, slope, jnp.asarray(plain, dtype), None, None, None, None)
    scalars = (scalar(name, getattr(given, name), neuron_type, dtype) for name in _SCALARS)
    return Arguments(x, bias, slope, None, *scalars)


def prepare_gradient(neuron_type: NeuronType, gradient: Any, given: Arguments) -> tuple[Array, Arguments]:
    """Checks the arguments of `neuron_gradient`, and promotes gradient and x to one dtype.

    Raises:
      TypeError: as `prepare`.
      ValueError: as `prepare`, and if gradient and x differ in shape.
    """
    gradient, x = floating("gradient", gradient), floating("x", given.x)
    if gradient.shape != x.shape:
        raise ValueError(f"gradient must have x's shape {x.shape}, got {gradient.shape}")
    wide = jnp.promote_types(gradient.dtype, x.dtype)
    if x.dtype != wide:
        x = x.astype(wide)
    prepared = prepare(neuron_type, given._replace(x=x))
    return gradient if gradient.dtype == wide else gradient.astype(wide), prepared


def on_device(constants: Any) -> Array:
    """Constants as an array, also while JAX traces.

    As a residual of an eager gradient, a NumPy array would be transferred in each backward pass.
    """
    with jax.ensure_compile_time_eval():
        array: Array = jax.device_put(constants)
    return array


def as_scalars(arguments: Arguments) -> Array:
    """alpha, a, b, c as one array of shape [4]."""
    scalars: Array | None = arguments.numbers
    if scalars is not None:
        return scalars
    return jnp.stack([arguments.alpha, arguments.a, arguments.b, arguments.c])


def operands_of(arguments: Arguments, gradient: Any = None) -> Operands:
    """The operands of a call on prepared arguments."""
    return Operands(gradient, arguments.x, as_scalars(arguments), arguments.bias, arguments.slope)


def signature_of(neuron_type: NeuronType, arguments: Arguments, *, forward: bool) -> Signature:
    """The signature of y, or of the gradients of x, the bias and the slopes."""
    bias, slope = arguments.bias is not None, arguments.slope is not None
    if forward:
        return Signature(neuron_type, forward=True, bias=bias)
    return Signature(neuron_type, bias=bias, bias_gradient=bias, slope_gradient=slope)


def require_array(name: str, value: Any) -> None:
    """Raises unless a value is an array or a number."""
    if isinstance(value, (jax.Array, np.ndarray, np.generic, int, float, complex)):
        return
    if not hasattr(value, "__jax_array__"):
        raise TypeError(f"{name} must be an array or a number, got {value!r}. jnp.asarray makes an array.")


def floating(name: str, value: Any) -> Array:
    """A value as an array; raises unless it has a dtype that the kernels support."""
    require_array(name, value)
    array = jnp.asarray(value)
    if array.dtype not in DTYPES:
        remedy = f". Convert it: {name}.astype(jnp.float32)." if array.dtype.kind in "iub" else ""
        raise TypeError(f"{name} must have dtype {_DTYPE_NAMES}, got {array.dtype}{remedy}")
    return array


def channels_of(x: Array, other: str) -> int:
    """The channels of x, which may be symbolic; raises if x is a scalar, naming what needs channels."""
    if x.ndim == 0:
        raise ValueError(f"x must have shape [..., channels] with {other}, got a scalar")
    channels: int = x.shape[-1]
    return channels


def _vector(name: str, value: Any, x: Array) -> Array:
    array = floating(name, value)
    channels_of(x, name)
    if array.shape != x.shape[-1:]:
        raise ValueError(f"{name} must have shape {x.shape[-1:]} to match x's channels, got {array.shape}")
    return array


def _slopes(value: Any, x: Array) -> Array:
    """PReLU's slopes, one for each channel; one alone is shared by all channels."""
    array = floating("a", value)
    channels_of(x, "PReLU's slopes")
    if array.shape in ((), (1,)):
        return jnp.broadcast_to(array, x.shape[-1:])
    if array.shape != x.shape[-1:]:
        raise ValueError(
            f"a (PReLU's slopes) must be a scalar or have shape {x.shape[-1:]} to match x's channels, "
            f"got shape {array.shape}"
        )
    return array


def scalar(name: str, value: Any, neuron_type: NeuronType, dtype: np.dtype[Any]) -> Array:
    """alpha or a parameter in a dtype; raises unless it is one real number."""
    number = _plain_number(name, value)
    array: Any = jnp.asarray(value) if number is None else np.asarray(number)
    if array.shape != ():
        hint = "" if name == "alpha" else f": {neuron_type.name} has no parameter for each channel"
        raise ValueError(f"{name} must be a scalar, got shape {array.shape}{hint}")
    if not (jnp.issubdtype(array.dtype, jnp.floating) or jnp.issubdtype(array.dtype, jnp.integer)):
        raise TypeError(f"{name} must be a real number, got dtype {array.dtype}")
    with np.errstate(over="ignore"):  # a number beyond the dtype becomes infinity
        cast: Array = array.astype(dtype)
    return cast


def used_scalars(neuron_type: NeuronType) -> Sequence[str]:
    """alpha and the scalar parameters that a type uses."""
    parameters = parameters_of(neuron_type)
    return "alpha", *(name for name in parameters if neuron_type is not NeuronType.PRELU)
