"""f and f' on every route against float64, in ULP: within bounds, and no worse than the plain formula.

JAX_MPS_NEURON_DENSE=1 takes a million numbers of float32 for each neuron. ulps.py says how errors are
measured.
"""

from __future__ import annotations

from functools import cache

import mpmath
import numpy as np
import pytest
from mpmath import mp

from jax_mps_neuron import Neuron
from jax_mps_neuron import NeuronType as T
from support import ulps, zoo
from support.bounds import FLOAT32, POINTS, WORSE, check_bounds, check_no_worse, fused_probe


@cache
def fuses(route: str) -> bool:
    """Whether a*x + b is rounded once on a route."""
    neuron, x = fused_probe()
    with ulps.instruction_set(route):
        return bool(np.any(ulps.program(neuron, ulps.way_of(route), derivative=False)(x) != 0))


# Results of 16 bits are rounded from float32's, but for the derivatives in a form of their own.
ROUNDED = [pytest.param(dtype, "f", marks=pytest.mark.slow) for dtype in ("float16", "bfloat16")]
CASES = [("float32", "f"), *((dtype, "f'") for dtype in ulps.DTYPES), *ROUNDED]


@pytest.mark.parametrize(("dtype", "function"), CASES)
@pytest.mark.parametrize("name", ulps.NEURONS)
def test_errors(name, dtype, function):
    measured = ulps.measure(ulps.NEURONS[name], dtype, ulps.routes(), POINTS, derivative=function == "f'")
    plain = measured.pop("plain")
    for route, figures in measured.items():
        inline = route == "inline"
        check_bounds(name, dtype, function, figures, inline=inline, fused=fuses(route))
        # Kernels without fused multiply-adds have their match in XLA without them: CI runs this so, too.
        if (fuses(route) or not fuses("plain")) and (dtype != "float32" or (name, function) not in WORSE):
            check_no_worse(figures, plain)


def test_every_neuron_has_bounds():
    assert set(FLOAT32) == set(ulps.NEURONS)


def test_the_measure():
    """Errors that are known: of neighbours, of infinities, beside a bend, and of flushed numbers."""
    x = np.float32([[1, 2, 3, 1e-30, 2.0**-140, 0.5, 3e38, 5]])
    true = ulps.truth(Neuron.none(), x, "float32", derivative=False)
    y = x.copy()
    assert ulps.figures(y, x, true, "float32").max == 0
    y[0, 2] = np.nextafter(np.float32(3), np.float32(9))
    found = ulps.figures(y, x, true, "float32")
    assert (found.max, found.mean, found.at, found.wrong) == (1.0, 1 / 7, 3.0, 0)
    y[0, 4] = 0
    assert ulps.figures(y, x, true, "float32")[:2] == found[:2]
    assert ulps.figures(y, x, true, "float32").below == 2.0**9
    y[0, 6] = np.inf
    assert ulps.figures(y, x, true, "float32").max == (2.0**128 - float(np.float32(3e38))) / 2.0**104
    y[0, 1] = np.nan
    assert ulps.figures(y, x, true, "float32").wrong == 1

    x = np.float32([[-1, 0, 1, 2, 6, 7, 8, 9]])
    true = ulps.truth(Neuron.relun(0.25, 6.0), x, "float32", derivative=True)
    np.testing.assert_array_equal(true.least, [[0.25, 0.25, 1, 1, 0, 0, 0, 0]])
    np.testing.assert_array_equal(true.greatest, [[0.25, 1, 1, 1, 1, 0, 0, 0]])

    root = np.full((1, 8), -0.7517915, np.float32)
    true = ulps.truth(Neuron.gelu(), root, "float32", derivative=True)
    assert abs(true.least[0, 0]) < 1e-7
    assert 0.44 < true.magnitude[0, 0] < 0.46


# The reference itself


def exactly(kind: T, z, a, b, c, derivative: bool):
    """f and f' of the types that are more than arithmetic, with 50 digits."""
    natural = c == -1
    u = a * z + b
    if kind is T.SIGMOID:
        s = 1 / (1 + mp.exp(-z))
        return s / (1 + mp.exp(z)) if derivative else s
    if kind is T.TANH:
        return a * b * mp.sech(b * z) ** 2 if derivative else a * mp.tanh(b * z)
    if kind is T.SOFTPLUS:
        return a * b / (1 + mp.exp(-b * z)) if derivative else a * mp.log1p(mp.exp(b * z))
    if kind is T.SOFTSIGN:
        return (1 + abs(z)) ** -2 if derivative else z / (1 + abs(z))
    if kind is T.ELU:
        below = a * (mp.exp(z) if derivative else mp.expm1(z))
        return below if z < 0 else mp.mpf(1) if derivative else z
    if kind is T.POWER:
        return a * c * mp.power(u, c - 1) if derivative else mp.power(u, c)
    if kind is T.EXPONENTIAL:
        base = mp.e if natural else c
        return a * mp.log(base) * mp.power(base, u) if derivative else mp.power(base, u)
    if kind is T.LOGARITHM:
        base = mp.e if natural else c
        return a / (u * mp.log(base)) if derivative else mp.log(u) / mp.log(base)
    if kind is T.GELU:
        cdf = mp.erfc(-z / mp.sqrt(2)) / 2
        return cdf + z * mp.npdf(z) if derivative else z * cdf
    raise AssertionError(kind)


# The rest is arithmetic, which float64 does with 29 more bits than float32 has.
TRANSCENDENTAL = [
    name
    for name, n in ulps.NEURONS.items()
    if n.type
    in (T.SIGMOID, T.TANH, T.SOFTPLUS, T.SOFTSIGN, T.ELU, T.POWER, T.EXPONENTIAL, T.LOGARITHM, T.GELU)
]


@pytest.mark.parametrize("name", TRANSCENDENTAL)
def test_the_reference_is_exact_enough(name):
    """Apple's table in float64 against 50 digits: within a hundredth of a float32's ULP."""
    neuron = ulps.NEURONS[name]
    x = ulps.sweep(neuron, "float32", 20_000).ravel()
    x = np.sort(x)[:: len(x) // 300]
    if neuron.type in (T.POWER, T.LOGARITHM):
        x = x[float(neuron.a) * x + float(neuron.b) > 0]
    with mpmath.workdps(50):
        parameters = [mp.mpf(float(np.float32(p))) for p in zoo.parameters(neuron)]
        for derivative in (False, True):
            true = ulps.truth(neuron, x, "float32", derivative=derivative)
            exact = [exactly(neuron.type, mp.mpf(float(z)), *parameters, derivative) for z in x]
            limit = mp.mpf(2) ** 128
            for z, expected, got, size in zip(x, exact, true.least, true.magnitude, strict=True):
                if z == 0 and derivative and neuron.type is T.ELU:
                    continue  # any slope between the two sides is right
                got = max(-limit, min(limit, mp.mpf(float(got))))
                error = abs(got - max(-limit, min(limit, expected)))
                assert error <= 0.01 * float(ulps.ulp(np.float64(min(size, 2.0**127)), "float32")), z
