"""The smooth activations."""

from __future__ import annotations

from functools import partial

import jax
import jax.nn
from jax import Array
from jax.typing import ArrayLike

from .._core.descriptor import Neuron
from .._ops.elementwise import fixed, supported

__all__ = ["gelu", "log_sigmoid", "sigmoid", "soft_sign", "softplus", "tanh"]

_GELU = fixed(Neuron.gelu(), partial(jax.nn.gelu, approximate=False))
_LOG_SIGMOID = fixed(Neuron.softplus(-1.0, -1.0), jax.nn.log_sigmoid)
_SIGMOID = fixed(Neuron.sigmoid(), jax.nn.sigmoid)
_SOFTPLUS = fixed(Neuron.softplus(), jax.nn.softplus)
_SOFTSIGN = fixed(Neuron.softsign(), jax.nn.soft_sign)
_TANH = fixed(Neuron.tanh(), jax.nn.tanh)


def sigmoid(x: ArrayLike) -> Array:
    r"""The logistic function, `Neuron.sigmoid()`.

    .. math:: \mathrm{sigmoid}(x) = \frac{1}{1 + e^{-x}}

    In float32 and float64 the gradient reads the result in place of x, because the next layer keeps the
    result anyway.

    Args:
      x: array of any shape; not integers.

    Returns:
      An array of x's shape and dtype.

    Example:
      >>> nn.sigmoid(jnp.array([-jnp.inf, 0.0]))
      Array([0. , 0.5], dtype=float32)
    """
    return _SIGMOID(x)


def log_sigmoid(x: ArrayLike) -> Array:
    r"""The logarithm of the logistic function, `Neuron.softplus(-1, -1)`.

    .. math:: \mathrm{log\_sigmoid}(x) = \log(\mathrm{sigmoid}(x)) = -\log(1 + e^{-x})

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape. Integers give floats.

    Example:
      >>> nn.log_sigmoid(jnp.array([0.0, jnp.inf]))
      Array([-0.6931472, -0.       ], dtype=float32)
    """
    return _LOG_SIGMOID(x)


def softplus(x: ArrayLike) -> Array:
    r"""The softplus function, `Neuron.softplus()`.

    .. math:: \mathrm{softplus}(x) = \log(1 + e^x)

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape. Integers give floats.

    Example:
      >>> nn.softplus(jnp.array([-jnp.inf, 0.0]))
      Array([0.       , 0.6931472], dtype=float32)
    """
    return _SOFTPLUS(x)


def soft_sign(x: ArrayLike) -> Array:
    r"""The softsign function, `Neuron.softsign()`.

    .. math:: \mathrm{soft\_sign}(x) = \frac{x}{|x| + 1}

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape. Integers give floats.

    Example:
      >>> nn.soft_sign(jnp.array([-1.0, 3.0]))
      Array([-0.5 ,  0.75], dtype=float32)
    """
    return _SOFTSIGN(x)


def tanh(x: ArrayLike, /) -> Array:
    r"""The hyperbolic tangent, `Neuron.tanh()`.

    .. math:: \tanh(x) = \frac{e^x - e^{-x}}{e^x + e^{-x}}

    In float32 and float64 the gradient reads the result in place of x, because the next layer keeps the
    result anyway.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape. Integers give floats.

    Example:
      >>> nn.tanh(jnp.array([0.0, jnp.inf]))
      Array([0., 1.], dtype=float32)
    """
    return _TANH(x)


def gelu(x: ArrayLike, approximate: bool = True) -> Array:
    r"""The Gaussian error linear unit, `Neuron.gelu()` with ``approximate=False``.

    .. math:: \mathrm{gelu}(x) = x \, \Phi(x) = \frac{x}{2} \left(1 + \mathrm{erf}\frac{x}{\sqrt 2}\right)

    The default is `jax.nn.gelu`'s own: an approximation by tanh, which is not a neuron type. The two differ
    by up to 5e-4, so another default would change numbers where a name was replaced. **Pass
    ``approximate=False`` for the kernel.**

    Args:
      x: array of any shape.
      approximate: whether to use the approximation.

    Returns:
      An array of x's shape. Integers give floats.

    Example:
      >>> nn.gelu(jnp.array([-jnp.inf, 1.0]), approximate=False)
      Array([-0.        ,  0.84134483], dtype=float32)
    """
    if approximate:
        return jax.nn.gelu(x, approximate=True)
    array = supported(x)
    if array is not None and array.weak_type:  # gelu's result never is
        return _GELU(array.astype(array.dtype))
    return _GELU(x)
