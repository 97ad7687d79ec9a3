"""f and f' of each neuron type, in jnp: the twin of ``kernels/neuron_math.h``.

Sources: MPSCNNNeuronType.h for f, MPSCNNNeuronGradient's table in MPSCNNNeuron.h for f'. That table is
ambiguous in four places. HardSigmoid's f' is a where 0 <= a*z + b <= 1. ReLUN's f' is 0 where z >= b. ReLU,
PReLU and ELU take the right-hand branch at 0. Absolute's f' is 0 at 0.

z is the argument of the neuron, alpha * x + bias, in float32 or float64. a, b and c broadcast against it.
In f a NaN fails every comparison and reaches a branch that keeps it. f' takes the branch that the
comparison selects. At an infinite z, f and f' are their limits where these exist.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from . import special
from .descriptor import NeuronType

__all__ = ["derivative", "derivative_of_value", "slope_derivative", "value"]


class _Formula(NamedTuple):
    value: Callable[[Array, Array, Array, Array], Array]
    derivative: Callable[[Array, Array, Array, Array], Array]


def _relu(z: Array, a: Array, b: Array, c: Array) -> Array:
    return jnp.where(z >= 0, z, special.times(a, _negative(z)))


def _relu_derivative(z: Array, a: Array, b: Array, c: Array) -> Array:
    return jnp.where(z >= 0, 1.0, a)


def _hard_sigmoid_derivative(z: Array, a: Array, b: Array, c: Array) -> Array:
    # a where 0 <= a*z + b <= 1, without that sum: its rounding depends on whether XLA fuses it.
    u = a * z
    return jnp.where(u >= -b, jnp.where(u <= 1.0 - b, a, 0.0), 0.0)


def _negative(z: Array) -> Array:
    """z where it is negative or NaN, otherwise 0: the argument of the left-hand branch."""
    return jnp.where(z >= 0, 0.0, z)


def _power(z: Array, a: Array, b: Array, c: Array) -> Array:
    return special.power(special.times(a, z) + b, c)


def _base(c: Array) -> tuple[Array, Array, Array]:
    """Whether c stands for e, c with that made harmless, and the logarithm of the base."""
    natural = c == -1.0
    base = jnp.where(natural, 2.0, c)
    return natural, base, jnp.where(natural, 1.0, jnp.log(base))


def _exponential(z: Array, a: Array, b: Array, c: Array) -> Array:
    natural, base, _ = _base(c)
    u = special.times(a, z) + b
    # The branch that is not taken gets a 0: an overflow there would make a derivative NaN.
    of_e = jnp.exp(jnp.where(natural, u, 0.0))
    return jnp.where(natural, of_e, jnp.power(base, jnp.where(natural, 0.0, u)))


def _softsign(z: Array, a: Array, b: Array, c: Array) -> Array:
    z = special.limited(z, -1e30, 1e30)  # where it is -1 and 1
    return z / (1.0 + jnp.abs(z))


_FORMULAS: dict[NeuronType, _Formula] = {
    NeuronType.NONE: _Formula(
        lambda z, a, b, c: z,
        lambda z, a, b, c: jnp.ones_like(z),
    ),
    NeuronType.RELU: _Formula(_relu, _relu_derivative),
    NeuronType.LINEAR: _Formula(
        lambda z, a, b, c: special.times(a, z) + b,
        lambda z, a, b, c: a,
    ),
    NeuronType.SIGMOID: _Formula(
        lambda z, a, b, c: special.logistic(z),
        lambda z, a, b, c: special.logistic_derivative(z),
    ),
    NeuronType.HARD_SIGMOID: _Formula(
        lambda z, a, b, c: special.limited(special.times(a, z) + b, 0.0, 1.0),
        _hard_sigmoid_derivative,
    ),
    NeuronType.TANH: _Formula(
        lambda z, a, b, c: a * special.tanh(special.times(b, z)),
        lambda z, a, b, c: (4.0 * (a * b)) * special.logistic_derivative(special.times(2.0 * b, z)),
    ),
    NeuronType.ABSOLUTE: _Formula(
        lambda z, a, b, c: jnp.abs(z),
        lambda z, a, b, c: jnp.where(z > 0, 1.0, jnp.where(z < 0, -1.0, lax.stop_gradient(z))),
    ),
    NeuronType.SOFTPLUS: _Formula(
        lambda z, a, b, c: special.times(a, special.softplus(special.times(b, z))),
        lambda z, a, b, c: a * b * special.logistic(special.times(b, z)),
    ),
    NeuronType.SOFTSIGN: _Formula(
        _softsign,
        lambda z, a, b, c: (1.0 / (1.0 + jnp.abs(z))) ** 2,
    ),
    NeuronType.ELU: _Formula(
        lambda z, a, b, c: jnp.where(z >= 0, z, a * special.expm1_negative(_negative(z))),
        lambda z, a, b, c: jnp.where(z >= 0, 1.0, a * jnp.exp(_negative(z))),
    ),
    NeuronType.PRELU: _Formula(_relu, _relu_derivative),
    NeuronType.RELUN: _Formula(
        lambda z, a, b, c: jnp.where(_relu(z, a, b, c) >= b, b, _relu(z, a, b, c)),
        lambda z, a, b, c: jnp.where(z >= b, 0.0, _relu_derivative(z, a, b, c)),
    ),
    NeuronType.POWER: _Formula(
        _power,
        lambda z, a, b, c: a * c * _power(z, a, b, c - 1.0),
    ),
    NeuronType.EXPONENTIAL: _Formula(
        _exponential,
        lambda z, a, b, c: a * _base(c)[2] * _exponential(z, a, b, c),
    ),
    NeuronType.LOGARITHM: _Formula(
        lambda z, a, b, c: jnp.log(special.times(a, z) + b) / _base(c)[2],
        lambda z, a, b, c: special.quotient(a / _base(c)[2], special.times(a, z) + b),
    ),
    NeuronType.GELU: _Formula(
        lambda z, a, b, c: special.limited(z, -40.0, jnp.inf) * special.normal_cdf(z),  # Phi(-40) is 0
        lambda z, a, b, c: special.gelu_derivative(z),
    ),
}


def _coarse_exponential_derivative(z: Array, a: Array, b: Array, c: Array) -> Array:
    # One multiplication and one addition per element. A finite logarithm of the bases 0 and infinity makes
    # their power 0 equal to 1.
    logarithm = _base(c)[2]
    finite = jnp.clip(logarithm, -1e30, 1e30)
    return (a * logarithm) * jnp.exp(special.times(a * finite, z) + b * finite)


# Cheaper forms of f' in float32, for 16-bit results on GPUs. They are never differentiated.
_COARSE_DERIVATIVES: dict[NeuronType, Callable[[Array, Array, Array, Array], Array]] = {
    NeuronType.POWER: lambda z, a, b, c: a * c * special.coarse_power(special.times(a, z) + b, c - 1.0),
    NeuronType.EXPONENTIAL: _coarse_exponential_derivative,
    NeuronType.GELU: lambda z, a, b, c: special.coarse_gelu_derivative(z),
}


def derivative(
    neuron_type: NeuronType, z: Array, a: Array, b: Array, c: Array, *, coarse: bool = False
) -> Array:
    """f'(z), in the shape of z. `coarse`: to 2^-16 and not differentiable, for 16-bit results on GPUs."""
    formula = _FORMULAS[neuron_type].derivative
    if coarse:
        formula = _COARSE_DERIVATIVES.get(neuron_type, formula)
    return jnp.broadcast_to(formula(z, a, b, c), z.shape)


