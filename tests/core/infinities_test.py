"""f and f' at infinities, in every route: their limits, where these exist. NaN gives what it gave."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron import Neuron, metal, nn
from jax_mps_neuron import NeuronType as T
from jax_mps_neuron._core import formulas
from jax_mps_neuron._lowering import native
from support import apple
from support.arrays import DTYPES, x64
from support.metal_host import build

NEURONS = {
    "none": Neuron.none(),
    "relu": Neuron.relu(),
    "relu of 0.25": Neuron.relu(0.25),
    "relu of -0.25": Neuron.relu(-0.25),
    "linear": Neuron.linear(),
    "linear of 0": Neuron.linear(0.0, 0.5),
    "linear of -1": Neuron.linear(-1.0, 0.5),
    "sigmoid": Neuron.sigmoid(),
    "hard_sigmoid": Neuron.hard_sigmoid(),
    "hard_sigmoid of 0": Neuron.hard_sigmoid(0.0, 0.25),
    "hard_sigmoid of 0, 3": Neuron.hard_sigmoid(0.0, 3.0),
    "tanh": Neuron.tanh(),
    "tanh of 1.5, -2": Neuron.tanh(1.5, -2.0),
    "tanh of 1, 0": Neuron.tanh(1.0, 0.0),
    "tanh of 0, 1": Neuron.tanh(0.0, 1.0),
    "tanh of 0, 0": Neuron.tanh(0.0, 0.0),
    "absolute": Neuron.absolute(),
    "softplus": Neuron.softplus(),
    "softplus of -1, -1": Neuron.softplus(-1.0, -1.0),
    "softplus of 2, 0": Neuron.softplus(2.0, 0.0),
    "softplus of 0, 1": Neuron.softplus(0.0, 1.0),
    "softplus of 0, 0": Neuron.softplus(0.0, 0.0),
    "softsign": Neuron.softsign(),
    "elu": Neuron.elu(),
    "elu of 0": Neuron.elu(0.0),
    "prelu of 0": Neuron.prelu(jnp.zeros(1)),
    "prelu of 0.25": Neuron.prelu(jnp.full(1, 0.25)),
    "relun": Neuron.relun(),
    "relun of 0": Neuron.relun(0.0, 6.0),
    "power": Neuron.power(),
    "power of 0, 2, 2.5": Neuron.power(0.0, 2.0, 2.5),
    "power of 0, 2, 2": Neuron.power(0.0, 2.0, 2.0),
    "power of 0, 2, -1": Neuron.power(0.0, 2.0, -1.0),
    "power of c 0": Neuron.power(1.0, 0.5, 0.0),
    "power of c 2": Neuron.power(1.0, 0.5, 2.0),
    "power of c 3": Neuron.power(-1.0, 0.5, 3.0),
    "power of c -2": Neuron.power(1.0, 0.5, -2.0),
    "exponential": Neuron.exponential(),
    "exponential of -1": Neuron.exponential(-1.0, 0.5),
    "exponential of 0": Neuron.exponential(0.0, 1.0),
    "exponential of 0, 1, 2": Neuron.exponential(0.0, 1.0, 2.0),
    "exponential of c 0.5": Neuron.exponential(1.0, 0.0, 0.5),
    "exponential of c 1": Neuron.exponential(1.0, 0.0, 1.0),
    "logarithm": Neuron.logarithm(),
    "logarithm of 0": Neuron.logarithm(0.0, 2.0),
    "logarithm of 0, 2, 3": Neuron.logarithm(0.0, 2.0, 3.0),
    "gelu": Neuron.gelu(),
}
FUNCTIONS = (apple.f, apple.df)


def limit(function, neuron, sign):
    """The limit of Apple's f or f' at an infinity, from two large numbers; NaN where there is none."""
    p = [np.float64(0.0 if v is None else np.ravel(v)[0]) for v in (neuron.a, neuron.b, neuron.c)]
    with np.errstate(all="ignore"):
        near, far = (float(function(neuron.type, np.float64(sign * z), *p)) for z in (1e100, 1e300))
    if np.isnan(far) or near == far:
        return far
    return 0.0 if abs(far) < 1e-50 else np.copysign(np.inf, far)


LIMITS = {
    name: [[limit(function, neuron, sign) for sign in (-1, 1)] for function in FUNCTIONS]
    for name, neuron in NEURONS.items()
}


def check(name, f, df, dtype):
    """Asserts that f and f' at -infinity and infinity, last axis, are the limits."""
    tolerance = {"float32": 1e-6, "float64": 1e-14}.get(dtype, 5e-3)
    for what, got, wanted in zip(("f", "f'"), (f, df), LIMITS[name], strict=True):
        known = ~np.isnan(wanted)
        got = np.asarray(got, np.float64)[..., known]
        expected = np.broadcast_to(np.asarray(wanted)[known], got.shape)
        np.testing.assert_allclose(got, expected, rtol=tolerance, err_msg=f"{what} of {name}")


