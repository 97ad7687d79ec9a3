"""`fully_connected` against float64 and autodiff of the formula, and what its backward pass is made of."""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron import Neuron
from support import apple, formulas, zoo
from support.arrays import assert_close, draw, x64

X, W, BIAS, G = draw(0, (6, 4)), draw(1, (4, 5)), draw(2, (5,), scale=0.5), draw(3, (6, 5))


@pytest.mark.parametrize("name", zoo.SOME)
def test_values(name, dtype):
    """x of any rank; integers of a few bits, whose products every dtype holds exactly."""
    neuron, alpha = zoo.neurons(5)[name], 0.25
    for shape in [(4,), (6, 4), (2, 3, 4), (0, 4)]:
        rng = np.random.default_rng(0)
        x, w = (jnp.asarray(rng.integers(-2, 3, s), dtype) for s in (shape, (4, 5)))
        y = jmn.fully_connected(x, w, neuron, jnp.asarray(BIAS, dtype), alpha)
        assert y.dtype == x.dtype
        product = np.float64(x) @ np.float64(w)
        assert_close(y, apple.neuron(product, neuron, jnp.asarray(BIAS, dtype), alpha))


@pytest.mark.parametrize("name", zoo.SOME)
def test_gradients_are_those_of_the_formula(name, lowering):
    """In float64, against XLA's autodiff of what one writes without this package."""
    with x64(True):
        x, w, bias, g = (jnp.asarray(np.asarray(v), "float64") for v in (X, W, BIAS, G))
        neuron = zoo.neurons(5)[name]

        def plain(x, w, bias, alpha):
            z = alpha * (x @ w) + bias
            return formulas.plain(neuron.type, z, *zoo.parameters(neuron), base_e=neuron.c == -1)

        def ours(x, w, bias, alpha):
            return jmn.fully_connected(x, w, neuron, bias, alpha, lowering=lowering)

        @jax.jit
        def every(g, *operands):
            pairs = [jax.vjp(f, *operands) for f in (ours, plain)]
            return [(y, vjp(g)) for y, vjp in pairs]

        (y, actuals), (expected, wanteds) = every(g, x, w, bias, 1.25)
        assert_close(y, expected, factor=4)
        for actual, wanted in zip(actuals, wanteds, strict=True):
            assert_close(actual, wanted, "float64", factor=50)


def test_backward_is_one_call_and_two_products(native_library):
    def loss(x, w, bias, slopes):
        return (G * jmn.fully_connected(x, w, Neuron.prelu(slopes), bias, 1.25)).sum()

    text = jax.jit(jax.grad(loss, (0, 1, 2, 3))).lower(X, W, BIAS, BIAS).compile().as_text()
    assert text.count('custom_call_target="jax_mps_neuron.neuron_gradient"') == 1
    assert text.count('custom_call_target="jax_mps_neuron.neuron"') == 0  # nobody reads y
    # The forward product, which the neuron's gradient needs, and those for x and the weights.
    assert len(re.findall(r" = \S+ dot\(", text)) == 3


def test_no_activation_is_kept_twice():
    def forward(x, w, bias):
        y, vjp = jax.vjp(lambda *o: jmn.fully_connected(*o[:2], Neuron.gelu(), o[2]), x, w, bias)
        return y, vjp

    jaxpr = jax.make_jaxpr(forward)(X, W, BIAS).jaxpr
    y, *kept = jaxpr.outvars
    # JAX 0.4.34 also holds on to the result of a custom_vjp, which is y itself.
    of_y = {v for v in kept if v.aval.shape == y.aval.shape and v is not y}
    assert len(of_y) == 1  # the product
    of_x = {v for v in kept if v.aval.shape == X.shape}
    assert of_x <= {jaxpr.invars[0]}


def test_each_gradient_has_the_dtype_of_its_operand():
    operands = (X.astype("bfloat16"), W, BIAS.astype("float16"))
    y, vjp = jax.vjp(lambda *o: jmn.fully_connected(*o[:2], Neuron.gelu(), o[2]), *operands)
    assert y.dtype == jnp.bfloat16
    gradients = vjp(G.astype("bfloat16"))
    assert [g.dtype for g in gradients] == [o.dtype for o in operands]
    wide = [jnp.asarray(o, "float32") for o in operands]
    _, vjp = jax.vjp(lambda *o: jmn.fully_connected(*o[:2], Neuron.gelu(), o[2]), *wide)
    for actual, wanted in zip(gradients, vjp(jnp.asarray(G.astype("bfloat16"), "float32")), strict=True):
        assert_close(actual, np.float64(wanted), factor=4)


