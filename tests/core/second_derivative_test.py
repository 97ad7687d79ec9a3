"""Second and third derivatives far out, against closed forms in mpmath: as accurate as the first."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from mpmath import mp

import jax_mps_neuron as jmn
from jax_mps_neuron import Neuron, nn
from jax_mps_neuron import NeuronType as T
from support.arrays import x64


def second_derivative(neuron, z):
    """f'' at a number, with mp's precision. No form cancels."""
    a, b, c = (mp.mpf(0 if p is None else float(p)) for p in (neuron.a, neuron.b, neuron.c))
    density = lambda u: 1 / ((1 + mp.exp(u)) * (1 + mp.exp(-u)))  # noqa: E731, the logistic one
    base = mp.e if c == -1 else c
    match neuron.type:
        case T.SIGMOID:
            return -density(z) * mp.tanh(z / 2)
        case T.TANH:
            return -2 * a * b**2 * mp.sech(b * z) ** 2 * mp.tanh(b * z)
        case T.SOFTPLUS:
            return a * b**2 * density(b * z)
        case T.SOFTSIGN:
            return -2 * mp.sign(z) / (1 + abs(z)) ** 3
        case T.ELU:
            return a * mp.exp(z) if z < 0 else mp.mpf(0)
        case T.POWER:
            return a**2 * c * (c - 1) * mp.power(a * z + b, c - 2)
        case T.EXPONENTIAL:
            return (a * mp.log(base)) ** 2 * mp.power(base, a * z + b)
        case T.LOGARITHM:
            return -(a**2) / (mp.log(base) * (a * z + b) ** 2)
        case T.GELU:
            return (2 - z**2) * mp.npdf(z)
    return mp.mpf(0)


EXPONENTIAL = [0.5, 5.0, 15.0, 17.5, 20.0, 37.43, 50.0, 80.0]
ALGEBRAIC = [0.5, 7.0, 1e3, 1e7, 1e10]
NORMAL = [0.25, 3.0, 5.0, 8.0, 12.5]


def both(points):
    return [-p for p in reversed(points)] + points


# Neurons, and where f'' is a normal number of float32; and where it is one of float64.
CASES = {
    "none": (Neuron.none(), both(ALGEBRAIC), both([1e200])),
    "relu": (Neuron.relu(0.25), both(ALGEBRAIC), both([1e200])),
    "linear": (Neuron.linear(1.5, 0.5), both(ALGEBRAIC), both([1e200])),
    "sigmoid": (Neuron.sigmoid(), both(EXPONENTIAL), both([300.0, 700.0])),
    "hard_sigmoid": (Neuron.hard_sigmoid(), both(ALGEBRAIC), both([1e200])),
    "tanh": (Neuron.tanh(), both([0.5, 5.0, 9.0, 20.0, 40.0]), both([150.0, 350.0])),
    "tanh_scaled": (Neuron.tanh(1.75, 0.625), both([0.5, 5.0, 20.0, 60.0]), both([500.0])),
    "absolute": (Neuron.absolute(), both(ALGEBRAIC), both([1e200])),
    "softplus": (Neuron.softplus(), both(EXPONENTIAL), both([300.0, 700.0])),
    "log_sigmoid": (Neuron.softplus(-1.0, -1.0), both(EXPONENTIAL), both([300.0, 700.0])),
    "softplus_scaled": (Neuron.softplus(1.25, 1.5), both([0.5, 5.0, 20.0, 50.0]), both([450.0])),
    "softsign": (Neuron.softsign(), both(ALGEBRAIC), both([1e60, 1e90])),
    "elu": (Neuron.elu(1.125), both(EXPONENTIAL), both([300.0, 700.0])),
    "relun": (Neuron.relun(0.25, 6.0), both(ALGEBRAIC), both([1e200])),
    "power": (Neuron.power(0.5, 8.0, 2.75), [-15.5, -8.0, 0.5, 1e3, 1e10], [1e100]),
    "power_negative": (Neuron.power(1.0, 0.5, -1.5), [0.5, 7.0, 1e3, 1e7], [1e60]),
    "square": (Neuron.power(1.0, 0.5, 2.0), both(ALGEBRAIC), both([1e100])),
    "exponential": (Neuron.exponential(0.75, 0.125), both([0.5, 5.0, 37.43, 80.0]), both([800.0])),
    "exponential_base": (Neuron.exponential(0.75, 0.125, 1.875), both([0.5, 5.0, 37.43]), both([800.0])),
    "logarithm": (Neuron.logarithm(0.5, 8.0), [-15.5, 0.5, 1e3, 1e10, 1e17], [1e150]),
    "logarithm_steep": (Neuron.logarithm(1e5, 8.0, 3.0), [0.5, 1e3, 1e10, 1e15], [1e150]),
    "gelu": (Neuron.gelu(), both(NORMAL), both([20.0, 30.0, 37.5])),
}
FUNCTIONS = {
    "neuron": lambda neuron: lambda x: jmn.neuron(x, neuron),
    "inline": lambda neuron: lambda x: jmn.neuron(x, neuron, lowering="inline"),
    "reference": lambda neuron: lambda x: jmn.reference.neuron(x, neuron),
}


