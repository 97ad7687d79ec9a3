"""neuron and neuron_gradient against float64 from Apple's table, and against autodiff of the formula."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from support import apple, formulas, zoo
from support.arrays import assert_close, draw, x64
from support.checks import LOWERINGS, Call, check_values_and_gradients

# Ranks 0 to 4; ragged, wide, long and empty. XLA makes the inline route's loops, whatever the shape.
SHAPES = {
    "custom_call": [(), (37,), (0,), (5, 3), (257, 1), (4, 0), (3, 5, 37), (2, 3, 0, 7), (7, 2500)],
    "inline": [(), (5, 3), (4, 0), (3, 5, 37)],
}


def named(*every):
    """Parameters name and dtype: all neurons in the dtypes given, some in the others."""
    return pytest.mark.parametrize(("name", "dtype"), zoo.in_dtypes(*every), indirect=["dtype"])


@named("float32", "float64")
def test_values_and_gradients(name, dtype, lowering):
    """One program for all shapes, each with and without a bias.

    native_test.py and accuracy_test.py have every type in every dtype.
    """
    check_values_and_gradients(calls_of(name, dtype, SHAPES[lowering]), lowering)


def calls_of(name, dtype, shapes):
    for i, shape in enumerate(shapes):
        channels = shape[-1] if shape else 1
        x, gradient = draw(2 * i, shape, dtype, 2.0), draw(2 * i + 1, shape, dtype)
        neuron = zoo.neurons(channels)[name]
        if not shape:  # one slope, also a scalar
            neuron = jax.tree.map(np.squeeze, neuron)
        for bias in (None, draw(99, (channels,), dtype, 0.5)) if shape else (None,):
            yield Call(gradient, x, neuron, bias)


@named("float32")
def test_vjp_is_that_of_the_formula(name, dtype):
    """All gradients, parameters' and alpha's included, against XLA's autodiff of what one writes."""
    neuron = zoo.neurons(5)[name]
    x, gradient = draw(0, (6, 5), dtype), draw(1, (6, 5), dtype)
    bias = draw(2, (5,), dtype, 0.5)
    wide = "float64" if dtype == "float64" else "float32"
    # Away from where f' jumps, which autodiff and Apple resolve each in their own way.
    z = np.asarray(x, wide) * 1.25 + np.asarray(bias, wide)
    x = jnp.asarray(np.where(np.abs(z) < 0.02, 0.5, np.asarray(x, wide)), dtype)
    # c is not learned here: see below.
    learned = [np.asarray(p, wide) for p in (neuron.a, neuron.b) if p is not None]
    fixed = () if neuron.c is None else (neuron.c,)

    def ours(x, bias, learned, alpha, lowering):
        moved = jmn.Neuron(neuron.type, *learned, *fixed)
        return jmn.neuron(x, moved, bias, alpha=alpha, lowering=lowering)

    def plain(x, bias, learned, alpha):
        return formulas.plain(neuron.type, alpha * x + bias, *learned, *fixed, base_e=neuron.c == -1)

    @jax.jit
    def every(x, bias, learned, alpha, gradient):
        """On both routes, and by autodiff."""
        results = []
        for lowering in LOWERINGS:
            y, vjp = jax.vjp(partial(ours, lowering=lowering), x, bias, learned, alpha)
            results.append((y, vjp(gradient)))
        y, vjp = jax.vjp(plain, x.astype(wide), bias.astype(wide), learned, alpha)
        return results, (y, vjp(gradient.astype(wide)))

    operands = x, bias, learned, np.asarray(1.25, wide)
    results, (expected_y, expected) = every(*operands, gradient)
    for y, actual in results:
        assert_close(y, expected_y)
        for got, want, operand in zip(*map(jax.tree.leaves, (actual, expected, operands)), strict=True):
            assert got.dtype == operand.dtype
            assert_close(got, want, factor=10)


