"""Errors of the routes over whole number formats, in units in the last place (ULP) of the result's dtype.

The error of a result is its distance from the true value, by the distance of neighbouring numbers of the
dtype there. The true value is that of apple.py in float64, for parameters in float32. So that this is
a fair measure of every route:

- Where the result is a sum whose terms cancel (`_terms`), the numbers' distance is taken at the size of the
  terms: near a root of the sum, an error relative to the sum itself is unbounded for everyone.
- Within a few roundings of a bend, every slope between those of the two sides is right; which one we take
  at the bend itself is a convention that other tests hold.
- An infinity counts as the power of two that follows the largest number, and so does what is beyond it.
- XLA's CPU code takes subnormal numbers for 0, also between its operations. So figures are over the x and
  results that are 0 or clear of those (2^10 times the smallest normal number, for float32 and bfloat16);
  what lies below is a figure of its own, in which neighbouring subnormal numbers are a unit apart.
- XLA may take a*x + 0 for a*x, whose 0 has the sign of x. So -0 is left to the tests of domain edges.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jax_mps_neuron as jmn
from jax_mps_neuron import Neuron
from jax_mps_neuron import NeuronType as T
from jax_mps_neuron._lowering import native
from support import apple, formulas, zoo

CHANNELS = 8

# The test's neurons, and those whose defaults differ from them and ask for more.
NEURONS: dict[str, Neuron] = {
    **zoo.neurons(CHANNELS),
    "linear_default": Neuron.linear(),
    "hard_sigmoid_default": Neuron.hard_sigmoid(),
    "tanh_default": Neuron.tanh(),
    "softplus_default": Neuron.softplus(),
    "elu_default": Neuron.elu(),
    "relun_default": Neuron.relun(),
    "power_default": Neuron.power(),
    "sqrt": Neuron.power(c=0.5),
    "reciprocal": Neuron.power(c=-1.0),
    "exponential_default": Neuron.exponential(),
    "logarithm_default": Neuron.logarithm(),
}


class Format(NamedTuple):
    """Bits of the mantissa, its first one included; log2 of the smallest normal number and of infinity."""

    bits: int
    smallest: int
    limit: int


FORMATS = {
    "float32": Format(24, -126, 128),
    "float16": Format(11, -14, 16),
    "bfloat16": Format(8, -126, 128),
}
DTYPES = list(FORMATS)


def ulp(magnitude: np.ndarray, dtype: str) -> np.ndarray:
    """The distance of neighbouring numbers of a dtype at a magnitude."""
    f = FORMATS[dtype]
    exponent = np.clip(np.frexp(magnitude)[1], f.smallest + 1, f.limit)
    return np.ldexp(1.0, exponent - f.bits)


# Inputs


def sweep(neuron: Neuron, dtype: str, points: int) -> np.ndarray:
    """Finite numbers of a dtype, [n, CHANNELS]: all of float16 and bfloat16, about `points` of float32.

    Of those a quarter is spread over all exponents and both signs, half evenly over [-20, 20] and a quarter
    over [-128, 128]; to which come the neighbours of 0, of bends and of where functions saturate.
    """
    if dtype != "float32":
        x = np.arange(2**16, dtype=np.uint16).view(jnp.dtype(dtype))
    else:
        random = np.random.default_rng(0)
        each = max(2, points // 4 // (2 * 255))
        mantissas = np.linspace(0, 2**23 - 1, each).astype(np.uint32)
        bits = np.arange(255, dtype=np.uint32)[:, None] << 23 | mantissas
        bits = np.concatenate([bits.ravel(), bits.ravel() | np.uint32(1 << 31)])
        spread = [_stratified(random, end, count) for end, count in ((20, points // 2), (128, points // 4))]
        at = [*_bends(neuron), -0.7517915, 1, -1, *(s * v for v in _SATURATIONS for s in (1, -1))]
        steps = np.arange(-32, 33, dtype=np.int32)
        near = (np.float32(at).view(np.int32)[:, None] + steps).ravel().view(np.float32)
        x = np.concatenate([bits.view(np.float32), *spread, near[np.isfinite(near)]])
    x = x[np.isfinite(x.astype(np.float32))]
    x = x[~((x == 0) & np.signbit(x))]
    return np.concatenate([x, x[: -len(x) % CHANNELS]]).reshape(-1, CHANNELS)


# Where exp or a square of it under- or overflows, and tanh, the logistic function and GELU's tails end.
_SATURATIONS = (87.33655, 88.72284, 103.9721, 43.668, 44.36142, 51.98605, 9.0109, 16.63553, 13.2, 14.5)


def _stratified(random: np.random.Generator, end: float, count: int) -> np.ndarray:
    """One number in each of `count` equal parts of [-end, end]."""
    return ((np.arange(count) + random.random(count)) * (2 * end / count) - end).astype(np.float32)


# The truth


class Truth(NamedTuple):
    """For each x the least and the greatest right value, and the magnitude that errors are relative to."""

    least: np.ndarray
    greatest: np.ndarray
    magnitude: np.ndarray


def truth(neuron: Neuron, x: np.ndarray, dtype: str, *, derivative: bool) -> Truth:
    z = np.asarray(x, np.float64)
    parameters = tuple(np.float32(p).astype(np.float64) for p in zoo.parameters(neuron))
    function = apple.df if derivative else apple.f
    exact = np.broadcast_to(function(neuron.type, z, *parameters), z.shape)
    least = greatest = exact
    for bend in _bends(neuron) if derivative else ():
        reach = 0.0 if bend == 0 else 4 * ulp(np.maximum(abs(bend), 1.0), dtype)
        near = np.abs(z - bend) <= reach
        for side in (bend - 2 * reach - 1e-30, bend + 2 * reach + 1e-30):
            there = function(neuron.type, np.full_like(z, side), *parameters)
            least = np.where(near, np.minimum(least, there), least)
            greatest = np.where(near, np.maximum(greatest, there), greatest)
    terms = _terms(neuron.type, z, *parameters, derivative)
    return Truth(least, greatest, np.maximum(np.abs(exact), terms))


def _bends(neuron: Neuron) -> tuple[float, ...]:
    """Where f' jumps."""
    kind = neuron.type
    if kind in (T.RELU, T.PRELU, T.ELU, T.ABSOLUTE):
        return (0.0,)
    if kind is T.RELUN:
        return 0.0, float(neuron.b)
    if kind is T.HARD_SIGMOID:
        return -float(neuron.b) / float(neuron.a), (1 - float(neuron.b)) / float(neuron.a)
    return ()


