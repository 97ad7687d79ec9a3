"""jax_mps_neuron.nn beside jax.nn: signatures, dtypes, values, slopes at bends and edges, in both modes."""

from __future__ import annotations

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jax_mps_neuron import nn
from support.arrays import assert_close, draw, x64

ELU_ALPHA = 1.5


def pair(name: str):
    """The twin and what it is a twin of."""
    if not hasattr(jax.nn, name):
        pytest.skip(f"jax {jax.__version__} has no jax.nn.{name}")
    return getattr(nn, name), getattr(jax.nn, name)


def variants():
    """Every twin, and those with parameters with others than the default."""
    named = [pytest.param(name, {}, id=name) for name in nn.__all__]
    return [
        *named,
        pytest.param("gelu", {"approximate": False}, id="gelu exact"),
        pytest.param("leaky_relu", {"negative_slope": 0.25}, id="leaky_relu 0.25"),
        pytest.param("elu", {"alpha": ELU_ALPHA}, id="elu 1.5"),
    ]


# Those that are a neuron, and no function of jax.nn's.
computed = pytest.mark.parametrize(
    ("name", "options"), [v for v in variants() if v.id not in ("gelu", "identity")]
)
every = pytest.mark.parametrize(("name", "options"), variants())

# Bends and what is around them, tails, infinities; no subnormal numbers, which XLA takes for 0 on CPUs.
POINTS = [0.0, -0.0, 1e-4, -1e-4, 3.0, -3.0, 2.9, -2.9, 3.1, -3.1, 5.996, 6.0, 6.004, -6.0, 0.5, -0.5]
EDGES = [np.inf, -np.inf, np.nan, 6e4, -6e4]


@every
def test_signature(name, options):
    ours, theirs = (inspect.signature(function) for function in pair(name))
    assert list(ours.parameters) == list(theirs.parameters)
    for mine, other in zip(ours.parameters.values(), theirs.parameters.values(), strict=True):
        assert (mine.kind, mine.default) == (other.kind, other.default)


INPUTS = {
    "Python float": 1.0,
    "Python int": 1,
    "bool": True,
    "int32": np.arange(3, dtype=np.int32),
    "int8": np.arange(3, dtype=np.int8),
    "uint8": np.arange(3, dtype=np.uint8),
    "bool array": np.array([True, False]),
    "NumPy float64": np.ones(3),
    "NumPy scalar": np.float32(2),
    "float16": np.ones(3, np.float16),
    "bfloat16": jnp.ones(3, jnp.bfloat16),
    "float8": jnp.ones(3, jnp.float8_e4m3fn),
    "complex": np.array([1 + 1j, -0.5j], np.complex64),
    "list": [1.0, -1.0],
    "text": "x",
    "none": None,
    "empty": np.zeros((0, 4), np.float32),
}


def outcome(function, x):
    """The type and shape of the result, or of the error."""
    try:
        (y,) = jax.make_jaxpr(lambda: function(x))().out_avals
    except Exception as error:
        return type(error).__name__
    return str(y.dtype), y.weak_type, y.shape


@pytest.mark.parametrize("wide", [False, True], ids=["", "x64"])
@every
def test_takes_and_gives_what_jax_nn_does(name, options, wide):
    ours, theirs = (partial(function, **options) for function in pair(name))
    with x64(wide):
        for what, x in {**INPUTS, "weak": jnp.asarray(2.0)}.items():
            assert outcome(ours, x) == outcome(theirs, x), what
    if name != "sigmoid":
        integers = np.arange(-4, 8)
        np.testing.assert_array_equal(ours(integers), theirs(integers))


@computed
def test_values_and_gradients(name, options, dtype):
    """Against jax.nn in float64."""
    ours, theirs = (partial(function, **options) for function in pair(name))
    points = np.concatenate([np.asarray(POINTS), np.linspace(-30, 30, 997)])
    x = jnp.asarray(points, dtype)
    gradient = draw(1, x.shape, dtype)
    y, pull = jax.vjp(ours, x)
    y_forward, moved = jax.jvp(ours, (x,), (gradient,))
    (pulled,) = pull(gradient)
    assert y.dtype == moved.dtype == pulled.dtype == x.dtype
    with x64(True):
        exact, pull_exact = jax.vjp(theirs, jnp.asarray(np.asarray(x, np.float64)))
        (d_exact,) = pull_exact(jnp.asarray(np.asarray(gradient, np.float64)))
    if name == "tanh":  # jax.nn's derivative, 1 - tanh^2, cancels
        d_exact = np.asarray(gradient, np.float64) / np.cosh(np.asarray(x, np.float64)) ** 2
    for actual, expected in ((y, exact), (y_forward, exact)):
        assert_close(actual, expected)
    reads_y = name in ("sigmoid", "tanh") and jnp.finfo(dtype).bits > 16  # as jax.nn: 1 - y cancels
    for actual in (pulled, moved):
        if reads_y:
            error = 4 * float(jnp.finfo(dtype).eps) * np.abs(np.float64(gradient))
            assert (np.abs(np.float64(actual) - d_exact) <= error).all()
        else:
            assert_close(actual, d_exact)