def test_gradients_of_the_base(lowering):
    """c of power, exponential and logarithm, in float64 against finite differences."""
    with x64(True):
        x = np.linspace(-0.9, 1.1, 7)
        for make in (
            lambda c: jmn.Neuron.power(0.5, 2.0, c),
            lambda c: jmn.Neuron.exponential(0.5, 0.25, c),
            lambda c: jmn.Neuron.logarithm(0.5, 2.0, c),
        ):

            def total(c, make=make):
                return jmn.neuron(x, make(c), lowering=lowering).sum()

            step = 1e-6
            total_and_slope = jax.jit(jax.value_and_grad(total))
            above, below = (total_and_slope(1.75 + s)[0] for s in (step, -step))
            np.testing.assert_allclose(total_and_slope(1.75)[1], (above - below) / (2 * step), rtol=1e-8)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_whole_range(name, lowering):
    """float32 from the smallest to the largest magnitudes: no overflow on the way, no cancellation."""
    neuron = zoo.neurons(1)[name]
    magnitudes = np.concatenate([np.geomspace(1e-30, 1e30, 1201), np.linspace(0, 20, 2001)])
    x = np.concatenate([-magnitudes, magnitudes]).astype(np.float32)[:, None]
    if neuron.type in (jmn.NeuronType.POWER, jmn.NeuronType.LOGARITHM):
        x = x[(x >= 0)[:, 0]]  # below lies their domain's edge
    ones = np.ones_like(x)

    @jax.jit
    def both(x, ones):
        y = jmn.neuron(x, neuron, lowering=lowering)
        return y, jmn.neuron_gradient(ones, x, neuron, lowering=lowering).data

    y, data = (np.asarray(v, np.float64) for v in both(x, ones))
    tiny, huge = 2.0**-126, float(np.finfo(np.float32).max)
    for actual, expected in (
        (y, apple.neuron(x, neuron)),
        (data, apple.neuron_gradient(ones, x, neuron).data),
    ):
        representable = np.abs(expected) < huge
        np.testing.assert_array_equal(np.isinf(actual[np.isinf(expected)]), True)
        # Where f or f' crosses zero the rounding of z decides; where exp(-z^2/2) has decayed, that of z^2.
        np.testing.assert_allclose(
            actual[representable], expected[representable], rtol=3e-5, atol=max(1e-7, tiny)
        )


TAILS = {
    "sigmoid": (-80, 80),
    "tanh": (-60, 60),
    "softplus": (-55, 0),
    "elu": (-85, 0),
    "gelu": (-12.5, -1),
}


@pytest.mark.parametrize("name", TAILS)
def test_tails_keep_their_relative_accuracy(name, lowering):
    neuron = zoo.neurons()[name]
    x = np.linspace(*TAILS[name], 4001, dtype=np.float32)
    data = jmn.neuron_gradient(np.ones_like(x), x, neuron, lowering=lowering).data
    expected = apple.neuron_gradient(np.ones_like(x), x, neuron).data
    np.testing.assert_allclose(data, expected, rtol=2e-5)
    if name in ("softplus", "gelu"):
        y = jmn.neuron(x, neuron, lowering=lowering)
        np.testing.assert_allclose(y, apple.neuron(x, neuron), rtol=2e-5)


def test_choices_where_apples_table_is_ambiguous(lowering):
    def slope(x, neuron, bias=None):
        x = np.asarray(x, np.float32)
        return np.asarray(jmn.neuron_gradient(np.ones_like(x), x, neuron, bias, lowering=lowering).data)

    n = jmn.Neuron
    below, above = np.nextafter(np.float32([-2.5, 2.5]), np.float32([-9, 9]))
    np.testing.assert_array_equal(
        slope([below, -2.5, 0, 2.5, above], n.hard_sigmoid()), np.float32([0, 0.2, 0.2, 0.2, 0])
    )
    np.testing.assert_array_equal(slope([-1, 0, 5.5, 6, 7], n.relun(0.5)), [0.5, 1, 1, 0, 0])
    np.testing.assert_array_equal(slope([-1, -0.0, 0, 1], n.relu(0.25)), [0.25, 1, 1, 1])
    np.testing.assert_array_equal(slope([-0.0, 0.0], n.elu(3.0)), [1, 1])
    np.testing.assert_array_equal(slope([[-1.0], [0.0]], n.prelu(np.float32([0.25]))), [[0.25], [1]])
    np.testing.assert_array_equal(slope([-2, -0.0, 0, 2], n.absolute()), [-1, 0, 0, 1])


@named("float32")
def test_nan_and_infinity(name, dtype, lowering):
    neuron = zoo.neurons(1)[name]
    x = np.asarray([[np.nan], [np.inf], [-np.inf]]).astype(jnp.dtype(dtype))
    ones = np.ones_like(x)

    @jax.jit
    def every(x, ones):
        y = jmn.neuron(x, neuron, lowering=lowering)
        data = jmn.neuron_gradient(ones, x, neuron, lowering=lowering).data
        return y, data, jmn.neuron_gradient(x[:1] * ones, ones, neuron, lowering=lowering).data

    y, data, of_nan = (np.asarray(v, np.float64) for v in every(x, ones))
    assert np.isnan(y[0])
    limits = {"relu": -0.0, "gelu": -0.0, "softsign": -1.0}  # at -infinity, where the formula is 0 * inf
    expected = apple.neuron(x, neuron)
    expected[2] = limits.get(name, expected[2])
    expected[1] = 1.0 if name == "softsign" else expected[1]
    np.testing.assert_array_equal(y, expected)
    smooth = {"sigmoid", "tanh", "softplus", "softsign", "elu", "power", "gelu", "exponential", "logarithm"}
    if name in smooth:
        assert np.isnan(data[0])
    assert np.isnan(of_nan).all()