def test_limits_by_hand():
    """The limits themselves, for the types that arithmetic gives a NaN for."""
    assert LIMITS["relu"] == [[0, np.inf], [0, 1]]
    assert LIMITS["gelu"] == [[0, np.inf], [0, 1]]
    assert LIMITS["softsign"] == [[-1, 1], [0, 0]]
    assert LIMITS["linear of 0"] == [[0.5, 0.5], [0, 0]]
    assert LIMITS["tanh of 1, 0"] == [[0, 0], [0, 0]]
    assert LIMITS["softplus of 2, 0"] == [[2 * np.log(2)] * 2, [0, 0]]
    assert LIMITS["softplus of 0, 1"] == [[0, 0], [0, 0]]
    assert LIMITS["relu of -0.25"] == [[np.inf, np.inf], [-0.25, 1]]


# Rows of two columns: enough for blocks of vectors, single vectors and a part of one.
ROWS = 613


def infinities(dtype, rows=ROWS):
    """[rows, 2]: -infinity and infinity."""
    return jnp.asarray(np.tile([-np.inf, np.inf], (rows, 1)), dtype)


def by_type():
    """The names of each type's neurons, and the neurons as one with stacked parameters."""
    for neuron_type in T:
        names = [name for name, n in NEURONS.items() if n.type is neuron_type]
        neurons = [
            Neuron.prelu(jnp.tile(NEURONS[n].a, 2)) if neuron_type is T.PRELU else NEURONS[n] for n in names
        ]
        yield names, jax.tree.map(lambda *leaves: jnp.stack([jnp.float32(v) for v in leaves]), *neurons)


def check_limits(dtype, lowering, bias):
    """Of stacked neurons, by vmap: one call per type."""
    x, groups = infinities(dtype), list(by_type())

    def both(neuron):
        y = jmn.neuron(x, neuron, bias, lowering=lowering)
        return y, jmn.neuron_gradient(jnp.ones_like(x), x, neuron, bias, lowering=lowering).data

    @jax.jit
    def evaluate(neurons):
        return [
            jax.vmap(both, axis_size=len(names))(n) for (names, _), n in zip(groups, neurons, strict=True)
        ]

    results = jax.tree.map(np.asarray, evaluate([neuron for _, neuron in groups]))
    for (names, _), (y, data) in zip(groups, results, strict=True):
        for i, name in enumerate(names):
            check(name, y[i], data[i], dtype)


def test_limits_inline(dtype):
    check_limits(dtype, "inline", None)


@pytest.mark.usefixtures("native_library")
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("isa", native.isas())
def test_limits_of_kernels(dtype, isa, with_bias):
    before = native.isa()
    native.use_isa(isa)
    try:
        check_limits(dtype, "custom_call", jnp.asarray([0.25, -0.5], dtype) if with_bias else None)
    finally:
        native.use_isa(before)


def test_nan_and_finite_numbers_beside_infinities(lowering):
    """What is bounded is the infinite: neighbours do not change, and NaN stays."""
    finite = np.float32([-3e38, -40.0, -14.6, -1.5, -0.0, 0.0, 0.75, 14.6, 40.0, 3e38])
    mixed = np.float32([np.nan, -np.inf, *finite, np.inf, np.nan])
    for name, neuron in NEURONS.items():
        if neuron.type is T.PRELU:
            continue
        y, alone = (np.asarray(jmn.neuron(v, neuron, lowering=lowering)) for v in (mixed, finite))
        np.testing.assert_array_equal(y[2:-2], alone, err_msg=name)
        kept = not (neuron.c == 0 or neuron.c == 1) or neuron.type not in (T.POWER, T.EXPONENTIAL)
        if kept or name == "power":
            assert np.isnan(y[[0, -1]]).all(), name


def test_slope_gradient_at_infinity(lowering):
    """df/da stays z where z < 0, and 0 elsewhere."""
    x = jnp.float32([[-jnp.inf, jnp.inf, -2.0]])
    gradient = jmn.neuron_gradient(
        jnp.ones_like(x), x, Neuron.prelu(jnp.zeros(3)), jnp.zeros(3), lowering=lowering
    )
    np.testing.assert_array_equal(gradient.a, [-np.inf, 0, -2])