def _terms(kind: T, z, a, b, c, derivative: bool):
    """The sum of the magnitudes of the terms, where f or f' is a sum that cancels; else 0."""
    if kind is T.GELU and derivative:  # Phi(z) + z phi(z)
        return apple.ndtr(z) + np.abs(z) * np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
    if kind is T.LINEAR and not derivative:
        return np.abs(a * z) + np.abs(b)
    if kind is T.HARD_SIGMOID and not derivative:  # further out the sum's rounding is not seen
        return np.where(np.abs(a * z + b - 0.5) <= 1, np.abs(a * z) + np.abs(b), 0.0)
    return 0.0


# The measure


class Figures(NamedTuple):
    """max and mean: errors in ULP, and where the greatest is; wrong: NaN or a number in place of the other.

    below: the greatest error of what max and mean leave out, small x and results.
    """

    max: float
    mean: float
    at: float
    got: float
    true: float
    wrong: int
    below: float


def figures(result: np.ndarray, x: np.ndarray, true: Truth, dtype: str) -> Figures:
    """The errors of a result at x."""
    got = np.asarray(result, np.float64)
    limit = 2.0 ** FORMATS[dtype].limit
    clipped = [np.clip(v, -limit, limit) for v in (got, true.least, true.greatest)]
    with np.errstate(invalid="ignore"):
        distance = np.maximum(np.maximum(clipped[1] - clipped[0], clipped[0] - clipped[2]), 0.0)
        errors = distance / ulp(np.minimum(true.magnitude, limit / 2), dtype)
    wrong = np.isnan(got) != np.isnan(true.least)
    errors[np.isnan(errors)] = 0.0
    small = np.zeros(x.shape, bool)
    if dtype != "float16":
        for v in (np.abs(np.asarray(x, np.float64)), np.abs(true.least)):
            small |= (v > 0) & (v < 2.0**-116)
    main = np.where(small, 0.0, errors)
    worst = np.unravel_index(np.argmax(main), main.shape)
    return Figures(
        max=float(main[worst]),
        mean=float(main.sum() / np.count_nonzero(~small)),
        at=float(x[worst]),
        got=float(got[worst]),
        true=float(true.least[worst]),
        wrong=int(np.count_nonzero(wrong & ~small)),
        below=float(np.where(small, errors, 0.0).max()),
    )


# The routes: "plain" (what one writes without this package), "inline", and the instruction sets of the
# library by their names.

Program = Callable[[np.ndarray], jax.Array]


def routes() -> list[str]:
    return ["plain", "inline", *native.isas()]


def plain(neuron: Neuron) -> Callable[[jax.Array], jax.Array]:
    """f as one writes it, with parameters in the dtype of x."""

    def value(x: jax.Array) -> jax.Array:
        a, b, c = (jnp.asarray(p, x.dtype) for p in zoo.parameters(neuron))
        return formulas.plain(neuron.type, x, a, b, c, base_e=neuron.c == -1)

    return value


def way_of(route: str) -> str:
    """ "plain", or the lowering; all instruction sets have one program."""
    return route if route in ("plain", "inline") else "custom_call"


def program(neuron: Neuron, way: str, *, derivative: bool) -> Program:
    """f, or f' as the data gradient for a gradient of ones; `way` is "plain" or a lowering."""
    if way == "plain":
        value = plain(neuron)
        if derivative:
            return jax.jit(lambda x: jax.vjp(value, x)[1](jnp.ones_like(x))[0])
        return jax.jit(value)
    if derivative:
        return jax.jit(lambda x: jmn.neuron_gradient(jnp.ones_like(x), x, neuron, lowering=way).data)
    return jax.jit(lambda x: jmn.neuron(x, neuron, lowering=way))


@contextlib.contextmanager
def instruction_set(route: str) -> Iterator[None]:
    """With the kernels of a route, if it is one of instruction sets."""
    if way_of(route) != "custom_call":
        yield
        return
    before = native.isa()
    native.use_isa(route, "route")
    try:
        yield
    finally:
        native.use_isa(before)


def measure(
    neuron: Neuron,
    dtype: str,
    routes: list[str],
    points: int,
    *,
    derivative: bool,
    also: Mapping[str, Callable[..., np.ndarray]] = MappingProxyType({}),
) -> dict[str, Figures]:
    """The figures of each route, over the same sweep.

    also: more of them, functions of the neuron, x and whether the derivative is wanted.
    """
    x = sweep(neuron, dtype, points)
    true = truth(neuron, x, dtype, derivative=derivative)
    programs: dict[str, Program] = {}
    result = {}
    for route in routes:
        way = way_of(route)
        if way not in programs:
            programs[way] = program(neuron, way, derivative=derivative)
        with instruction_set(route):
            result[route] = figures(np.asarray(programs[way](x)), x, true, dtype)
    for route, function in also.items():
        result[route] = figures(function(neuron, x, derivative=derivative), x, true, dtype)
    return result
