"""What JAX does to functions, done to neuron and neuron_gradient."""

from __future__ import annotations

import apple
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from conftest import assert_close, draw, x64

import jax_mps_neuron as jmn

Neuron = jmn.Neuron


def calls(function, *arguments) -> tuple[int, int]:
    """How many forward and gradient custom calls a function lowers to."""
    text = jax.jit(function).lower(*arguments).as_text()
    return text.count("@jax_mps_neuron.neuron("), text.count("@jax_mps_neuron.neuron_gradient(")


def backward(gradient, x, neuron, bias, alpha, lowering="custom_call"):
    """All of a layer's gradients by vjp."""

    def layer(x, neuron, bias, alpha):
        return jmn.neuron(x, neuron, bias, alpha=alpha, lowering=lowering)

    return jax.vjp(layer, x, neuron, bias, alpha)[1](gradient)


# vmap

AXES = {
    "x": (0, 0, None, None, None),
    "x, axis 2": (2, 2, None, None, None),
    "gradient alone": (0, None, None, None, None),
    "x alone": (None, 0, None, None, None),
    "bias": (None, None, None, 0, None),
    "alpha": (None, None, None, None, 0),
    "parameters": (None, None, 0, None, None),
    "x and bias": (0, 1, None, 0, None),
    "all": (0, 1, 0, 1, 0),
}


def batched(which, size, neuron):
    """Operands of `backward` for a vmap over `which`, unmapped shapes [3, 4] and [4]."""
    in_axes = AXES[which]
    shapes = [(3, 4), (3, 4), None, (4,), ()]
    operands = []
    for i, (shape, axis) in enumerate(zip(shapes, in_axes, strict=True)):
        if shape is None:
            scale = jnp.linspace(0.75, 1.25, size)

            def stretched(p, scale=scale):
                return scale.reshape(-1, *(1,) * np.ndim(p)) * jnp.asarray(p)

            operands.append(jax.tree.map(stretched, neuron) if axis is not None else neuron)
        else:
            full = list(shape)
            if axis is not None:
                full.insert(axis, size)
            operands.append(jnp.asarray(draw(i, full)) if shape else 1.25 + 0.1 * draw(i, full))
    return operands, in_axes


@pytest.mark.parametrize("which", AXES)
@pytest.mark.parametrize("name", ["gelu", "tanh", "prelu"])
@pytest.mark.parametrize("size", [3, 1, 0])
def test_vmap(which, name, size, lowering):
    operands, in_axes = batched(which, size, zoo.neurons(4)[name])
    run = lambda *o: backward(*o, lowering)  # noqa: E731
    actual = jax.vmap(run, in_axes)(*operands)
    if size == 0:
        assert all(leaf.shape[0] == 0 for leaf in jax.tree.leaves(actual))
        return

    def element(i):
        return run(
            *(
                o if axis is None else jax.tree.map(lambda p, axis=axis: jnp.take(p, i, axis), o)
                for o, axis in zip(operands, in_axes, strict=True)
            )
        )

    expected = jax.tree.map(lambda *leaves: np.stack(leaves), *map(element, range(size)))
    for got, want in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(got, want, factor=4)


def test_vmap_over_slopes_alone(lowering):
    """Then nothing but the slopes has the mapped axis, not even the other parameters."""
    gradient, x, slopes = draw(0, (3, 4)), draw(1, (3, 4)), draw(2, (5, 4))
    bias = draw(3, (4,))

    def step(slopes):
        return jmn.neuron_gradient(gradient, x, Neuron.prelu(slopes), bias, lowering=lowering)

    actual = jax.vmap(step)(slopes)
    y = jax.vmap(lambda s: jmn.neuron(x, Neuron.prelu(s), bias, lowering=lowering))(slopes)
    tangents = jax.vmap(jax.jacfwd(lambda s: step(s).data.sum()))(slopes)
    for i in range(5):
        neuron = Neuron.prelu(slopes[i])
        expected = apple.neuron_gradient(gradient, x, neuron, bias)
        for got, want in zip(actual, expected, strict=True):
            assert_close(got[i], want, factor=4)
        assert_close(y[i], apple.neuron(x, neuron, bias))
        negative = np.asarray(x, np.float64) + np.asarray(bias) < 0
        assert_close(tangents[i], (np.asarray(gradient) * negative).sum(0), factor=4)


@pytest.mark.parametrize("which", AXES)
def test_vmap_is_still_one_call(which, native_library):
    """For PReLU, whose parameters have their gradients in the same call."""
    operands, in_axes = batched(which, 3, zoo.neurons(4)["prelu"])

    def step(gradient, x, slopes, bias, alpha):
        def layer(x, slopes, bias):
            return jmn.neuron(x, Neuron.prelu(slopes), bias, alpha=alpha, lowering="custom_call")

        return jax.vjp(layer, x, slopes, bias)[1](gradient)

    operands[2] = operands[2].a
    assert calls(jax.vmap(step, in_axes), *operands) == (0, 1)
    twice = jax.vmap(jax.vmap(step, in_axes), (None, None, None, None, 0))
    if in_axes[4] is None:
        operands[4] = jnp.linspace(1.0, 2.0, 2)
        assert calls(twice, *operands) == (0, 1)