@computed
def test_bends_and_edges(name, options, dtype):
    """The slope at a bend is one of two numbers far apart, so it is that of jax.nn in the same dtype."""
    ours, theirs = (partial(function, **options) for function in pair(name))
    x = jnp.asarray(POINTS + EDGES, dtype)
    if name in ("soft_sign", "gelu"):
        x = x[jnp.isfinite(x)]  # jax.nn's is NaN at infinities; ours has the limit

    def slopes(function, x):
        y, moved = jax.jvp(function, (x,), (jnp.ones_like(x),))
        pulled = jax.vjp(function, x)[1](jnp.ones_like(x))[0]
        return y, moved, pulled, jax.vmap(jax.grad(function))(x)

    every = jax.jit(lambda x: [slopes(function, x) for function in (ours, theirs)])(x)
    tolerance = {"float32": 1e-5, "float64": 1e-12}.get(dtype, 2e-2)
    for actual, expected in zip(*every, strict=True):
        wide = np.float64(actual), np.float64(expected)
        np.testing.assert_allclose(*wide, rtol=tolerance, atol=tolerance)


def test_soft_sign_at_infinity():
    x = jnp.array([jnp.inf, -jnp.inf])
    assert jax.vmap(jax.grad(nn.soft_sign))(x).tolist() == [0.0, 0.0]
    assert np.isnan(jax.vmap(jax.grad(jax.nn.soft_sign))(x)).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hard_sigmoid_next_to_its_bends(dtype):
    with x64(dtype == "float64"):
        beside = 3 - (4 if dtype == "float64" else 1) * np.spacing(np.asarray(2.9, dtype))
        inside = jnp.asarray([beside, -beside], dtype)
        bends = jnp.asarray([3, -3], dtype)
        assert np.allclose(jax.vmap(jax.grad(nn.hard_sigmoid))(inside), 1 / 6)
        assert not jax.vmap(jax.grad(nn.hard_sigmoid))(bends).any()


def test_smallest_normal_number_is_right_of_the_bend():
    tiny = jnp.finfo(jnp.float32).tiny
    for function in (nn.relu, nn.relu6, partial(nn.elu, alpha=ELU_ALPHA)):
        assert jax.grad(function)(jnp.float32(tiny)) == 1
        assert jax.grad(function)(jnp.float32(-tiny)) == jax.grad(function)(jnp.float32(0)) != 1


def along(function):
    """The derivative of an elementwise function, forward."""
    return lambda x: jax.jvp(function, (x,), (jnp.ones_like(x),))[1]


def against(function):
    """The derivative of an elementwise function, in reverse."""
    return lambda x: jax.vjp(function, x)[1](jnp.ones_like(x))[0]


@computed
def test_higher_orders(name, options):
    """Up to the third derivative, in both modes and mixed."""
    ours, theirs = (partial(function, **options) for function in pair(name))
    with x64(True):
        x = jnp.asarray([-2.3, -0.7, 0.01, 1.3])

        @jax.jit
        def derivatives(x):
            third = [against(against(against(ours))), along(along(along(ours)))]
            return [along(against(ours))(x), against(along(ours))(x)], [d(x) for d in third]

        seconds, thirds = derivatives(x)
        second, third = jax.jit(lambda x: (along(along(theirs))(x), along(along(along(theirs)))(x)))(x)
    for actual, expected in [*((s, second) for s in seconds), *((t, third) for t in thirds)]:
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12)


@computed
def test_one_call(name, options, native_library):
    """Reverse, forward, mapped: each is one neuron-gradient call, and no other."""
    function = partial(pair(name)[0], **options)
    x = draw(5, (3, 8, 4))

    def gradients(program):
        return jax.jit(program).lower(x).as_text().count("@jax_mps_neuron.neuron_gradient(")

    assert gradients(jax.grad(lambda x: function(x).sum())) == 1
    assert gradients(lambda x: jax.jvp(function, (x,), (x,))[1]) == 1
    assert gradients(jax.vmap(jax.vmap(jax.grad(lambda x: function(x).sum())))) == 1


