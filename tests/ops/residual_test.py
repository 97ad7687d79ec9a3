"""What a layer keeps for its backward pass: x, or y where f' can be had from that."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jax_mps_neuron as jmn
from jax_mps_neuron._core.descriptor import FROM_Y
from support import apple, zoo
from support.arrays import assert_close, draw

NAMES = ["sigmoid", "tanh", "exponential", "exponential_base"]
X, BIAS, GRADIENT = draw(0, (5, 37)), draw(1, (37,), scale=0.5), draw(2, (5, 37))


def pulled(neuron, x, bias, gradient, **options):
    y, pull = jax.vjp(lambda x, bias: jmn.neuron(x, neuron, bias, alpha=1.25, **options), x, bias)
    return y, *pull(gradient)


@pytest.mark.parametrize("name", NAMES)
def test_gradients_from_y(name, dtype, lowering):
    neuron = zoo.neurons()[name]
    x, bias, gradient = (jnp.asarray(v, dtype) for v in (X, BIAS, GRADIENT))
    y, data, of_bias = pulled(neuron, x, bias, gradient, lowering=lowering, residual="y")
    assert_close(y, apple.neuron(x, neuron, bias, 1.25))
    expected = apple.neuron_gradient_of_value(gradient, y, neuron, 1.25)
    assert_close(data, expected.data)
    assert_close(of_bias, expected.bias, factor=4)
    # And that is, but for y's own rounding, what x gives.
    from_x = apple.neuron_gradient(gradient, x, neuron, bias, 1.25).data
    error = float(jnp.finfo(dtype).eps) * np.abs(gradient).astype(np.float64) * (1 + np.abs(np.float64(y)))
    assert (np.abs(np.float64(data) - from_x) <= 4 * error + 1e-2 * np.abs(from_x)).all()


@pytest.mark.parametrize("neuron", [jmn.Neuron.none(), jmn.Neuron.linear(1.5, 0.25)], ids=repr)
def test_where_the_derivative_is_constant(neuron, lowering):
    results = [pulled(neuron, X, BIAS, GRADIENT, lowering=lowering, residual=r) for r in ("x", "y")]
    for of_x, of_y in zip(*results, strict=True):
        np.testing.assert_array_equal(of_x, of_y)


def arrays_kept(function, *operands):
    """Shapes of what the backward pass needs."""
    _, pull = jax.vjp(function, *operands)
    return [leaf for leaf in jax.tree.leaves(pull) if jnp.shape(leaf) == X.shape]


@pytest.mark.parametrize("name", ["none", "linear", *NAMES])
def test_what_is_kept(name):
    neuron = zoo.neurons()[name]
    y = jmn.neuron(X, neuron, BIAS)
    for residual, kept, gone in (("x", X, None), ("y", y, X)):
        arrays = arrays_kept(lambda x, b, r=residual: jmn.neuron(x, neuron, b, residual=r), X, BIAS)
        assert any(np.array_equal(array, kept) for array in arrays)
        if gone is not None:
            assert not any(np.array_equal(array, gone) for array in arrays)
    # A learned alpha has a gradient of x.
    arrays = arrays_kept(lambda x, a: jmn.neuron(x, neuron, alpha=a, residual="y"), X, jnp.float32(1.0))
    assert any(np.array_equal(array, X) for array in arrays)


@pytest.mark.parametrize("twin", [jmn.nn.sigmoid, jmn.nn.tanh])
def test_twins_keep_y(twin):
    theirs = {jmn.nn.sigmoid: jax.nn.sigmoid, jmn.nn.tanh: jax.nn.tanh}[twin]
    (array,) = arrays_kept(twin, X)
    np.testing.assert_array_equal(array, twin(X))
    np.testing.assert_allclose(jax.vjp(twin, X)[1](GRADIENT)[0], jax.vjp(theirs, X)[1](GRADIENT)[0], 1e-5)
    (array,) = arrays_kept(twin, X.astype(jnp.bfloat16))  # of which y shows too little
    np.testing.assert_array_equal(array, X.astype(jnp.bfloat16))


@pytest.mark.parametrize("name", ["none", "linear", *NAMES])
def test_one_call_under_any_transformation(name, native_library):
    neuron = zoo.neurons()[name]

    def loss(x, bias, residual="y"):
        return jmn.neuron(x, neuron, bias, residual=residual).sum()

    program = jax.jit(jax.vmap(jax.grad(loss, (0, 1)), (0, None)))
    text = program.lower(X, BIAS).as_text()
    assert text.count("@jax_mps_neuron.neuron_gradient(") == 1
    transformed = {
        "vmap": lambda r: jax.vmap(jax.grad(lambda x, b: loss(x, b, r), (0, 1)))(X, X),
        "hessian": lambda r: jax.hessian(lambda x: loss(x, BIAS[:4], r))(X[0, :4]),
        "grad of grad": lambda r: jax.grad(
            lambda b: jnp.square(jax.grad(lambda x: loss(x, b, r))(X)).sum(), 0
        )(BIAS),
        "checkpoint": lambda r: jax.grad(jax.checkpoint(lambda x: loss(x, BIAS, r)))(X),
        "scan": lambda r: jax.grad(
            lambda x: lax.scan(lambda s, _: (0.5 * s + loss(x, BIAS, r), None), 0.0, None, 3)[0]
        )(X),
        "parameters": lambda r: jax.grad(
            lambda n: jmn.neuron(X, n, BIAS, residual=r).sum(), allow_int=True
        )(neuron),
    }
    for what, run in transformed.items():
        both = jax.jit(lambda run=run: [jax.tree.leaves(run(residual)) for residual in ("y", "x")])()
        for of_y, of_x in zip(*both, strict=True):
            np.testing.assert_allclose(of_y, of_x, 1e-4, 1e-5, err_msg=what)


@pytest.mark.parametrize("lowering_of", ["custom_call", "inline"])
def test_no_worse_than_what_autodiff_has_from_y(lowering_of, native_library):
    """Over the whole of both functions, tails included, where 1 - y cancels for everyone."""
    x = jnp.linspace(-20.0, 20.0, 200_001)
    pairs = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh}
    for name, theirs in pairs.items():
        neuron = jmn.Neuron(jmn.NeuronType[name.upper()])

        def slope(f):
            return np.float64(jax.jit(jax.grad(lambda x, f=f: f(x).sum()))(x))

        exact = apple.df(neuron.type, np.float64(x), 1.0, 1.0, 0.0)
        ours = slope(lambda x, n=neuron: jmn.neuron(x, n, lowering=lowering_of, residual="y"))
        errors = [np.abs(v - exact) for v in (ours, slope(theirs))]
        assert errors[0].max() <= errors[1].max() + 2**-26, name
        assert errors[0].mean() <= 1.05 * errors[1].mean(), name


@pytest.mark.parametrize(("dtype", "bound"), [("float32", 4e-7), ("float16", 1e-3), ("bfloat16", 8e-3)])
def test_the_error_that_is_documented(dtype, bound, lowering):
    """Of the largest f', over the whole of both functions: docs/parameters.md."""
    if lowering == "inline" and dtype == "float32":
        bound = 6e-7  # by XLA's tanh
    x = jnp.linspace(-20.0, 20.0, 200_001).astype(dtype)
    for neuron, largest in ((jmn.Neuron.sigmoid(), 0.25), (jmn.Neuron.tanh(), 1.0)):
        _, pull = jax.vjp(lambda x, n=neuron: jmn.neuron(x, n, lowering=lowering, residual="y"), x)
        (slope,) = pull(jnp.ones_like(x))
        exact = apple.df(neuron.type, np.float64(x), 1.0, 1.0, 0.0)
        assert np.abs(np.float64(slope) - exact).max() <= bound * largest


