"""What JAX does to functions beside vmap: derivatives, control flow, donation, debugging."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from support import apple, zoo
from support.arrays import assert_close, draw, x64
from support.programs import lowered

Neuron = jmn.Neuron

# Differentiation


@pytest.mark.parametrize("name", zoo.NAMES)
def test_second_derivatives(name, lowering):
    """grad of grad, forward over reverse and hessian, in float64 against differences of Apple's f'."""
    neuron = zoo.neurons(3)[name]
    with x64(True):
        x = jnp.asarray([[-0.7, 0.31, 0.9], [0.4, -0.2, 1.3]])
        x = jnp.where(name == "hard_sigmoid", 0.1 * x, x)
        bias = jnp.asarray([0.1, -0.05, 0.2])

        def total(x, bias):
            return jmn.neuron(x, neuron, bias, alpha=1.5, lowering=lowering).sum()

        def slope(x):
            ones = np.ones_like(x)
            return apple.neuron_gradient(ones, x, neuron, np.asarray(bias), 1.5).data

        h = 1e-6
        expected = (slope(np.asarray(x) + h) - slope(np.asarray(x) - h)) / (2 * h)
        grad = jax.grad(total)

        @jax.jit
        def seconds(x, bias):
            by_jvp = jax.jvp(lambda x: grad(x, bias), (x,), (jnp.ones_like(x),))[1]
            by_vjp = jax.grad(lambda x: (grad(x, bias)).sum())(x)
            return by_jvp, by_vjp, jax.hessian(total)(x, bias), jax.hessian(total, argnums=1)(x, bias)

        by_jvp, by_vjp, hessian, of_bias = seconds(x, bias)
        hessian = hessian.reshape(6, 6)
        for second in (by_jvp, by_vjp, np.diag(hessian).reshape(2, 3)):
            np.testing.assert_allclose(second, expected, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(hessian - np.diag(np.diag(hessian)), 0, atol=1e-12)
        # Mixed: the bias moves every row of its channel.
        np.testing.assert_allclose(np.diag(of_bias), expected.sum(0) / 1.5**2, rtol=1e-7, atol=1e-7)


def test_third_derivative_is_smooth_at_zero(lowering):
    """Where a formula folds z to abs(z), its higher derivatives must not show it."""
    with x64(True):
        for neuron, expected in ((Neuron.sigmoid(), -1 / 8), (Neuron.gelu(), 0.0)):
            f = lambda z, neuron=neuron: jmn.neuron(z, neuron, lowering=lowering)  # noqa: E731
            third = jax.jit(jax.grad(jax.grad(jax.grad(f))))
            np.testing.assert_allclose(third(0.0), expected, rtol=1e-12, atol=1e-12)


def test_gradient_function_is_differentiable(lowering):
    gradient, x, bias = draw(0, (3, 4)), draw(1, (3, 4)), draw(2, (4,))

    def total(gradient, x, bias, alpha):
        result = jmn.neuron_gradient(
            gradient, x, Neuron.tanh(1.5, 0.5), bias, alpha=alpha, lowering=lowering
        )
        return (result.data**2).sum() + (result.bias**3).sum()

    def plain(gradient, x, bias, alpha):
        d = gradient * 1.5 * 0.5 * (1 - jnp.tanh(0.5 * (alpha * x + bias)) ** 2)
        return ((alpha * d) ** 2).sum() + (d.sum(0) ** 3).sum()

    every = jax.jit(lambda *o: [jax.grad(f, argnums=(0, 1, 2, 3))(*o) for f in (total, plain)])
    actual, expected = every(gradient, x, bias, 1.25)
    for got, want in zip(actual, expected, strict=True):
        assert_close(got, want, factor=20)


def test_only_what_is_differentiated_is_computed(native_library):
    x, bias = draw(0, (3, 4)), draw(1, (4,))

    def results(argnums):
        def total(x, bias, slopes, alpha):
            layer = jmn.neuron(x, Neuron.prelu(slopes), bias, alpha=alpha, lowering="custom_call")
            return layer.sum()

        text = lowered(jax.grad(total, argnums), x, bias, bias, 1.25, platforms=("METAL",))
        lines = [line for line in text.splitlines() if "neuron_gradient(" in line]
        assert len(lines) <= 1
        return ["bias_gradient = 1" in line or "slope_gradient = 1" in line for line in lines], text

    assert results(0)[0] == [False]
    assert results((0, 1))[0] == [True]
    assert results(1)[0] == [True]
    assert results(2)[0] == [True]
    wanted, text = results(3)
    assert wanted == []  # alpha alone: no gradient call at all
    assert "stablehlo.reduce" in text


def test_unused_sums_are_not_computed(native_library):
    x, bias = draw(0, (3, 4)), draw(1, (4,))

    def data(gradient, x, bias, slopes):
        result = jmn.neuron_gradient(gradient, x, Neuron.prelu(slopes), bias, lowering="custom_call")
        return result.data, result.a

    text = lowered(data, x, x, bias, bias, platforms=("METAL",))  # cpu's may have no attributes
    assert "bias_gradient = 0" in text
    assert "slope_gradient = 1" in text
    both = jax.jit(data)(x, x, bias, bias)
    expected = apple.neuron_gradient(x, x, Neuron.prelu(bias), bias)
    assert_close(both[0], expected.data)
    assert_close(both[1], expected.a, factor=4)

    def slope_alone(gradient, x, bias, slopes):
        return data(gradient, x, bias, slopes)[1]

    assert_close(jax.jit(slope_alone)(x, x, bias, bias), expected.a, factor=4)


def test_stop_gradient_and_integer_results(lowering):
    x = draw(0, (3, 4))
    grad = jax.grad(lambda x: jmn.neuron(jax.lax.stop_gradient(x), Neuron.gelu(), lowering=lowering).sum())
    np.testing.assert_array_equal(grad(x), 0)
    _, unused = jax.value_and_grad(lambda x: (jmn.neuron(x, Neuron.gelu(), lowering=lowering), x.sum())[1])(
        x
    )
    np.testing.assert_array_equal(unused, 1)


def test_forward_mode_is_refused_by_jax():
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(lambda x: jmn.neuron(x, Neuron.gelu()), (1.0,), (1.0,))
    tangent = jax.jvp(lambda x: jmn.reference.neuron(x, Neuron.gelu()), (1.0,), (1.0,))[1]
    np.testing.assert_allclose(tangent, apple.neuron_gradient(1.0, 1.0, Neuron.gelu()).data, rtol=1e-6)


# Control flow, memory, buffers


def test_scan_and_remat(lowering):
    weights, bias, x = draw(0, (6, 4, 4)), draw(1, (6, 4)), draw(2, (3, 4))

    def layer(x, parameters):
        weight, bias = parameters
        return jmn.neuron(x @ weight, Neuron.gelu(), bias, lowering=lowering), None

    def plain(x, parameters):
        weight, bias = parameters
        return jax.nn.gelu(x @ weight + bias, approximate=False), None

    def total(layer):
        return lambda weights, bias: jax.lax.scan(layer, x, (weights, bias))[0].sum()

    expected = jax.jit(jax.grad(total(plain), (0, 1)))(weights, bias)
    for body in (layer, jax.checkpoint(layer)):
        for got, want in zip(jax.jit(jax.grad(total(body), (0, 1)))(weights, bias), expected, strict=True):
            assert_close(got, want, factor=50)


def test_while_cond_and_map(lowering):
    x = draw(0, (5, 4))
    f = lambda x: jmn.neuron(x, Neuron.tanh(), lowering=lowering)  # noqa: E731
    np.testing.assert_allclose(jax.lax.map(f, x), f(x), rtol=1e-6)
    chosen = jax.grad(lambda x: jax.lax.cond(x.sum() > 1e9, lambda x: x, f, x).sum())(x)
    assert_close(chosen, apple.neuron_gradient(np.ones((5, 4)), x, Neuron.tanh()).data)
    out = jax.lax.while_loop(lambda s: s[0] < 3, lambda s: (s[0] + 1, f(s[1])), (0, x))[1]
    assert_close(out, np.tanh(np.tanh(np.tanh(np.asarray(x, np.float64)))))


@pytest.mark.parametrize("live", [False, True])
def test_donation_and_a_gradient_that_stays_in_use(live, lowering):
    """The data gradient may take the incoming gradient's buffer; the caller must never see that."""
    gradient, x = draw(0, (64, 32)), draw(1, (64, 32))
    kept = np.array(gradient)

    def step(gradient, x):
        data = jmn.neuron_gradient(gradient, x, Neuron.gelu(), lowering=lowering).data
        return (data, gradient * 2) if live else (data,)

    expected = apple.neuron_gradient(kept, x, Neuron.gelu()).data
    outputs = jax.jit(step)(gradient, x)
    np.testing.assert_array_equal(gradient, kept)
    assert_close(outputs[0], expected)
    if live:
        np.testing.assert_array_equal(outputs[1], 2 * kept)
    donated = jax.jit(step, donate_argnums=0)(jnp.array(kept), x)
    assert_close(donated[0], expected)
    same = jax.jit(lambda x: jmn.neuron_gradient(x, x, Neuron.gelu(), lowering=lowering).data)(x)
    assert_close(same, apple.neuron_gradient(x, x, Neuron.gelu()).data)