def test_domain_edges(lowering):
    x = np.float32([-1.0, -0.0, 0.0, 1.0])

    def both(neuron):
        y = jmn.neuron(x, neuron, lowering=lowering)
        data = jmn.neuron_gradient(np.ones_like(x), x, neuron, lowering=lowering).data
        return np.asarray(y), np.asarray(data)

    nan, inf = np.nan, np.inf
    y, data = both(jmn.Neuron.logarithm())
    np.testing.assert_array_equal(y, [nan, -inf, -inf, 0])
    np.testing.assert_array_equal(np.abs(data), [1, inf, inf, 1])
    y, data = both(jmn.Neuron.power(c=0.5))
    np.testing.assert_array_equal(y, [nan, 0, 0, 1])
    np.testing.assert_array_equal(data, [nan, inf, inf, 0.5])
    y, data = both(jmn.Neuron.power(c=3.0))
    np.testing.assert_array_equal(y, [-1, 0, 0, 1])
    np.testing.assert_array_equal(data, [3, 0, 0, 3])
    y, data = both(jmn.Neuron.power(c=-1.0))
    np.testing.assert_array_equal(y, [-1, inf, inf, 1])  # 1 * -0 + 0 is +0
    np.testing.assert_array_equal(data, [-1, -inf, -inf, -1])


@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("vector_dtype", ["float32", "float16", "bfloat16"])
def test_gradients_have_the_dtypes_of_what_they_are_gradients_of(x_dtype, vector_dtype, lowering):
    x, bias, slope = draw(0, (4, 3), x_dtype), draw(1, (3,), vector_dtype), draw(2, (3,), vector_dtype)
    alpha = jnp.float16(1.5)

    def total(x, bias, slope, alpha):
        return jmn.neuron(x, jmn.Neuron.prelu(slope), bias, alpha=alpha, lowering=lowering).sum()

    gradients = jax.grad(total, argnums=(0, 1, 2, 3))(x, bias, slope, alpha)
    assert [str(g.dtype) for g in gradients] == [x_dtype, vector_dtype, vector_dtype, "float16"]
    result = jmn.neuron_gradient(x, x, jmn.Neuron.prelu(slope), bias, lowering=lowering)
    assert [str(g.dtype) for g in result] == [x_dtype, vector_dtype, vector_dtype]


def test_gradient_of_another_dtype_loses_nothing(lowering):
    x, gradient = draw(0, (4, 3), "bfloat16"), draw(1, (4, 3), "float32")
    bias = draw(2, (3,), "float32")
    actual = jmn.neuron_gradient(gradient, x, jmn.Neuron.gelu(), bias, lowering=lowering)
    expected = apple.neuron_gradient(gradient, x, jmn.Neuron.gelu(), bias)
    assert actual.data.dtype == "bfloat16"
    assert_close(actual.bias, expected.bias, "float32", factor=4)


def test_bfloat16_sums_are_made_in_float32(lowering):
    ones = jnp.ones((10_000, 3), "bfloat16")
    bias = jnp.zeros(3, "float32")
    result = jmn.neuron_gradient(ones, ones, jmn.Neuron.none(), bias, lowering=lowering)
    np.testing.assert_array_equal(result.bias, [10_000.0] * 3)


def test_python_and_numpy_numbers(lowering):
    expected = apple.neuron(0.5, jmn.Neuron.tanh(1.5, 0.5), alpha=2.0)
    for x in (0.5, np.float32(0.5), jnp.float32(0.5)):
        y = jmn.neuron(x, jmn.Neuron.tanh(np.float64(1.5), jnp.float32(0.5)), alpha=2, lowering=lowering)
        assert y.shape == ()
        np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_reference_is_the_same_function(name):
    neuron = zoo.neurons(5)[name]
    x, gradient, bias = draw(0, (4, 5)), draw(1, (4, 5)), draw(2, (5,))

    @jax.jit
    def every(gradient, x, bias):
        y, vjp = jax.vjp(lambda x, bias: jmn.reference.neuron(x, neuron, bias, alpha=1.5), x, bias)
        return y, vjp(gradient), jmn.reference.neuron_gradient(gradient, x, neuron, bias, alpha=1.5)

    y, by_autodiff, result = every(gradient, x, bias)
    assert_close(y, apple.neuron(x, neuron, bias, 1.5))
    expected = apple.neuron_gradient(gradient, x, neuron, bias, 1.5)
    for data, of_bias in (by_autodiff, result[:2]):
        assert_close(data, expected.data)
        assert_close(of_bias, expected.bias, factor=4)
