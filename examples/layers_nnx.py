"""A neuron layer and a PReLU with learned slopes as Flax NNX modules, trained on handwritten digits."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jax_mps_neuron as jmn
from train_digits import batches, load


class PReLU(nnx.Module):
    """PReLU with one learned slope per channel."""

    def __init__(self, channels: int, slope: float = 0.25):
        self.slopes = nnx.Param(jnp.full(channels, slope))

    def __call__(self, x: jax.Array) -> jax.Array:
        return jmn.neuron(x, jmn.Neuron.prelu(self.slopes[...]))


class NeuronLayer(nnx.Module):
    """f(x @ weights + bias). The neuron adds the bias, so one call computes both gradients."""

    def __init__(self, inputs: int, outputs: int, neuron: jmn.Neuron, *, rngs: nnx.Rngs):
        initialize = nnx.initializers.he_normal()
        self.weights = nnx.Param(initialize(rngs.params(), (inputs, outputs)))
        self.bias = nnx.Param(jnp.zeros(outputs))
        self.type = neuron.type  # static; make the parameters an nnx.Param to learn them
        self.parameters = nnx.Variable((neuron.a, neuron.b, neuron.c))

    def __call__(self, x: jax.Array) -> jax.Array:
        neuron = jmn.Neuron(self.type, *self.parameters.get_value())
        return jmn.neuron(x @ self.weights[...], neuron, self.bias[...])


class Classifier(nnx.Module):
    def __init__(self, *, rngs: nnx.Rngs):
        self.first = NeuronLayer(64, 96, jmn.Neuron.gelu(), rngs=rngs)
        self.second = nnx.Linear(96, 48, rngs=rngs)
        self.prelu = PReLU(48)
        self.last = nnx.Linear(48, 10, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.last(self.prelu(self.second(self.first(x))))


def train(epochs: int) -> tuple[Classifier, float]:
    """Returns the trained model and its accuracy on the test images."""
    x_train, x_test, y_train, y_test = load()
    model = Classifier(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(3e-3), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, x, y):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        optimizer.update(model, nnx.grad(loss)(model))

    for x, y in batches(x_train, y_train, epochs):
        step(model, optimizer, x, y)
    return model, float((model(x_test).argmax(-1) == y_test).mean())


if __name__ == "__main__":
    print(f"test accuracy {train(10)[1]:.1%}")
