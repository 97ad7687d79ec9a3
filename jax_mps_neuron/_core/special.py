"""The special functions behind the formulas, in operations that every XLA plugin legalizes.

They use only arithmetic, comparisons, select, abs, min, max, exp, log, pow, logistic and tanh, because
older Metal plugins lack erfc, log1p and expm1. Each function is accurate to a few units in the last place
over the whole range. Each has a rule for its derivative, so that higher derivatives keep the relative
accuracy of the first. float64, which those plugins lack too, uses JAX's own functions. The ``coarse_``
functions are for 16-bit results on GPUs and use more operations.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

__all__ = [
    "coarse_gelu_derivative",
    "coarse_power",
    "expm1_negative",
    "gelu_derivative",
    "limited",
    "logistic",
    "logistic_derivative",
    "normal_cdf",
    "power",
    "quotient",
    "softplus",
    "tanh",
    "times",
]

_INVERSE_SQRT_2PI = 0.3989422804014327

# log(1 + x) = 2 s + 2 s^3 p(s^2) with s = x / (2 + x), on 0 <= x <= 1; relative error 4e-9. Writing 2 s as
# x - s x confines all rounding but the last to a small term.
_LOG1P = (0.140891626, 0.139803022, 0.200124547, 0.333331585)

# e^u - 1 = u + u^2 p(u) on -0.7 <= u <= 0; relative error 2e-10.
_EXPM1 = (0.00014680186, 0.0013421894, 0.008311905, 0.041661624, 0.16666612, 0.49999997)

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

# With g the derivative of GELU, g(-r) / exp(-r^2 / 2) = (r0 - r) p(t) with t = 1 / (1 + 0.3125 r), on
# 0 <= r <= 14.5; relative error 5e-8, and exactly 0.5 at 0. r0 is the zero of g(-r).
_GELU_DERIVATIVE = (
    0.0122127477,
    -0.0593014471,
    0.0838003084,
    -0.0102932937,
    0.0724683926,
    0.0731028691,
    0.0941682383,
    0.398920149,
)
_GELU_ZERO = 0.751791537

# exp(-z^2 / 2) is 0 beyond this, also in float64.
_NORMAL_BOUND = 40.0

# Bits of a float32.
_ALL_BITS, _SIGN_BIT, _ONE_BITS = np.uint32(0xFFFFFFFF), np.uint32(0x80000000), np.uint32(0x3F800000)


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


def limited(z: Array, least: Array | float, greatest: Array | float) -> Array:
    """z, at least `least` and at most `greatest`. NaN stays NaN, even if a plugin's min and max lose it."""
    z = jnp.where(z < least, least, z)
    return jnp.where(z > greatest, greatest, z)


def times(k: Array, z: Array) -> Array:
    """k z, and 0 where k is 0 and z infinite: the limit, where the product is NaN."""
    bound = jnp.where(k == 0, jnp.finfo(z.dtype).max, jnp.inf).astype(z.dtype)
    return k * limited(z, -bound, bound)


@jax.custom_jvp
def quotient(x: Array, y: Array) -> Array:
    """x / y, with a derivative in which 1 / y^2 does not underflow."""
    return x / y


@quotient.defjvp
def _quotient_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, y), (dx, dy) = primals, tangents
    reciprocal = 1.0 / y  # XLA would make x / y^2 of (x / y) / y
    return quotient(x, y), dx / y - x * reciprocal * (reciprocal * dy)


def _logistic_second_derivative(u: Array) -> Array:
    return -logistic_derivative(u) * tanh(0.5 * u)


@_with_derivative(_logistic_second_derivative)
def logistic_derivative(u: Array) -> Array:
    """e^u / (e^u + 1)^2, the derivative of the logistic function."""
    e = jnp.exp(-jnp.abs(u))
    r = 1.0 / (1.0 + e)
    return e * r * r


@_with_derivative(logistic_derivative)
def logistic(u: Array) -> Array:
    """1 / (1 + e^-u)."""
    return jax.nn.sigmoid(u)


def _tanh_derivative(u: Array) -> Array:
    # 1 - tanh^2(u) = 4 e^2u / (e^2u + 1)^2, which does not cancel for large u.
    return 4.0 * logistic_derivative(2.0 * u)


@_with_derivative(_tanh_derivative)
def tanh(u: Array) -> Array:
    """The hyperbolic tangent."""
    return jnp.tanh(u)


