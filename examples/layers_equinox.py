"""A neuron layer and a PReLU with learned slopes as Equinox modules, trained on handwritten digits."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import jax_mps_neuron as jmn
from train_digits import batches, load


class PReLU(eqx.Module):
    """PReLU with one learned slope per channel. A Neuron is a pytree, and its slopes are an array leaf."""

    neuron: jmn.Neuron

    def __init__(self, channels: int, slope: float = 0.25):
        self.neuron = jmn.Neuron.prelu(jnp.full(channels, slope))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jmn.neuron(x, self.neuron)


class NeuronLayer(eqx.Module):
    """f(x @ weights + bias). The neuron adds the bias, so one call computes both gradients.

    Parameters of the neuron that are arrays are learned. Python numbers stay as they are.
    """

    weights: jax.Array
    bias: jax.Array
    neuron: jmn.Neuron

    def __init__(self, inputs: int, outputs: int, neuron: jmn.Neuron, *, key: jax.Array):
        self.weights = jax.nn.initializers.he_normal()(key, (inputs, outputs))
        self.bias = jnp.zeros(outputs)
        self.neuron = neuron

    def __call__(self, x: jax.Array) -> jax.Array:
        return jmn.neuron(x @ self.weights, self.neuron, self.bias)


class Classifier(eqx.Module):
    first: NeuronLayer
    second: eqx.nn.Linear
    prelu: PReLU
    last: eqx.nn.Linear

    def __init__(self, *, key: jax.Array):
        keys = jax.random.split(key, 3)
        self.first = NeuronLayer(64, 96, jmn.Neuron.gelu(), key=keys[0])
        self.second = eqx.nn.Linear(96, 48, key=keys[1])
        self.prelu = PReLU(48)
        self.last = eqx.nn.Linear(48, 10, key=keys[2])

    def __call__(self, x: jax.Array) -> jax.Array:
        """The scores of one image. Under `jax.vmap`, each neuron is still one call per batch."""
        return self.last(self.prelu(self.second(self.first(x))))


def train(epochs: int) -> tuple[Classifier, float]:
    """Returns the trained model and its accuracy on the test images."""
    x_train, x_test, y_train, y_test = load()
    model = Classifier(key=jax.random.key(0))
    optimizer = optax.adam(3e-3)
    state = optimizer.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state, x, y):
        def loss(model):
            scores = jax.vmap(model)(x)
            return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

        updates, state = optimizer.update(eqx.filter_grad(loss)(model), state)
        return eqx.apply_updates(model, updates), state

    for x, y in batches(x_train, y_train, epochs):
        model, state = step(model, state, x, y)
    return model, float((jax.vmap(model)(x_test).argmax(-1) == y_test).mean())


if __name__ == "__main__":
    print(f"test accuracy {train(10)[1]:.1%}")