def check(function, exact, neuron, points, dtype, order):
    """Relative errors: of a few roundings, and of arguments of exp, which are rounded before it."""
    x = np.array(points, dtype)

    def derivative(f, count):
        return f if count == 0 else derivative(jax.grad(lambda x: f(x).sum()), count - 1)

    got = np.asarray(jax.jit(derivative(function, order))(jnp.asarray(x)))
    assert got.dtype == dtype
    eps = float(np.finfo(dtype).eps)
    with mpmath.workdps(40):
        for z, value in zip(x, got, strict=True):
            true = exact(neuron, mp.mpf(float(z)))
            bound = 0 if true == 0 else abs(true) * eps * (32 + 4 * abs(mp.log(abs(true))))
            assert abs(mp.mpf(float(value)) - true) <= bound, (z, value, true)


def points_of(name, dtype):
    _, narrow, wide = CASES[name]
    return narrow + wide if dtype == "float64" else narrow


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("name", CASES)
def test_second_derivative(name, function, dtype):
    neuron = CASES[name][0]
    with x64(dtype == "float64"):
        check(FUNCTIONS[function](neuron), second_derivative, neuron, points_of(name, dtype), dtype, 2)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_second_derivative_of_prelu(dtype):
    with x64(dtype == "float64"):
        x = jnp.asarray([[-3.0, 2.0], [1e10, -1e10]], dtype)
        slopes = Neuron.prelu(jnp.asarray([0.25, -0.5], dtype))
        first = jax.grad(lambda x: (jmn.neuron(x, slopes)).sum())
        np.testing.assert_array_equal(jax.grad(lambda x: first(x).sum())(x), np.zeros((2, 2)))


def third_derivative(neuron, z):
    return mp.diff(lambda t: second_derivative(neuron, t * z), 1) / z  # steps in proportion to z


SMOOTH = ["sigmoid", "tanh", "softplus", "log_sigmoid", "softsign", "elu", "power", "exponential"]
SMOOTH += ["logarithm", "gelu"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", SMOOTH)
def test_third_derivative(name, dtype):
    points = points_of(name, dtype)
    if name == "softsign":
        points = both([0.5, 7.0, 1e3, 1e7])  # r^4 underflows beyond
    if name == "logarithm":
        points = [-15.5, 0.5, 1e3, 1e10]
    with x64(dtype == "float64"):
        check(FUNCTIONS["neuron"](CASES[name][0]), third_derivative, CASES[name][0], points, dtype, 3)


# nn's functions. From y, sigmoid and tanh lose f' where y rounds to a bound; f'' is lost with it.
NN = {
    "sigmoid": (nn.sigmoid, "sigmoid", [-700.0, -300.0, -80.0, -37.43, -17.5, -5.0, -0.5, 0.5]),
    "tanh": (nn.tanh, "tanh", [-0.5, 0.25, 0.5]),
    "softplus": (nn.softplus, "softplus", None),
    "log_sigmoid": (nn.log_sigmoid, "log_sigmoid", None),
    "soft_sign": (nn.soft_sign, "softsign", None),
    "elu": (lambda x: nn.elu(x, 1.125), "elu", None),
    "gelu": (lambda x: nn.gelu(x, approximate=False), "gelu", None),
    "relu": (nn.relu, "relu", None),
    "leaky_relu": (nn.leaky_relu, "relu", None),
    "relu6": (nn.relu6, "relun", None),
    "hard_sigmoid": (nn.hard_sigmoid, "hard_sigmoid", None),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", NN)
def test_second_derivative_of_nn(name, dtype):
    function, of, points = NN[name]
    points = points or points_of(of, dtype)
    if dtype == "float32":
        points = [p for p in points if p > -100 or CASES[of][0].type is not T.SIGMOID]
    with x64(dtype == "float64"):
        check(function, second_derivative, CASES[of][0], points, dtype, 2)


def test_log_sigmoid_where_autodiff_of_the_formula_cancels():
    with x64(True):
        second = jax.grad(jax.grad(nn.log_sigmoid))(-37.43)
        np.testing.assert_allclose(second, -5.5512e-17, rtol=1e-4)


@pytest.mark.parametrize("route", ["custom_call", "inline", "reference"])
@pytest.mark.parametrize(("exponent", "order"), [(1.0, 2), (2.0, 3), (1.0, 3), (3.0, 4)])
def test_a_power_differentiated_more_often_than_its_exponent(exponent, order, route):
    """It is 0, also at a base of 0, where x^(y - 1) is infinite."""
    neuron = Neuron.power(1.0, 0.0, exponent)

    def function(x):
        if route == "reference":
            return jmn.reference.neuron(x, neuron)
        return jmn.neuron(x, neuron, lowering=route)

    for _ in range(order):
        function = jax.grad(function)
    for x in (0.0, -1.5, 2.0):
        assert float(function(jnp.float32(x))) == 0.0