def test_nested_vmap(lowering):
    """Different axes mapped at each level, among them ones that only some operands have."""
    gradient, x = draw(0, (2, 5, 3, 4)), draw(1, (5, 3, 4))
    bias, alpha = draw(2, (2, 4)), jnp.linspace(0.5, 1.5, 2)
    slopes = draw(3, (5, 4))

    def step(gradient, x, slopes, bias, alpha):
        return backward(gradient, x, Neuron.prelu(slopes), bias, alpha, lowering)

    inner = jax.vmap(step, (0, 0, 0, None, None))
    outer = jax.vmap(inner, (0, None, None, 0, 0))
    data, neuron, of_bias, _ = outer(gradient, x, slopes, bias, alpha)
    for i in range(2):
        for j in range(5):
            expected = apple.neuron_gradient(
                gradient[i, j], x[j], Neuron.prelu(slopes[j]), bias[i], float(alpha[i])
            )
            assert_close(data[i, j], expected.data)
            assert_close(of_bias[i, j], expected.bias, factor=4)
            assert_close(neuron.a[i, j], expected.a, factor=4)


def test_per_example_gradients(native_library):
    x, weights, bias = draw(0, (8, 5)), draw(1, (5, 4)), draw(2, (4,))

    def loss(weights, bias, x):
        return jmn.neuron(x @ weights, Neuron.gelu(), bias, lowering="custom_call").sum()

    per_example = jax.vmap(jax.grad(loss, argnums=(0, 1)), (None, None, 0))
    of_weights, of_bias = per_example(weights, bias, x)
    assert of_bias.shape == (8, 4)
    expected = apple.neuron_gradient(np.ones((8, 4)), x @ weights, Neuron.gelu(), bias).data
    assert_close(of_bias, expected, factor=4)
    assert_close(of_weights, np.asarray(x)[:, :, None] * expected[:, None], factor=8)
    assert calls(per_example, weights, bias, x)[1] == 1


def test_jacobian_does_not_copy_x(native_library):
    """An unmapped x under a mapped gradient stays one x: no broadcast of it in the program."""
    x = draw(0, (3, 4))
    jacobian = jax.jacrev(lambda x: jmn.neuron(x, Neuron.tanh(), lowering="custom_call"))
    expected = np.diag(apple.neuron_gradient(np.ones(12), np.ravel(x), Neuron.tanh()).data)
    assert_close(jacobian(x).reshape(12, 12), expected)
    call = next(
        line for line in jax.jit(jacobian).lower(x).as_text().splitlines() if "neuron_gradient(" in line
    )
    assert (
        "(tensor<3x4x3x4xf32>, tensor<1x1x3x4xf32>" in call
        or "(tensor<12x3x4xf32>, tensor<1x3x4xf32>" in call
    )


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
        ones = jnp.ones_like(x)
        grad = jax.grad(total)
        by_jvp = jax.jvp(lambda x: grad(x, bias), (x,), (ones,))[1]
        by_vjp = jax.grad(lambda x: (grad(x, bias)).sum())(x)
        hessian = jax.hessian(total)(x, bias).reshape(6, 6)
        for second in (by_jvp, by_vjp, np.diag(hessian).reshape(2, 3)):
            np.testing.assert_allclose(second, expected, rtol=1e-7, atol=1e-7)
        np.testing.assert_allclose(hessian - np.diag(np.diag(hessian)), 0, atol=1e-12)
        # Mixed: the bias moves every row of its channel.
        of_bias = jax.hessian(total, argnums=1)(x, bias)
        np.testing.assert_allclose(np.diag(of_bias), expected.sum(0) / 1.5**2, rtol=1e-7, atol=1e-7)


def test_third_derivative_is_smooth_at_zero(lowering):
    """Where a formula folds z to abs(z), its higher derivatives must not show it."""
    with x64(True):
        third = jax.grad(jax.grad(jax.grad(lambda z: jmn.neuron(z, Neuron.sigmoid(), lowering=lowering))))
        np.testing.assert_allclose(third(0.0), -1 / 8, rtol=1e-12)
        third = jax.grad(jax.grad(jax.grad(lambda z: jmn.neuron(z, Neuron.gelu(), lowering=lowering))))
        np.testing.assert_allclose(third(0.0), 0.0, atol=1e-12)


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

    actual = jax.grad(total, argnums=(0, 1, 2, 3))(gradient, x, bias, 1.25)
    expected = jax.grad(plain, argnums=(0, 1, 2, 3))(gradient, x, bias, 1.25)
    for got, want in zip(actual, expected, strict=True):
        assert_close(got, want, factor=20)


def test_only_what_is_differentiated_is_computed(native_library):
    x, bias = draw(0, (3, 4)), draw(1, (4,))

    def results(argnums):
        def total(x, bias, slopes, alpha):
            layer = jmn.neuron(x, Neuron.prelu(slopes), bias, alpha=alpha, lowering="custom_call")
            return layer.sum()

        text = jax.jit(jax.grad(total, argnums)).lower(x, bias, bias, 1.25).as_text()
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

    text = jax.jit(data).lower(x, x, bias, bias).as_text()
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

    expected = jax.grad(total(plain), (0, 1))(weights, bias)
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


def test_vmap_of_a_function_of_scalars(lowering):
    """Matrices of one element each; shared parameters let the kernel take them as one row."""
    x = draw(0, (50, 40))
    f = jax.vmap(jax.vmap(jax.grad(lambda x: jmn.neuron(x, Neuron.softplus(1.25), lowering=lowering))))
    assert_close(f(x), apple.neuron_gradient(np.ones((50, 40)), x, Neuron.softplus(1.25)).data)


def test_debug_nans_finds_them(lowering):
    x = np.float32([-1.0, 1.0])

    def f(x):
        return jmn.neuron(x, Neuron.logarithm(), lowering=lowering)

    with jax.debug_nans(True):
        for function in (f, jax.jit(f)):
            with pytest.raises(FloatingPointError, match="nan"):
                jax.block_until_ready(function(x))
        np.testing.assert_array_equal(f(x[1:]), [0.0])