def test_parameters_of_0_have_their_gradients(lowering):
    """The bounds that a factor of 0 brings do not reach the derivative with respect to it."""
    x = jnp.linspace(-3.0, 3.0, 7)
    for make, derivative in (
        (Neuron.relu, np.minimum(x, 0)),
        (Neuron.linear, x),
        (lambda b: Neuron.tanh(1.0, b), x),
        (lambda b: Neuron.softplus(2.0, b), x),  # a z / 2
        (lambda a: Neuron.softplus(a, 1.0), np.logaddexp(0, x)),
        (lambda a: Neuron.logarithm(a, 2.0), x / 2),
        (lambda a: Neuron.exponential(a, 0.0), x),
        (lambda a: Neuron.power(a, 2.0, 3.0), 12 * x),
    ):

        def value(parameter, make=make):
            return jmn.neuron(x, make(parameter), lowering=lowering)

        each = jax.jit(jax.jacrev(value))(jnp.float32(0.0))
        np.testing.assert_allclose(each, derivative, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("coarse", [False, True])
def test_forms_of_f_prime_for_gpus(coarse):
    z = jnp.float32([-np.inf, np.inf])
    for name, neuron in NEURONS.items():
        parameters = [jnp.float32(0.0 if p is None else p).ravel() for p in (neuron.a, neuron.b, neuron.c)]
        df = jax.jit(formulas.derivative, static_argnums=0, static_argnames="coarse")(
            neuron.type, z, *parameters, coarse=coarse
        )
        known = ~np.isnan(LIMITS[name][1])
        np.testing.assert_allclose(
            np.asarray(df)[known], np.asarray(LIMITS[name][1])[known], rtol=1e-5, err_msg=name
        )


@pytest.mark.parametrize("dtype", DTYPES[:3])
def test_limits_of_the_metal_source(dtype, metal_cache):
    kernels = [metal.Kernel(t, dtype, forward=forward) for t in T for forward in (True, False)]
    host = build.Host(build.compile_kernels(metal.source(*kernels), metal_cache, f"limits-{dtype}"))
    x = np.asarray(infinities(dtype, 5))[None]
    for name, neuron in NEURONS.items():
        slope = None
        a, b, c = (0.0 if p is None else p for p in (neuron.a, neuron.b, neuron.c))
        if neuron.type is T.PRELU:
            a, slope = 0.0, np.full((1, 2), np.asarray(a)[0], np.float32)
        scalars = np.float32([[1.0, a, b, c]])
        forward, backward = (metal.Kernel(neuron.type, dtype, forward=f) for f in (True, False))
        y = host.forward(forward, x, scalars, None, slope)
        data, *_ = host.gradient(backward, np.ones_like(x), x, scalars, None, slope)
        check(name, y, data, dtype)


NN = {
    "relu": (nn.relu, "relu"),
    "relu6": (nn.relu6, "relun of 0"),
    "leaky_relu of 0": (lambda x: nn.leaky_relu(x, 0.0), "relu"),
    "leaky_relu of 0.25": (lambda x: nn.leaky_relu(x, 0.25), "relu of 0.25"),
    "leaky_relu of zeros": (lambda x: nn.leaky_relu(x, jnp.zeros(2)), "relu"),
    "elu": (nn.elu, "elu"),
    "elu of 0": (lambda x: nn.elu(x, 0.0), "elu of 0"),
    "softplus": (nn.softplus, "softplus"),
    "log_sigmoid": (nn.log_sigmoid, "softplus of -1, -1"),
    "sigmoid": (nn.sigmoid, "sigmoid"),
    "hard_sigmoid": (nn.hard_sigmoid, "hard_sigmoid"),
    "soft_sign": (nn.soft_sign, "softsign"),
    "tanh": (nn.tanh, "tanh"),
    "gelu": (lambda x: nn.gelu(x, approximate=False), "gelu"),
}


@pytest.mark.parametrize("dtype", DTYPES)
def test_limits_of_nn(dtype):
    with x64(dtype == "float64"):
        x = jnp.asarray([[-np.inf, np.inf]], dtype)

        @jax.jit
        def evaluate(x):
            return {name: jax.jvp(f, (x,), (jnp.ones_like(x),)) for name, (f, _) in NN.items()}

        for name, (y, tangent) in evaluate(x).items():
            check(NN[name][1], y, tangent, dtype)
