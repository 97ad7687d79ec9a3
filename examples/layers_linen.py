"""A neuron layer and a PReLU with learned slopes as Flax Linen modules, trained on handwritten digits."""

from __future__ import annotations

from typing import Any

import jax
import optax
from flax import linen

import jax_mps_neuron as jmn
from train_digits import batches, load


class PReLU(linen.Module):
    """PReLU with one learned slope per channel."""

    slope: float = 0.25

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slopes = self.param("slopes", linen.initializers.constant(self.slope), x.shape[-1:])
        return jmn.neuron(x, jmn.Neuron.prelu(slopes))


class NeuronLayer(linen.Module):
    """f(x @ weights + bias). The neuron adds the bias, so one call computes both gradients."""

    outputs: int
    neuron: jmn.Neuron

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (x.shape[-1], self.outputs)
        weights = self.param("weights", linen.initializers.he_normal(), shape)
        bias = self.param("bias", linen.initializers.zeros_init(), (self.outputs,))
        return jmn.neuron(x @ weights, self.neuron, bias)


class Classifier(linen.Module):
    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = NeuronLayer(96, jmn.Neuron.gelu())(x)
        x = PReLU()(linen.Dense(48)(x))
        return linen.Dense(10)(x)


def train(epochs: int) -> tuple[dict[str, Any], float]:
    """Returns the trained variables and their accuracy on the test images."""
    x_train, x_test, y_train, y_test = load()
    model = Classifier()
    variables = model.init(jax.random.key(0), x_train[:1])
    optimizer = optax.adam(3e-3)
    state = optimizer.init(variables)

    @jax.jit
    def step(variables, state, x, y):
        def loss(variables):
            scores = model.apply(variables, x)
            return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

        updates, state = optimizer.update(jax.grad(loss)(variables), state)
        return optax.apply_updates(variables, updates), state

    for x, y in batches(x_train, y_train, epochs):
        variables, state = step(variables, state, x, y)
    return variables, float((model.apply(variables, x_test).argmax(-1) == y_test).mean())


if __name__ == "__main__":
    print(f"test accuracy {train(10)[1]:.1%}")