def _tanh_derivative_of_value(y: Array, a: Array, b: Array, c: Array) -> Array:
    # Rounding may have put y beyond a.
    t = jnp.clip(jnp.where(a == 0, 0.0, y / jnp.where(a == 0, 1.0, a)), -1.0, 1.0)
    return (a * b) * ((1.0 - t) * (1.0 + t))


_OF_VALUE: dict[NeuronType, Callable[[Array, Array, Array, Array], Array]] = {
    NeuronType.SIGMOID: lambda y, a, b, c: y * (1.0 - y),
    NeuronType.TANH: _tanh_derivative_of_value,
    NeuronType.EXPONENTIAL: lambda y, a, b, c: (a * _base(c)[2]) * y,
}


def derivative_of_value(neuron_type: NeuronType, y: Array, a: Array, b: Array, c: Array) -> Array:
    """f'(z) from y = f(z), in the shape of y, for the types in `descriptor.FROM_Y`."""
    return jnp.broadcast_to(_OF_VALUE[neuron_type](y, a, b, c), y.shape)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def value(neuron_type: NeuronType, z: Array, a: Array, b: Array, c: Array) -> Array:
    """f(z), in the shape of z. Its derivative with respect to z is `derivative`, kinks included."""
    return _FORMULAS[neuron_type].value(z, a, b, c)


def _value_jvp(
    neuron_type: NeuronType, primals: tuple[Any, ...], tangents: tuple[Any, ...]
) -> tuple[Array, Any]:
    z, *parameters = primals
    dz, *rest = tangents
    tangent = None if isinstance(dz, SymbolicZero) else derivative(neuron_type, z, *parameters) * dz
    moving = [i for i, t in enumerate(rest) if not isinstance(t, SymbolicZero)]
    if moving:

        def of_moving(*values: Array) -> Array:
            at = list(parameters)
            for i, v in zip(moving, values, strict=True):
                at[i] = v
            return _FORMULAS[neuron_type].value(z, *at)

        _, of_parameters = jax.jvp(of_moving, [parameters[i] for i in moving], [rest[i] for i in moving])
        tangent = of_parameters if tangent is None else tangent + of_parameters
    primal = value(neuron_type, *primals)
    return primal, jnp.zeros_like(primal) if tangent is None else tangent


value.defjvp(_value_jvp, symbolic_zeros=True)


def slope_derivative(z: Array) -> Array:
    """PReLU's df/da: z where z < 0, otherwise 0. NaN stays NaN."""
    return _negative(z)