def test_edges(lowering):
    def slope(x, *parameters):
        neuron = jmn.Neuron.tanh(*parameters) if parameters else jmn.Neuron.sigmoid()
        return jax.grad(lambda x: jmn.neuron(x, neuron, lowering=lowering, residual="y").sum())(x)

    x = jnp.asarray([-jnp.inf, -200.0, 0.0, 200.0, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(slope(x), [0, 0, 0.25, 0, 0, np.nan])
    np.testing.assert_array_equal(slope(x, 2.0, 0.5), [0, 0, 1, 0, 0, np.nan])
    np.testing.assert_array_equal(jnp.abs(slope(x[:-1], 0.0, 0.5)), np.zeros(5))  # y is 0 everywhere


@pytest.mark.parametrize("kind", [k for k in jmn.NeuronType if k not in (0, 2, *FROM_Y)])
def test_refuses_y_of_others(kind):
    neuron = jmn.Neuron.prelu(BIAS) if kind is jmn.NeuronType.PRELU else jmn.Neuron(kind)
    with pytest.raises(
        ValueError, match=f"^this neuron type does not support residual 'y': {kind.name}\\. Use 'x'"
    ):
        jmn.neuron(X, neuron, residual="y")


@pytest.mark.parametrize("residual", ["z", None, True, X])
def test_refuses_what_is_no_residual(residual):
    for call in (jmn.neuron, lambda x, n, **options: jmn.fully_connected(x, x.T, n, **options)):
        with pytest.raises(ValueError, match=r"^residual must be 'x' or 'y', got "):
            call(X, jmn.Neuron.tanh(), residual=residual)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_saturated_tanh_has_no_negative_slope(dtype, lowering):
    """Where y was rounded beyond a."""
    x = jnp.asarray([8.0, 20.0, -8.0, -20.0], dtype)
    for a in np.linspace(0.1, 2.0, 97):

        def total(x, a=a):
            return jmn.neuron(x, jmn.Neuron.tanh(a, 0.6), lowering=lowering, residual="y").sum()

        assert (jax.grad(total)(x) >= 0).all(), a


def test_a_neuron_that_is_differentiated_along():
    """Only parameters that the type uses need x."""

    def loss(neuron, x):
        return jmn.neuron(x, neuron, residual="y").sum()

    for neuron, from_y in ((jmn.Neuron.sigmoid(), True), (jmn.Neuron.tanh(), False)):
        program = str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(neuron, X))
        assert ("(gradient, y, scalars)" in program) == from_y