def test_transformations(native_library):
    neuron = Neuron.tanh(1.5, 0.5)

    def loss(w, x):
        return jmn.fully_connected(x, w, neuron, BIAS).sum()

    per_example = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))
    text = per_example.lower(W, X).as_text()
    assert text.count("@jax_mps_neuron.neuron_gradient(") == 1
    assert_close(per_example(W, X).sum(0), np.float64(jax.grad(loss)(W, X)), factor=8)
    assert_close(jax.grad(jax.checkpoint(loss))(W, X), np.float64(jax.grad(loss)(W, X)))
    hessian = jax.hessian(loss)(W, X)
    step = 1e-2
    moved = [jax.grad(loss)(W.at[1, 2].add(s), X) for s in (step, -step)]
    np.testing.assert_allclose(hessian[1, 2], (moved[0] - moved[1]) / (2 * step), atol=2e-3)


def test_keeps_y_in_place_of_the_product():
    def kept(residual):
        layer = lambda x, w: jmn.fully_connected(x, w, Neuron.tanh(), residual=residual)  # noqa: E731
        y, pull = jax.vjp(layer, X, W)
        return y, [v for v in jax.tree.leaves(pull) if v.shape == y.shape]

    for residual in ("x", "y"):
        y, arrays = kept(residual)
        product = X @ W
        assert any(np.allclose(array, product if residual == "x" else y, 1e-6) for array in arrays)
        if residual == "y":
            assert not any(np.allclose(array, product, 1e-6) for array in arrays)


def test_inline_has_no_call():
    text = jax.jit(lambda x: jmn.fully_connected(x, W, Neuron.gelu(), lowering="inline")).lower(X).as_text()
    assert "custom_call" not in text


REFUSED = [
    (
        ValueError,
        r"^weights must have 5 rows to match x's channels, got shape \(4, 5\)",
        (G, W, Neuron.gelu()),
    ),
    (
        ValueError,
        r"^weights must have shape \[channels, outputs\], got \(5,\)",
        (X, BIAS, Neuron.gelu()),
    ),
    (
        ValueError,
        r"^x must have shape \[\.\.\., channels\] with weights, got a scalar",
        (1.0, W, Neuron.gelu()),
    ),
    (
        ValueError,
        r"^bias must have shape \(5,\) to match the columns of weights, got \(4,\)",
        (X, W, Neuron.gelu(), X[0]),
    ),
    (ValueError, r"^a \(PReLU's slopes\) must have shape \(5,\) .* got \(4,\)", (X, W, Neuron.prelu(X[0]))),
    (ValueError, r"^a must be PReLU's slopes, .* got None", (X, W, Neuron(jmn.NeuronType.PRELU))),
    (ValueError, r"^alpha must be a scalar, got shape \(5,\)", (X, W, Neuron.gelu(), BIAS, BIAS)),
    (TypeError, "^neuron must be a jax_mps_neuron.Neuron, got 'gelu'", (X, W, "gelu")),
    (TypeError, "weights must have dtype .* got int32", (X, W.astype("int32"), Neuron.gelu())),
    (TypeError, r"^x must be an array or a number, got \[1\.0", ([1.0, 2.0, 3.0, 4.0], W, Neuron.gelu())),
    (TypeError, "bias must have dtype .* got int32", (X, W, Neuron.gelu(), BIAS.astype("int32"))),
]


@pytest.mark.parametrize(("error", "message", "arguments"), REFUSED, ids=[r[1][:30] for r in REFUSED])
def test_refuses(error, message, arguments):
    with pytest.raises(error, match=message):
        jmn.fully_connected(*arguments)


def test_refuses_an_unknown_lowering():
    with pytest.raises(ValueError, match=r"^lowering must be one of .* got 'fast'"):
        jmn.fully_connected(X, W, Neuron.gelu(), lowering="fast")