def test_constant_gradient(lowering):
    x = draw(0, (3, 4))
    ones = np.ones((3, 4), np.float32)
    step = jax.jit(lambda x: jmn.neuron_gradient(ones, x, Neuron.gelu(), lowering=lowering).data)
    assert_close(step(x), apple.neuron_gradient(ones, x, Neuron.gelu()).data)
    assert_close(step(x), apple.neuron_gradient(ones, x, Neuron.gelu()).data)
    np.testing.assert_array_equal(ones, 1)


def test_a_schedule_compiles_once(lowering):
    """Parameters are operands: new values, the same program."""
    traces = []

    @jax.jit
    def step(x, neuron, alpha):
        traces.append(alpha)
        return jax.grad(lambda x: jmn.neuron(x, neuron, alpha=alpha, lowering=lowering).sum())(x)

    x = draw(0, (3, 4))
    for i in range(5):
        neuron = Neuron.tanh(1.0 + 0.25 * i, 0.5)
        expected = apple.neuron_gradient(np.ones((3, 4)), x, neuron, alpha=1.0 + i).data
        assert_close(step(x, neuron, 1.0 + i), expected)
    assert len(traces) == 1
    assert step._cache_size() == 1


def test_pmap_on_one_device():
    x = draw(0, (1, 3, 4))
    y = jax.pmap(lambda x: jmn.neuron(x, Neuron.gelu()))(x)
    assert_close(y, apple.neuron(x, Neuron.gelu()))


