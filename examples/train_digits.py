"""Trains a small network on scikit-learn's handwritten digits, with the native backward pass and without.

    python examples/train_digits.py [--epochs N] [--output FILE] [--metal-jit]

Both runs have the same network, data and seed. One uses `jax_mps_neuron.neuron`, whose gradient is one
custom call per layer where a kernel can run. The other uses `jax_mps_neuron.reference.neuron`, which is
pure jax.numpy. The script prints the accuracy of both, times a training step at three batch sizes, and
draws the curves, which coincide, beside the times, which do not.
`python -m jax_mps_neuron bench` measures the routes in depth.
"""

from __future__ import annotations

import argparse
import time
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
from jax_mps_neuron._lowering.routes import resolve, route

WIDTHS = (64, 256, 128, 10)
BATCH = 64
TIMED_BATCHES = (BATCH, 1024, 16384)
OPTIMIZER = optax.adam(1e-3)


class Run(NamedTuple):
    losses: np.ndarray  # of each step
    accuracies: np.ndarray  # on the test set, after each epoch
    custom_calls: int  # in one training step
    step: Callable  # (parameters, state, x, y) -> (parameters, state, loss)


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


def initial() -> list[Any]:
    """The parameters and the state of the optimizer before the first step."""
    parameters = initialize(jax.random.key(0))
    return [parameters, OPTIMIZER.init(parameters)]


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
    parameters, state = initial()

    def loss(parameters, x, y):
        scores = logits(parameters, x, neuron)
        return optax.softmax_cross_entropy_with_integer_labels(scores, y).mean()

    @partial(jit, donate_argnums=(0, 1))
    def step(parameters, state, x, y):
        value, gradients = jax.value_and_grad(loss)(parameters, x, y)
        updates, state = OPTIMIZER.update(gradients, state)
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
    return Run(np.array(losses), np.array(accuracies), calls, step)


def step_times(
    runs: dict[str, Run], data: tuple[np.ndarray, ...], turns: int = 15
) -> dict[str, list[float]]:
    """Median milliseconds of a training step at each of `TIMED_BATCHES`; the runs take turns."""
    x_train, _, y_train, _ = data
    medians: dict[str, list[float]] = {name: [] for name in runs}
    for batch in tqdm(TIMED_BATCHES, "step times", unit="batch size"):
        chosen = np.random.default_rng(0).integers(0, len(x_train), batch)
        x, y = jnp.asarray(x_train[chosen]), jnp.asarray(y_train[chosen])
        states = {name: initial() for name in runs}
        times: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(turns):
            for name, run in runs.items():
                start = time.perf_counter()
                *states[name], _ = jax.block_until_ready(run.step(*states[name], x, y))
                times[name].append(1e3 * (time.perf_counter() - start))
        for name in runs:
            medians[name].append(float(np.median(times[name][2:])))  # the first turns compile
    return medians


STYLES = ({"linewidth": 5, "color": "#9ecae1"}, {"linewidth": 1.4, "color": "#08306b"})


def draw(runs: dict[str, Run], times: dict[str, list[float]], path: Path) -> None:
    """Draws the loss, the accuracy and the time of a step of each run."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, (loss, accuracy, step) = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.15, h_pad=0.1)
    window = 22  # steps, about an epoch: the noise of single batches would hide one curve behind the other
    for (name, run), style in zip(runs.items(), STYLES, strict=True):
        smooth = np.convolve(run.losses, np.full(window, 1 / window), "valid")
        loss.semilogy(np.arange(window, len(run.losses) + 1), smooth, label=name, **style)
        accuracy.plot(np.arange(1, len(run.accuracies) + 1), 100 * run.accuracies, **style)
    loss.set(
        title=f"Training loss (largest difference {largest_difference(runs):.0e})",
        xlabel="step",
        ylabel=f"cross entropy, mean of {window} steps",
    )
    accuracy.set(title="Test accuracy", xlabel="epoch", ylabel="correct, %")
    draw_times(step, times)
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
    for axes in (loss, accuracy, step):
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=2, frameon=False, fontsize=12)
    figure.savefig(path, dpi=120)


def draw_times(axes: Any, times: dict[str, list[float]]) -> None:
    """Bars of the time of a step relative to the first run, with the milliseconds at their ends."""
    name, first = next(iter(times.items()))
    height, longest = 0.36, 100.0
    for i, (medians, style) in enumerate(zip(times.values(), STYLES, strict=True)):
        places = [y + (i - 0.5) * height for y in range(len(medians))]
        relative = [100 * t / of_first for t, of_first in zip(medians, first, strict=True)]
        bars = axes.barh(places, relative, 0.92 * height, color=style["color"])
        axes.bar_label(bars, [f"{t:.3g} ms" for t in medians], padding=4)
        longest = max(longest, *relative)
    axes.set_yticks(range(len(TIMED_BATCHES)), [f"batch of\n{batch}" for batch in TIMED_BATCHES])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * longest)
    axes.set(title="Time per training step", xlabel=f"% of the time of {name}")
    axes.tick_params(axis="y", length=0)


def largest_difference(runs: dict[str, Run]) -> float:
    """The largest difference of the losses of two runs in any step."""
    first, second = (run.losses for run in runs.values())
    return float(np.abs(first - second).max())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, metavar="N", default=30)
    parser.add_argument("--output", type=Path, metavar="FILE", default=Path("demo.png"))
    parser.add_argument(
        "--metal-jit", action="store_true", help="stage the training by jmn.metal.jit (on a Mac)"
    )
    arguments = parser.parse_args()
    if arguments.epochs < 1:
        parser.error(f"--epochs must be 1 or more, got {arguments.epochs}")
    if not arguments.output.parent.is_dir():
        parser.error(f"--output must be in an existing folder, got {arguments.output}")

    taken, why = route(jax.default_backend(), resolve(None))
    jit: Callable = jax.jit
    if arguments.metal_jit:
        taken, why, jit = "metal.jit", "--metal-jit", jmn.metal.jit
    data, native = load(), taken.replace("_", " ")
    runs = {
        "reference": train("reference", jmn.reference.neuron, data, arguments.epochs),
        native: train(native, jmn.neuron, data, arguments.epochs, jit),
    }
    print(f"\nroute on {jax.default_backend()}: {taken} ({why})")
    for name, run in runs.items():
        accuracy = run.accuracies[-1]
        print(f"{name:<12} test accuracy {accuracy:.1%}, {run.custom_calls} custom calls per step")
    print(f"largest difference of the losses: {largest_difference(runs):.1e}")
    times = step_times(runs, data)
    for batch, *medians in zip(TIMED_BATCHES, *times.values(), strict=True):
        each = ", ".join(f"{name} {t:.3g} ms" for name, t in zip(times, medians, strict=True))
        print(f"a training step with a batch of {batch}: {each}")
    draw(runs, times, arguments.output)
    print(f"drawn in {arguments.output}")


if __name__ == "__main__":
    main()
