"""The special functions behind the formulas, in operations that every XLA plugin legalizes.

Only arithmetic, comparisons, select, abs, exp, logistic and tanh: the older Metal plugins know neither
erfc nor log1p nor expm1. Each is accurate to a few units in the last place over the whole range, and each
has its derivative as a rule, so that every higher derivative is as accurate as the first. The float32
polynomials are those of ``kernels/neuron_math.h``; float64, which no such plugin has, uses JAX's own.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

__all__ = ["expm1_negative", "logistic_derivative", "normal_cdf", "normal_pdf", "softplus"]

_INVERSE_SQRT_2PI = 0.3989422804014327

# log(1 + x) = 2 s p(s^2) with s = x / (2 + x), on 0 <= x <= 1; relative error 4e-9.
_LOG1P = (0.140891626, 0.139803022, 0.200124547, 0.333331585, 1.0)

# Phi(-r) / exp(-r^2 / 2) = t p(t) with t = 1 / (1 + 0.3125 r), on 0 <= r <= 14.5; relative error 1e-8.
_NORMAL_TAIL = (
    -0.0190283358,
    0.0914462209,
    -0.151106492,
    0.0742964968,
    -0.00252952473,
    0.0555276945,
    0.0900960863,
    0.111881986,
    0.12475051,
    0.12466535,
)


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    result = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        result = result * x + coefficient
    return result


_Function = Callable[[Array], Array]


def _with_derivative(derivative: _Function) -> Callable[[_Function], _Function]:
    """Gives a function of one array the derivative `derivative`."""

    def decorate(function: _Function) -> _Function:
        wrapped = jax.custom_jvp(function)
        wrapped.defjvps(lambda tangent, _, x: tangent * derivative(x))
        return wrapped

    return decorate


def _logistic_second_derivative(u: Array) -> Array:
    return -logistic_derivative(u) * jnp.tanh(0.5 * u)


@_with_derivative(_logistic_second_derivative)
def logistic_derivative(u: Array) -> Array:
    """e^u / (e^u + 1)^2, the derivative of the logistic function."""
    e = jnp.exp(-jnp.abs(u))
    r = 1.0 / (1.0 + e)
    return e * r * r


@_with_derivative(jax.nn.sigmoid)
def softplus(u: Array) -> Array:
    """log(1 + e^u)."""
    e = jnp.exp(-jnp.abs(u))
    if u.dtype == jnp.float64:
        tail = jnp.log1p(e)
    else:
        s = e / (2.0 + e)
        tail = 2.0 * s * _horner(_LOG1P, s * s)
    return jnp.maximum(u, 0.0) + tail


@_with_derivative(jnp.exp)
def expm1_negative(u: Array) -> Array:
    """e^u - 1 for u <= 0."""
    if u.dtype == jnp.float64:
        return jnp.expm1(u)
    t = jnp.tanh(0.5 * u)
    return 2.0 * t / (1.0 - t)


def normal_pdf(z: Array) -> Array:
    """exp(-z^2 / 2) / sqrt(2 pi)."""
    return jnp.exp(-0.5 * (z * z)) * _INVERSE_SQRT_2PI


@_with_derivative(normal_pdf)
def normal_cdf(z: Array) -> Array:
    """The normal distribution function, (1 + erf(z / sqrt(2))) / 2."""
    if z.dtype == jnp.float64:
        return 0.5 * jax.scipy.special.erfc(z * -0.7071067811865476)
    t = 1.0 / (1.0 + 0.3125 * jnp.abs(z))
    tail = jnp.exp(-0.5 * (z * z)) * (t * _horner(_NORMAL_TAIL, t))
    return jnp.where(z >= 0, 1.0 - tail, tail)