@pytest.mark.parametrize("name", ["relu", "relu6"])
def test_keeps_its_result_alone(name):
    """The residual is what the next layer keeps anyway, and not x."""
    function, x = pair(name)[0], 4 * draw(8, (64, 4))
    y, pull = jax.vjp(function, x)
    (kept,) = (r for r in jax.tree.leaves(pull) if r.size == x.size)
    np.testing.assert_array_equal(kept.ravel(), y.ravel())


SLOPES = {
    "scalar": jnp.float32(0.25),
    "NumPy": np.float64(0.25),
    "integer": 2,
    "per channel": np.array([0.25, -0.5, 0.0, 1.0], np.float32),
    "half": np.array([0.25, -0.5, 0.0, 1.0], np.float16),
    "per row": np.array([[0.25], [-0.5], [2.0]], np.float32),
    "bool": True,
}


@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("slope", SLOPES.values(), ids=SLOPES)
@pytest.mark.parametrize("name", ["leaky_relu", "elu"])
def test_parameters(name, slope, x_dtype):
    """Any that jax.nn takes, with its promotions, and a gradient where it is differentiated."""
    ours, theirs = pair(name)
    x = draw(9, (3, 4), x_dtype).at[0, 0].set(0)
    y, expected = ours(x, slope), theirs(x, slope)
    assert (y.dtype, y.weak_type, y.shape) == (expected.dtype, expected.weak_type, expected.shape)
    coarse = {"rtol": 2e-2, "atol": 2e-2} if "bfloat16" in (x_dtype, str(y.dtype)) else {"rtol": 2e-6}
    np.testing.assert_allclose(np.asarray(y, np.float32), np.asarray(expected, np.float32), **coarse)
    if isinstance(slope, (int, bool)):
        return
    slope = jnp.asarray(slope)

    @jax.jit
    def derivatives(x, slope):
        for_both = []
        for f in (ours, theirs):
            gradients = jax.grad(lambda x, s, f=f: (f(x, s) * (1 + x)).sum(), (0, 1))(x, slope)
            moved = jax.jvp(f, (x, slope), (jnp.ones_like(x), jnp.ones_like(slope)))[1]
            for_both.append((gradients, moved))
        return for_both

    (got, got_moved), (wanted, wanted_moved) = derivatives(x, slope)
    for mine, other in zip(got, wanted, strict=True):
        assert (mine.dtype, mine.shape) == (other.dtype, other.shape)
        tolerance = 4e-2 if {"bfloat16", "float16"} & {x_dtype, str(mine.dtype)} else 4e-6
        np.testing.assert_allclose(
            np.asarray(mine, np.float32), np.asarray(other, np.float32), rtol=tolerance, atol=tolerance
        )
    moved = (np.asarray(m, np.float32) for m in (got_moved, wanted_moved))
    np.testing.assert_allclose(*moved, rtol=4e-2, atol=1e-6)


def test_weakly_typed_parameters_stay_weak():
    assert nn.elu(1.0, jnp.asarray(2.0)).weak_type
    assert not nn.elu(1.0, np.float32(2.0)).weak_type
    assert nn.elu(jnp.ones(2, jnp.bfloat16), jnp.asarray(2.0)).dtype == jnp.bfloat16


def test_in_a_scan():
    """Weak types in a carry, and no tracer left behind."""

    def step(carry, _):
        return nn.sigmoid(carry + 1.0), None

    with jax.checking_leaks():
        jax.jit(lambda: jax.lax.scan(step, jnp.array(0.0), None, length=2))()


def test_what_is_not_computed_is_the_same():
    x = jnp.asarray([*POINTS, *EDGES])
    np.testing.assert_array_equal(nn.gelu(x), jax.nn.gelu(x))
    np.testing.assert_array_equal(nn.identity(x), x)
    assert jax.grad(nn.identity)(6.0) == 1


def test_traces_without_computing():
    for function in (nn.elu, nn.relu, nn.softplus):
        jax.make_jaxpr(lambda f=function: f(jnp.ones((10**12,))))


@pytest.mark.parametrize("name", ["elu", "leaky_relu"])
def test_none_is_no_parameter(name):
    """Where a `Neuron` would take its default."""
    errors = []
    for module in (nn, jax.nn):
        with pytest.raises((TypeError, ValueError)) as error:
            getattr(module, name)(jnp.ones(3), None)
        errors.append(error.type)
    assert errors[0] is errors[1]


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "relu", "softplus", "soft_sign", "elu"])
def test_gradients_of_weak_types_are_weak(name):
    ours, theirs = (jax.grad(getattr(module, name))(0.5) for module in (nn, jax.nn))
    assert (jnp.bfloat16(1) * ours).dtype == (jnp.bfloat16(1) * theirs).dtype == jnp.bfloat16