def test_disabled_jit(lowering):
    x = draw(0, (3, 4))
    with jax.disable_jit():
        data = jax.grad(lambda x: jmn.neuron(x, Neuron.gelu(), lowering=lowering).sum())(x)
    assert_close(data, apple.neuron_gradient(np.ones((3, 4)), x, Neuron.gelu()).data)


def test_strict_dtype_promotion(lowering):
    x, bias = draw(0, (3, 4), "bfloat16"), draw(1, (4,), "float32")
    with jax.numpy_dtype_promotion("strict"):
        y = jmn.neuron(x, Neuron.tanh(1.5, 0.5), bias, alpha=2, lowering=lowering)
        data = jax.grad(lambda x: jmn.neuron(x, Neuron.gelu(), bias, lowering=lowering).sum())(x)
    assert_close(y, apple.neuron(x, Neuron.tanh(1.5, 0.5), bias, 2.0))
    assert_close(data, apple.neuron_gradient(np.ones((3, 4)), x, Neuron.gelu(), bias).data)


def test_debug_nans_finds_them(lowering):
    x = np.float32([-1.0, 1.0])

    def f(x):
        return jmn.neuron(x, Neuron.logarithm(), lowering=lowering)

    with jax.debug_nans(True):
        for function, name in ((f, "neuron"), (jax.jit(f), "f|neuron")):
            with pytest.raises(FloatingPointError, match=rf"nan.* encountered in .*({name})"):
                jax.block_until_ready(function(x))
        np.testing.assert_array_equal(f(x[1:]), [0.0])
