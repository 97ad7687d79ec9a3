"""The four classes as values: properties, setters, equality, trees, and transformations."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron import Neuron, NeuronType
from support.arrays import assert_close, draw

UNARY = [jmn.MatrixNeuron]
BINARY = [jmn.MatrixNeuronGradient, jmn.MatrixFullyConnected, jmn.MatrixFullyConnectedGradient]
DENSE = [jmn.MatrixFullyConnected, jmn.MatrixFullyConnectedGradient]
WITH_NEURON = [jmn.MatrixNeuron, jmn.MatrixNeuronGradient, jmn.MatrixFullyConnected]
ALL = UNARY + BINARY
every_class = pytest.mark.parametrize("kind", ALL)

# A value other than the default for each property.
VALUES = {
    "label": "a layer",
    "alpha": 2.5,
    "source_number_of_feature_vectors": 3,
    "source_input_feature_channels": 4,
    "source_output_feature_channels": 5,
    "source_matrix_origin": (1, 2),
    "primary_source_matrix_origin": (1, 0),
    "secondary_source_matrix_origin": (0, 2),
    "result_matrix_origin": (3, 1),
    "batch_start": 1,
    "batch_size": 2,
}


def properties(kind):
    return [f.name for f in dataclasses.fields(kind) if f.name != "neuron"]


def changed(kind):
    kernel = kind(**{name: VALUES[name] for name in properties(kind)})
    return kernel.set_neuron_type(NeuronType.TANH, 1.5, 0.5) if kind in WITH_NEURON else kernel


@every_class
def test_defaults_are_those_of_the_headers(kind):
    kernel = kind()
    assert kernel.alpha == 1.0
    assert (kernel.batch_start, kernel.batch_size, kernel.label) == (0, None, None)
    assert kernel.source_number_of_feature_vectors is kernel.source_input_feature_channels is None
    origins = {name for name in properties(kind) if name.endswith("origin")}
    sources = ("source",) if kind in UNARY else ("primary_source", "secondary_source")
    assert origins == {f"{name}_matrix_origin" for name in (*sources, "result")}
    assert {getattr(kernel, name) for name in origins} == {(0, 0)}
    assert hasattr(kernel, "source_output_feature_channels") == (kind in DENSE)
    if kind in WITH_NEURON:
        assert kernel.neuron_type is NeuronType.NONE


@every_class
def test_setters_return_another_kernel(kind):
    for name in properties(kind):
        kernel = kind()
        other = getattr(kernel, f"set_{name}")(VALUES[name])
        assert type(other) is kind
        assert other == kind(**{name: VALUES[name]}) != kernel == kind()
        assert getattr(other, name) == VALUES[name]
    with pytest.raises(dataclasses.FrozenInstanceError):
        kind().alpha = 2.0


@pytest.mark.parametrize("kind", WITH_NEURON)
def test_neuron_type_and_parameters(kind):
    kernel = kind().set_neuron_type(NeuronType.POWER, 0.5, 2.0, 3.0)
    assert kernel.neuron_type is NeuronType.POWER
    assert (kernel.neuron_parameter_a, kernel.neuron_parameter_b, kernel.neuron_parameter_c) == (0.5, 2, 3)
    assert kernel == kind(Neuron.power(0.5, 2.0, 3.0))
    assert kind().set_neuron_type(5) == kind(Neuron.tanh())  # a raw value, and Apple's defaults
    slopes = np.float32([0.25, 0.5])
    kernel = kernel.set_neuron_to_prelu_with_parameters_a(slopes)
    assert kernel == kind(Neuron.prelu(slopes))
    assert kernel.neuron_parameter_a is slopes


@pytest.mark.parametrize("kind", WITH_NEURON)
def test_set_neuron_type_refuses_prelu(kind):
    message = r"^neuron_type must not be PRELU, .* Use set_neuron_to_prelu_with_parameters_a\."
    for prelu in (NeuronType.PRELU, 10):
        with pytest.raises(ValueError, match=message):
            kind().set_neuron_type(prelu, 0.25)
    with pytest.raises(ValueError, match=r"type must be a NeuronType \(.*\), got 99"):
        kind().set_neuron_type(99)


@every_class
def test_copy_and_coding_go_by_value(kind):
    for kernel in (kind(), changed(kind)):
        copies = (
            kernel.copy(),
            copy.copy(kernel),
            copy.deepcopy(kernel),
            pickle.loads(pickle.dumps(kernel)),
        )
        for twin in copies:
            assert twin is not kernel
            assert twin == kernel
            assert hash(twin) == hash(kernel)
    assert changed(kind) != kind()


@every_class
def test_equality_and_hash(kind):
    kernel = changed(kind)
    assert kernel == changed(kind).set_alpha(jnp.float32(2.5))
    assert hash(kernel) == hash(changed(kind).set_alpha(np.float64(2.5)))
    for name in properties(kind):
        assert kernel != dataclasses.replace(kernel, **{name: getattr(kind(), name)})
    assert kernel != "kernel"
    assert len({kind(), kernel, kind(), changed(kind)}) == 2
    assert len({k() for k in ALL}) == 4


@pytest.mark.parametrize("kind", WITH_NEURON)
def test_equality_goes_by_the_slopes(kind):
    slopes = np.float32([0.25, 0.5])
    kernel = kind(Neuron.prelu(slopes))
    assert kernel == kind(Neuron.prelu(jnp.asarray(slopes))) != kind(Neuron.prelu(2 * slopes))
    assert hash(kernel) == hash(kind(Neuron.prelu(jnp.asarray(slopes))))


def test_description():
    assert repr(jmn.MatrixFullyConnectedGradient()) == "MatrixFullyConnectedGradient()"
    kernel = jmn.MatrixNeuron(Neuron.tanh(1.5), alpha=2.0, source_matrix_origin=(1, 2))
    assert str(kernel) == repr(kernel)
    assert repr(kernel) == (
        "MatrixNeuron(alpha=2.0, source_matrix_origin=(1, 2), neuron=Neuron(TANH, a=1.5, b=1.0))"
    )
    seen = []
    jax.jit(lambda k: seen.append(repr(k)))(kernel)  # a traced alpha
    assert seen[0].startswith("MatrixNeuron(alpha=")
    assert "alpha=array([1., 2.])" in repr(jmn.MatrixNeuron(alpha=np.array([1.0, 2.0])))


@every_class
def test_tree(kind):
    kernel = changed(kind)
    leaves = jax.tree.leaves(kernel)
    assert leaves == ([2.5, 1.5, 0.5] if kind in WITH_NEURON else [2.5])
    assert jax.tree.unflatten(jax.tree.structure(kernel), leaves) == kernel
    assert jax.tree.structure(kernel) != jax.tree.structure(kernel.set_batch_start(0))
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(kernel)[0]]
    assert paths == [".alpha", *([".neuron.a", ".neuron.b"] if len(leaves) > 1 else [])]


def test_argument_of_jit():
    """alpha and parameters may change without compiling again, and what is static may not."""
    traces = []

    def run(kernel, x):
        traces.append(kernel)
        return kernel.encode(x)

    x, kernel = draw(0, (3, 4)), jmn.MatrixNeuron(Neuron.elu(0.5))
    for static in (False, True):
        traces.clear()
        jitted = jax.jit(run, static_argnums=0 if static else ())
        for k in (
            kernel,
            kernel.set_alpha(1),
            kernel.copy(),
            jmn.MatrixNeuron(Neuron.elu(np.float32(0.5))),
        ):
            assert_close(jitted(k, x), np.where(x >= 0, x, 0.5 * np.expm1(np.float64(x))))
        once = len(traces)
        jitted(kernel.set_alpha(2.0), x)
        assert len(traces) - once == static
        jitted(kernel.set_source_matrix_origin((1, 0)), x)
        assert len(traces) - once == 1 + static


def test_label_names_the_operations():
    def names(kernel, rows):
        # Names are no part of the key of a program in the cache, so these must differ in more than that.
        return jax.jit(kernel.encode).lower(np.zeros((rows, 77), np.float32)).compile().as_text()

    assert "/my layer/" in names(jmn.MatrixNeuron(Neuron.gelu(), label="my layer"), 77)
    assert "/MatrixNeuron/" in names(jmn.MatrixNeuron(Neuron.gelu()), 78)


# Transformations


X, G, BIAS = draw(0, (4, 6)), draw(1, (4, 6)), draw(2, (6,))
REGION = {"source_number_of_feature_vectors": 2, "source_input_feature_channels": 3}
FORWARD = jmn.MatrixNeuron(
    Neuron.tanh(1.5, 0.5), alpha=1.25, source_matrix_origin=(1, 2), result_matrix_origin=(2, 1), **REGION
)
BACKWARD = jmn.MatrixNeuronGradient(
    Neuron.tanh(1.5, 0.5),
    alpha=1.25,
    primary_source_matrix_origin=(2, 1),
    secondary_source_matrix_origin=(1, 2),
    result_matrix_origin=(1, 2),
    **REGION,
)


def test_the_gradient_class_is_the_gradient_of_the_neuron_class():
    result = jnp.ones((4, 6))
    _, vjp = jax.vjp(lambda x, bias, result: FORWARD.encode(x, bias, result), X, BIAS, result)
    d_x, d_bias, d_result = vjp(G)
    zeros = jnp.zeros_like
    data, bias, _ = BACKWARD.encode(G, X, BIAS, zeros(X), zeros(BIAS))
    assert_close(d_x, np.float64(data))
    assert_close(d_bias, np.float64(bias))
    assert_close(d_result, np.float64(G.at[2:4, 1:4].set(0)))  # what was overwritten has no influence


def test_gradients_of_a_kernel_are_a_kernel():
    def total(kernel):
        return (G[:2, :3] * kernel.encode(X, BIAS)).sum()

    def plain(alpha, a, b):
        return (G[:2, :3] * a * jnp.tanh(b * (alpha * X[1:3, 2:5] + BIAS[:3]))).sum()

    gradient = jax.grad(total)(FORWARD)
    expected = jax.grad(plain, (0, 1, 2))(1.25, 1.5, 0.5)
    for actual, wanted in zip(
        (gradient.alpha, gradient.neuron_parameter_a, gradient.neuron_parameter_b), expected, strict=True
    ):
        assert_close(actual, np.float64(wanted), factor=4)


def calls(function, *arguments):
    text = jax.jit(function).lower(*arguments).as_text()
    return text.count("@jax_mps_neuron.neuron("), text.count("@jax_mps_neuron.neuron_gradient(")


def test_one_call_each(native_library):
    """Also for a batch with a bias for each matrix, and when that is mapped over."""
    x, biases = jnp.ones((5, 4, 6)), jnp.ones((5, 6))
    assert calls(FORWARD.encode, X, BIAS, X) == (1, 0)
    assert calls(FORWARD.encode, x, biases, x) == (1, 0)
    assert calls(jax.vmap(FORWARD.encode), x, biases, x) == (1, 0)
    assert calls(BACKWARD.encode, X, X, BIAS, X, BIAS) == (0, 1)
    assert calls(BACKWARD.encode, x, x, biases, x, BIAS) == (0, 1)
    assert calls(jax.vmap(BACKWARD.encode), x, x, biases, x, biases) == (0, 1)
    layer = jmn.MatrixFullyConnected(Neuron.gelu())
    assert calls(layer.encode, X, jnp.ones((6, 3))) == (1, 0)
    assert calls(layer.encode, x, jnp.ones((5, 6, 3)), jnp.ones((5, 3))) == (1, 0)
    step = jax.value_and_grad(lambda w: layer.encode(X, w).sum())
    assert calls(step, jnp.ones((6, 3))) == (1, 1)
    gradient = jmn.MatrixFullyConnectedGradient()
    assert calls(gradient.encode_for_weights_and_bias, X, X) == (0, 0)


def test_vmap_over_examples_and_kernels():
    x = draw(5, (3, 4, 6))
    by_loop = jnp.stack([FORWARD.encode(each, BIAS) for each in x])
    assert_close(jax.vmap(lambda x: FORWARD.encode(x, BIAS))(x), np.float64(by_loop))
    assert_close(FORWARD.encode(x, BIAS), np.float64(by_loop))
    alphas = jnp.array([0.5, 1.0, 2.0])
    kernels = jax.vmap(FORWARD.set_alpha)(alphas)  # a kernel of three alphas
    many = jax.vmap(lambda alpha: FORWARD.set_alpha(alpha).encode(X))(kernels.alpha)
    for one, alpha in zip(many, alphas, strict=True):
        assert_close(one, np.float64(FORWARD.set_alpha(alpha).encode(X)))


def test_training_as_apple_writes_it():
    """A layer of two kernels forward and two backward is `fully_connected` and its gradient."""
    x, weights, bias, g = draw(0, (5, 4)), draw(1, (4, 3)), draw(2, (3,)), draw(3, (5, 3))
    neuron, alpha = Neuron.softplus(1.25, 1.5), 0.75
    product = jmn.MatrixFullyConnected(alpha=alpha).encode(x, weights, bias)
    y = jmn.MatrixNeuron(neuron).encode(product)
    d_product = jmn.MatrixNeuronGradient(neuron).encode(g, product).data
    backward = jmn.MatrixFullyConnectedGradient(alpha=alpha)
    d_x = backward.encode_for_data(d_product, weights)
    d_weights, d_bias = backward.encode_for_weights_and_bias(d_product, x)
    expected, vjp = jax.vjp(lambda *o: jmn.fully_connected(*o[:2], neuron, o[2], alpha), x, weights, bias)
    for actual, wanted in zip((y, d_x, d_weights, d_bias), (expected, *vjp(g)), strict=True):
        assert_close(actual, np.float64(wanted), factor=8)


def test_empty_regions():
    assert jmn.MatrixNeuron(Neuron.gelu()).encode(jnp.zeros((0, 3)), jnp.zeros(3)).shape == (0, 3)
    kernel = jmn.MatrixFullyConnected(Neuron.gelu(), source_number_of_feature_vectors=0)
    assert kernel.encode(X, jnp.ones((6, 2))).shape == (0, 2)
    unchanged = kernel.encode(X, jnp.ones((6, 2)), None, G)
    assert np.array_equal(unchanged, G)
