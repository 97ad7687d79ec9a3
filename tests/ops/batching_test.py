"""vmap: over anything, nested, and still one call."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from support import apple, zoo
from support.arrays import assert_close, draw

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


MAPPED = [
    *((which, name, 3) for which in AXES for name in ("tanh", "prelu")),
    *((which, "prelu", size) for which in AXES for size in (1, 0)),
    ("x", "gelu", 3),
    ("all", "gelu", 3),
]


@pytest.mark.parametrize(("which", "name", "size"), MAPPED)
def test_vmap(which, name, size, lowering):
    operands, in_axes = batched(which, size, zoo.neurons(4)[name])
    run = jax.jit(lambda *o: backward(*o, lowering))
    actual = jax.jit(jax.vmap(run, in_axes))(*operands)
    if size == 0:
        assert all(leaf.shape[0] == 0 for leaf in jax.tree.leaves(actual))
        return

    def element(i):
        return run(
            *(
                o if axis is None else jax.tree.map(lambda p, axis=axis: np.take(np.asarray(p), i, axis), o)
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

    def forward(slopes):
        return jmn.neuron(x, Neuron.prelu(slopes), bias, lowering=lowering)

    @jax.jit
    def every(slopes):
        tangents = jax.vmap(jax.jacfwd(lambda s: step(s).data.sum()))(slopes)
        return jax.vmap(step)(slopes), jax.vmap(forward)(slopes), tangents

    actual, y, tangents = every(slopes)
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
    data, neuron, of_bias, _ = jax.jit(outer)(gradient, x, slopes, bias, alpha)
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


def test_vmap_of_a_function_of_scalars(lowering):
    """Matrices of one element each; shared parameters let the kernel take them as one row."""
    x = draw(0, (50, 40))
    f = jax.vmap(jax.vmap(jax.grad(lambda x: jmn.neuron(x, Neuron.softplus(1.25), lowering=lowering))))
    assert_close(f(x), apple.neuron_gradient(np.ones((50, 40)), x, Neuron.softplus(1.25)).data)
