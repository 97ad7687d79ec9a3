"""The activations with a kink."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .._core.arguments import require_array
from .._core.descriptor import Neuron
from .._core.signature import compute_dtype
from .._ops.elementwise import activate, fixed, supported

__all__ = ["elu", "hard_sigmoid", "identity", "leaky_relu", "relu", "relu6", "selu"]

# At their default parameters, which most calls use.
_ELU = fixed(Neuron.elu(), jax.nn.elu)
_LEAKY_RELU = fixed(Neuron.relu(1e-2), jax.nn.leaky_relu)

_RELU = fixed(Neuron.relu(), jax.nn.relu, left_at_zero=True, value=jax.nn.relu)
_RELU6 = fixed(Neuron.relun(0.0, 6.0), jax.nn.relu6, left_at_zero=True, value=jax.nn.relu6)


def identity(x: ArrayLike) -> Array:
    """Returns x as an array, like `Neuron.none()`, without a call.

    Args:
      x: array of any shape and dtype.

    Example:
      >>> nn.identity(2.0)
      Array(2., dtype=float32, weak_type=True)
    """
    require_array("x", x)
    return jnp.asarray(x)


def relu(x: ArrayLike) -> Array:
    r"""The rectified linear unit, `Neuron.relu()`.

    .. math:: \mathrm{relu}(x) = \max(x, 0)

    The derivative at 0 is 0. Only the gradient is a call. It reads the result in place of x, because the
    next layer keeps the result anyway.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape and dtype.

    Example:
      >>> nn.relu(jnp.array([-2.0, 0.0, 3.0]))
      Array([0., 0., 3.], dtype=float32)
    """
    return _RELU(x)


def relu6(x: ArrayLike) -> Array:
    r"""The rectified linear unit with an upper bound of 6, `Neuron.relun(0, 6)`.

    .. math:: \mathrm{relu6}(x) = \min(\max(x, 0), 6)

    The derivative at 0 and at 6 is 0. Only the gradient is a call. It reads the result in place of x,
    because the next layer keeps the result anyway.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape. Integers give floats.

    Example:
      >>> nn.relu6(jnp.array([-2.0, 3.0, 8.0]))
      Array([0., 3., 6.], dtype=float32)
    """
    return _RELU6(x)


def leaky_relu(x: ArrayLike, negative_slope: ArrayLike = 1e-2) -> Array:
    r"""The leaky rectified linear unit, `Neuron.relu(negative_slope)`.

    .. math::
      \mathrm{leaky\_relu}(x) = \begin{cases}
        x, & x \ge 0 \\
        \mathrm{negative\_slope} \cdot x, & x < 0
      \end{cases}

    To learn one slope per channel, use `jax_mps_neuron.neuron` with `Neuron.prelu`: it computes the
    gradients of x and the slopes in one pass.

    Args:
      x: array of any shape.
      negative_slope: a scalar, a slope for each element of x's last axis (`Neuron.prelu`), or any array
        that broadcasts with x (`jax.nn`'s own).

    Returns:
      An array in the dtype to which x and negative_slope promote.

    Example:
      >>> nn.leaky_relu(jnp.array([-2.0, 3.0]), 0.5)
      Array([-1.,  3.], dtype=float32)
    """
    if type(negative_slope) is float and negative_slope == 1e-2:
        return _LEAKY_RELU(x)
    own = partial(jax.nn.leaky_relu, negative_slope=negative_slope)
    if _is_none(negative_slope):
        return own(x)
    if isinstance(negative_slope, float):
        return activate(x, Neuron.relu(negative_slope), own)
    slopes = jnp.shape(negative_slope)
    per_channel = len(slopes) == 1 and slopes == jnp.shape(x)[-1:]
    make = Neuron.prelu if per_channel else Neuron.relu
    return activate(x, make(negative_slope), own)


def elu(x: ArrayLike, alpha: ArrayLike = 1.0) -> Array:
    r"""The exponential linear unit, `Neuron.elu(alpha)`.

    .. math::
      \mathrm{elu}(x) = \begin{cases}
        x, & x > 0 \\
        \alpha (e^x - 1), & x \le 0
      \end{cases}

    The derivative at 0 is alpha.

    Args:
      x: array of any shape.
      alpha: a scalar, or any array that broadcasts with x (`jax.nn`'s own).

    Returns:
      An array in the dtype to which x and alpha promote.

    Example:
      >>> nn.elu(jnp.array([-jnp.inf, 3.0]))
      Array([-1.,  3.], dtype=float32)
    """
    if type(alpha) is float and alpha == 1:
        return _ELU(x)
    own = partial(jax.nn.elu, alpha=alpha)
    if _is_none(alpha):
        return own(x)
    # With alpha 1, both branches have the same derivative at 0.
    has_kink = type(alpha) not in (int, float) or alpha != 1
    return activate(x, Neuron.elu(alpha), own, left_at_zero=bool(has_kink))


def selu(x: ArrayLike) -> Array:
    r"""The scaled exponential linear unit.

    .. math::
      \mathrm{selu}(x) = \lambda \begin{cases}
        x, & x > 0 \\
        \alpha (e^x - 1), & x \le 0
      \end{cases}

    where :math:`\lambda = 1.0507...` and :math:`\alpha = 1.6732...`.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape. Integers give floats.

    Example:
      >>> nn.selu(jnp.array([0.0, 1.0]))
      Array([0.       , 1.050701 ], dtype=float32)
    """
    array = supported(x)
    if array is None:
        return jax.nn.selu(x)
    y: Array = _selu(array)
    return y


@jax.jit
def _selu(x: ArrayLike) -> Array:
    return 1.0507009873554804934193349852946 * elu(x, 1.6732632423543772848170429916717)


def _is_none(parameter: Any) -> bool:
    """Whether a parameter is None: an error to jax.nn, but the default to a `Neuron`."""
    return parameter is None


def hard_sigmoid(x: ArrayLike) -> Array:
    r"""The hard sigmoid, `Neuron.hard_sigmoid(1/6, 1/2)`.

    .. math:: \mathrm{hard\_sigmoid}(x) = \frac{\mathrm{relu6}(x + 3)}{6}

    The derivative at -3 and at 3 is 0.

    Args:
      x: array of any shape.

    Returns:
      An array of x's shape. Integers give floats.

    Example:
      >>> nn.hard_sigmoid(jnp.array([-4.0, 0.0, 4.0]))
      Array([0. , 0.5, 1. ], dtype=float32)
    """
    array = supported(x)
    if array is None:
        return jax.nn.hard_sigmoid(x)
    return _HARD_SIGMOID[compute_dtype(array).name](array)


def _hard_sigmoid_neuron(dtype: type[np.floating[Any]], steps: int) -> Neuron:
    """The neuron whose derivative is 0 at both kinks in a dtype.

    Apple's derivative is a up to and at both kinks, where a z is -1/2 and 1/2. With an a that is larger by
    a few last bits, 3 a and -3 a lie beyond the kinks, and no number between them does.
    """
    a = dtype(1 / 6)
    for _ in range(steps):
        a = np.nextafter(a, dtype(1))
    return Neuron.hard_sigmoid(float(a), 0.5)


_HARD_SIGMOID = {
    "float32": fixed(_hard_sigmoid_neuron(np.float32, 1), jax.nn.hard_sigmoid),
    "float64": fixed(_hard_sigmoid_neuron(np.float64, 2), jax.nn.hard_sigmoid),
}
