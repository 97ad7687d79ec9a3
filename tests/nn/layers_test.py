"""The recipes for Flax and Equinox train, their slopes are learned, and each neuron is one call."""

from __future__ import annotations

import importlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron._lowering import native

pytestmark = pytest.mark.slow  # Flax and Equinox take long to install


@pytest.fixture
def recipe():
    """Imports an example; skips without what it needs."""
    for name in ("sklearn", "optax", "tqdm", "matplotlib"):
        pytest.importorskip(name)

    def load(name, library):
        found = pytest.importorskip(library)
        if library == "flax" and tuple(map(int, found.__version__.split(".")[:2])) < (0, 11):
            pytest.skip(f"the recipes are for Flax 0.11 and later; this is {found.__version__}")
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    return load


def check(accuracy, slopes, forward, x):
    assert accuracy > 0.85  # a tenth of it by chance
    assert np.abs(np.asarray(slopes) - 0.25).max() > 1e-3
    text = jax.jit(jax.grad(lambda x: forward(x).sum())).lower(x).as_text()
    if not native.unavailable_reason():
        assert text.count("@jax_mps_neuron.neuron_gradient(") == 2  # a GELU and a PReLU


X = np.ones((8, 64), np.float32)


def test_flax_nnx(recipe):
    model, accuracy = recipe("layers_nnx", "flax").train(3)
    check(accuracy, model.prelu.slopes[...], model, X)


def test_flax_linen(recipe):
    module = recipe("layers_linen", "flax")
    variables, accuracy = module.train(3)
    slopes = variables["params"]["PReLU_0"]["slopes"]
    check(accuracy, slopes, lambda x: module.Classifier().apply(variables, x), X)


def test_equinox(recipe):
    model, accuracy = recipe("layers_equinox", "equinox").train(3)
    check(accuracy, model.prelu.neuron.a, jax.vmap(model), X)


def test_learned_parameters_of_a_layer(recipe):
    """Parameters given as arrays are leaves that Equinox differentiates."""
    module = recipe("layers_equinox", "equinox")
    import equinox as eqx

    neuron = jmn.Neuron.tanh(jnp.float32(1.5), jnp.float32(0.5))
    layer = module.NeuronLayer(64, 4, neuron, key=jax.random.key(0))
    gradient = eqx.filter_grad(lambda layer: layer(X).sum())(layer)
    plain = jax.grad(lambda a: (a * jnp.tanh(0.5 * (X @ layer.weights))).sum())(1.5)
    np.testing.assert_allclose(gradient.neuron.a, plain, rtol=1e-5)