@_with_derivative(logistic)
def softplus(u: Array) -> Array:
    """log(1 + e^u)."""
    e = jnp.exp(-jnp.abs(u))
    if u.dtype == jnp.float64:
        tail = jnp.log1p(e)
    else:
        s = e / (2.0 + e)
        q = s * s
        tail = e - s * (e - (q + q) * _horner(_LOG1P, q))
    return jnp.maximum(u, 0.0) + tail


@_with_derivative(jnp.exp)
def expm1_negative(u: Array) -> Array:
    """e^u - 1 for u <= 0."""
    if u.dtype == jnp.float64:
        return jnp.expm1(u)
    small = u + (u * u) * _horner(_EXPM1, u)
    # Not e^u: XLA would compute that once for this and the derivative, and keep it until the backward pass.
    root = jnp.exp(0.5 * u)
    return jnp.where(u > -0.7, small, root * root - 1.0)


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


def _gelu_second_derivative(z: Array) -> Array:
    z = limited(z, -_NORMAL_BOUND, _NORMAL_BOUND)  # beyond that it is 0, and z^2 may be infinite
    return (2.0 - z * z) * normal_pdf(z)


@_with_derivative(_gelu_second_derivative)
def gelu_derivative(z: Array) -> Array:
    """Phi(z) + z phi(z), with the normal distribution function Phi and its density phi."""
    if z.dtype == jnp.float64:
        return normal_cdf(z) + limited(z, -_NORMAL_BOUND, _NORMAL_BOUND) * normal_pdf(z)
    return _gelu_derivative(z, 1.0 / (1.0 + 0.3125 * jnp.abs(z)))


def _gelu_derivative(z: Array, t: Array) -> Array:
    """The same from t = 1 / (1 + 0.3125 |z|): g(z) is 1 - g(-z)."""
    r = jnp.minimum(jnp.abs(z), _NORMAL_BOUND)  # a NaN comes back with exp
    of_negative = jnp.exp(-0.5 * (z * z)) * ((_GELU_ZERO - r) * _horner(_GELU_DERIVATIVE, t))
    return jnp.where(z >= 0, 1.0 - of_negative, of_negative)


@jax.custom_jvp
def power(x: Array, y: Array) -> Array:
    """x^y. The derivative with respect to y is 0 where x is not positive and there is none.

    So a constant y makes no NaN in derivatives with respect to x, of any order.
    """
    return jnp.power(x, y)


@power.defjvp
def _power_jvp(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (x, y), (dx, dy) = primals, tangents
    result = power(x, y)
    # x^-1 must not occur even in the branch that is not taken: at 0 its derivatives are infinite.
    constant = y == 0
    of_x = y * jnp.where(constant, 1.0, power(x, jnp.where(constant, 1.0, y - 1.0)))
    of_y = jnp.log(jnp.where(x > 0, x, 1.0)) * jnp.where(x > 0, result, 0.0)
    return result, of_x * dx + of_y * dy


# For 16-bit results on GPUs. There a division takes XLA seven instructions, five of them for quotients that
# cannot occur here, and a power takes 74.


def coarse_gelu_derivative(z: Array) -> Array:
    """`gelu_derivative` in float32 to 2^-21."""
    root = lax.rsqrt(1.0 + 0.3125 * jnp.abs(z))
    return _gelu_derivative(z, root * root)


def coarse_power(x: Array, y: Array) -> Array:
    """x^y in float32 to 2^-23 (1 + |log x^y|), which is 2^-16 or better.

    Like IEEE's pow, except that |x| = 1 to the power of infinity or NaN and -infinity to a non-integer
    power are NaN. Fast if y has few elements: what depends only on y is computed once per element of y.
    """
    integer = jnp.floor(y) == y
    odd = integer & (jnp.floor(0.5 * y) != 0.5 * y)
    # The argument of log is 1 if y is 0, |x| if y is another integer, otherwise x, whose sign gives NaN.
    keep = jnp.where(y == 0, 0, jnp.where(integer, _ALL_BITS ^ _SIGN_BIT, _ALL_BITS)).astype(jnp.uint32)
    add = jnp.where(y == 0, _ONE_BITS, 0).astype(jnp.uint32)
    sign = jnp.where(odd, _SIGN_BIT, 0).astype(jnp.uint32)
    bits = lax.bitcast_convert_type(x, jnp.uint32)
    magnitude = lax.bitcast_convert_type((bits & keep) | add, jnp.float32)
    result = lax.bitcast_convert_type(jnp.exp(y * jnp.log(magnitude)), jnp.uint32)
    return lax.bitcast_convert_type(result | (bits & sign), jnp.float32)
