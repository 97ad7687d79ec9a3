"""Draws f and f' of the neuron types, one figure a type, on a light and on a dark ground."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from .._core.descriptor import Neuron, NeuronType, parameters_of
from .._ops.activation import neuron, neuron_gradient
from .bench import type_argument
from .themes import FONT_SIZE, THEMES, WIDTH, save, settings, style

__all__ = ["add_arguments", "curves", "draw", "run", "shown"]

# Where Apple's defaults would draw a straight line or nothing but 0, parameters that show the type.
_SHOWN = {
    NeuronType.RELU: Neuron.relu(0.1),
    NeuronType.LINEAR: Neuron.linear(0.5, 1.0),
    NeuronType.PRELU: Neuron.prelu(np.full(1, 0.25, np.float32)),
    NeuronType.RELUN: Neuron.relun(0.1, 2.0),
    NeuronType.POWER: Neuron.power(1.0, 0.0, 2.0),
}
_RANGE = (-4.0, 4.0)
_RANGES = {
    NeuronType.LOGARITHM: (0.01, 4.0),
    NeuronType.EXPONENTIAL: (-4.0, 1.5),
    NeuronType.POWER: (-2.0, 2.0),
}
_HEIGHTS = {NeuronType.LOGARITHM: (-3.0, 6.0)}  # both curves leave the figure at 0
_POINTS = 1600  # even, so that no point is on a bend at 0


def shown(kind: NeuronType) -> Neuron:
    """The neuron that is drawn for a type."""
    return _SHOWN.get(kind) or Neuron(kind)


def curves(kind: NeuronType) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z, f(z) and f'(z) of a type, in float32; f' is NaN where it jumps, so that no line is drawn there."""
    z = np.linspace(*_RANGES.get(kind, _RANGE), _POINTS, dtype=np.float32)
    x = jnp.asarray(z)[:, None]  # PReLU's slope is that of a channel
    f = np.asarray(neuron(x, shown(kind)))[:, 0]
    slope = np.array(neuron_gradient(jnp.ones_like(x), x, shown(kind)).data)[:, 0]
    steps = np.abs(np.diff(slope, prepend=slope[:1], append=slope[-1:]))
    around = np.maximum(np.roll(steps, 1), np.roll(steps, -1))
    slope[(steps > 10 * around + 1e-3)[:-1]] = np.nan
    return z, f, slope


def draw(kind: NeuronType, theme: str, path: Path) -> None:
    """Writes the figure of a type; the suffix of the path says in which format."""
    import matplotlib
    from matplotlib.figure import Figure

    ground, ink, grid, (blue, _), (orange, _), _ = THEMES[theme]
    with matplotlib.rc_context(settings(kind.name)):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained", facecolor=ground)
        axes = figure.add_subplot()
        z, f, slope = curves(kind)
        axes.plot(z, f, color=blue, linewidth=2.4, label="f(z)")
        # In dashes too, for those who cannot tell the colours.
        axes.plot(z, slope, color=orange, linewidth=2.4, linestyle=(0, (4, 1.5)), label="f'(z)")
        for line in (axes.axhline, axes.axvline):
            line(0, color=ink, linewidth=0.8, alpha=0.6)
        axes.set_xlim(z[0], z[-1])
        axes.set_ylim(_HEIGHTS.get(kind))
        axes.set_xlabel("z = alpha x + bias", color=ink)
        axes.set_title(title(kind), color=ink, fontsize=FONT_SIZE)
        axes.grid(color=grid, linewidth=0.7)
        style(axes, THEMES[theme])
        axes.legend(labelcolor=ink, facecolor=ground, edgecolor=grid)
        save(figure, path)


def title(kind: NeuronType) -> str:
    """The type and its parameters as they are drawn."""
    parameters = ", ".join(
        f"{name} = {np.asarray(getattr(shown(kind), name)).item():g}" for name in parameters_of(kind)
    )
    return f"{kind.name}, {parameters}" if parameters else kind.name


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--types", type=type_argument, nargs="+", default=list(NeuronType), metavar="TYPE")
    parser.add_argument("--themes", choices=THEMES, nargs="+", default=list(THEMES))
    parser.add_argument("--format", choices=["svg", "png"], default="svg")
    parser.add_argument("--output", type=Path, metavar="FOLDER", default=Path("neurons"))


def run(arguments: argparse.Namespace) -> int:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print("plot needs matplotlib: pip install matplotlib", file=sys.stderr)
        return 1
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        for kind in arguments.types:
            for theme in arguments.themes:
                draw(kind, theme, arguments.output / f"{kind.name.lower()}-{theme}.{arguments.format}")
    except OSError as error:
        print(f"can't write {error.filename or arguments.output}: {error.strerror}", file=sys.stderr)
        return 1
    count = len(arguments.types) * len(arguments.themes)
    print(f"{count} figures drawn in {arguments.output}")
    return 0
