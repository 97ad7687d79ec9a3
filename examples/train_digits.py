"""Trains a small network on scikit-learn's handwritten digits, with the native backward pass and without.

The same network, data and seed twice: once with `jax_mps_neuron.neuron`, whose gradient is one custom
call a layer where a kernel can run, and once with `jax_mps_neuron.reference.neuron`, pure jax.numpy.
Prints what both reached, and draws both curves. How fast the routes are is measured by
`python -m jax_mps_neuron bench`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import optax
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from tqdm import tqdm

import jax_mps_neuron as jmn
from jax_mps_neuron._lowering.rules import resolve, route

WIDTHS = (64, 256, 128, 10)
BATCH = 64


class Run(NamedTuple):
    losses: np.ndarray  # of each step
    accuracies: np.ndarray  # on the test set, after each epoch
    custom_calls: int  # in one training step


def load() -> tuple[np.ndarray, ...]:
    """x_train, x_test, y_train, y_test: 8x8 images as [n, 64] in 0 to 1, and their digits."""
    images, digits = load_digits(return_X_y=True)
    images = images.astype(np.float32) / 16
    return train_test_split(images, digits, test_size=0.2, random_state=0, stratify=digits)


def initialize(key: jax.Array) -> dict[str, Any]:
    """Weights and biases of each layer, and the PReLU slopes of the second hidden one."""
    keys = jax.random.split(key, len(WIDTHS) - 1)
    weights = [
        jax.random.normal(k, (n, m)) * jnp.sqrt(2 / n)
        for k, n, m in zip(keys, WIDTHS[:-1], WIDTHS[1:], strict=True)
    ]
    return {
        "weights": weights,
        "biases": [jnp.zeros(m) for m in WIDTHS[1:]],
        "slopes": jnp.full(WIDTHS[2], 0.25, jnp.float32),
    }


def logits(parameters: dict[str, Any], x: jax.Array, neuron: Callable) -> jax.Array:
    """A GELU layer, a PReLU layer with learned slopes, and a linear one."""
    w, b = parameters["weights"], parameters["biases"]
    x = neuron(x @ w[0], jmn.Neuron.gelu(), b[0])
    x = neuron(x @ w[1], jmn.Neuron.prelu(parameters["slopes"]), b[1])
    return x @ w[2] + b[2]


def batches(x: np.ndarray, y: np.ndarray, epochs: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(0)
    for _ in range(epochs):
        order = random.permutation(len(x))
        for i in range(0, len(x) - BATCH + 1, BATCH):
            chosen = order[i : i + BATCH]
            yield x[chosen], y[chosen]


def train(
    name: str, neuron: Callable, data: tuple[np.ndarray, ...], epochs: int, jit: Callable = jax.jit
) -> Run:
    x_train, x_test, y_train, y_test = data
    optimizer = optax.adam(1e-3)
    parameters = initialize(jax.random.key(0))
    state = optimizer.init(parameters)

    def loss(parameters, x, y):
        scores = logits(parameters, x, neuron)
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

    @partial(jit, donate_argnums=(0, 1))
    def step(parameters, state, x, y):
        value, gradients = jax.value_and_grad(loss)(parameters, x, y)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(parameters, updates), state, value

    @jit
    def accuracy(parameters):
        return (logits(parameters, x_test, neuron).argmax(-1) == y_test).mean()

    lowered = step.lower(parameters, state, x_train[:BATCH], y_train[:BATCH])
    per_epoch = len(x_train) // BATCH
    losses, accuracies = [], []
    for x, y in tqdm(batches(x_train, y_train, epochs), name, epochs * per_epoch, unit="step"):
        parameters, state, value = step(parameters, state, x, y)
        losses.append(value)
        if len(losses) % per_epoch == 0:
            accuracies.append(accuracy(parameters))
    calls = lowered.as_text().count("@jax_mps_neuron.")
    return Run(np.array(losses), np.array(accuracies), calls)


def draw(runs: dict[str, Run], path: Path) -> None:
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    styles = ({"linewidth": 4, "color": "#9ecae1"}, {"linewidth": 1.2, "color": "#08306b"})
    window = 22  # steps, about an epoch: single batches would hide one curve behind the other
    for (name, run), style in zip(runs.items(), styles, strict=True):
        smooth = np.convolve(run.losses, np.full(window, 1 / window), "valid")
        left.semilogy(np.arange(window, len(run.losses) + 1), smooth, label=name, **style)
        right.plot(np.arange(1, len(run.accuracies) + 1), 100 * run.accuracies, label=name, **style)
    left.set(title=f"Training loss, mean of {window} steps", xlabel="step", ylabel="cross entropy, nats")
    right.set(title="Test accuracy", xlabel="epoch", ylabel="correct, %")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, metavar="N", default=30)
    parser.add_argument("--output", type=Path, metavar="FILE", default=Path("demo.png"))
    parser.add_argument(
        "--metal-jit", action="store_true", help="stage the training by jmn.metal.jit (on a Mac)"
    )
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.error(f"--epochs is {arguments.epochs}; it may be 1 or more")
    if not arguments.output.parent.is_dir():
        parser.error(f"--output is {arguments.output}; it may be in a folder that is there")

    taken, why = route(jax.default_backend(), resolve(None))
    jit: Callable = jax.jit
    if arguments.metal_jit:
        taken, why, jit = "metal.jit", "it was asked for", jmn.metal.jit
    data, native = load(), taken.replace("_", " ")
    runs = {
        "reference": train("reference", jmn.reference.neuron, data, arguments.epochs),
        native: train(native, jmn.neuron, data, arguments.epochs, jit),
    }
    print(f"\nroute on {jax.default_backend()}: {taken} ({why})")
    for name, run in runs.items():
        print(f"{name:<12} test accuracy {run.accuracies[-1]:.1%}, {run.custom_calls} custom calls a step")
    difference = np.abs(runs["reference"].losses - runs[native].losses).max()
    print(f"largest difference of the losses: {difference:.1e}")
    draw(runs, arguments.output)
    print(f"curves drawn in {arguments.output}")


if __name__ == "__main__":
    main()
