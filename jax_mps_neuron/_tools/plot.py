"""Draws f and f' of neuron types: one figure per type and theme."""

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

__all__ = ["add_arguments", "curves", "draw", "run", "shown", "title"]

# Parameters for the types whose defaults would draw a straight line, or 0 on one side.
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
_HEIGHTS = {NeuronType.LOGARITHM: (-3.0, 6.0)}  # f and f' are unbounded at 0
_POINTS = 1600  # an even number, so that no point lies on a kink at 0

_FOLDER = Path("neurons")


def shown(neuron_type: NeuronType) -> Neuron:
    """The neuron drawn for a type."""
    return _SHOWN.get(neuron_type) or Neuron(neuron_type)


def curves(neuron_type: NeuronType) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z, f(z) and f'(z) in float32. f' is NaN where it jumps, which interrupts the drawn line."""
    z = np.linspace(*_RANGES.get(neuron_type, _RANGE), _POINTS, dtype=np.float32)
    x = jnp.asarray(z)[:, None]  # one channel, because PReLU has one slope per channel
    f = np.asarray(neuron(x, shown(neuron_type)))[:, 0]
    derivative = np.array(neuron_gradient(jnp.ones_like(x), x, shown(neuron_type)).data)[:, 0]
    steps = np.abs(np.diff(derivative, prepend=derivative[:1], append=derivative[-1:]))
    around = np.maximum(np.roll(steps, 1), np.roll(steps, -1))
    derivative[(steps > 10 * around + 1e-3)[:-1]] = np.nan
    return z, f, derivative


def draw(neuron_type: NeuronType, theme: str, path: Path) -> None:
    """Writes the figure of a type. The suffix of the path selects the format."""
    import matplotlib
    from matplotlib.figure import Figure

    ground, ink, grid, (blue, _), (orange, _), _ = THEMES[theme]
    with matplotlib.rc_context(settings(neuron_type.name)):
        figure = Figure(figsize=(WIDTH, 3.6), layout="constrained", facecolor=ground)
        axes = figure.add_subplot()
        z, f, derivative = curves(neuron_type)
        axes.plot(z, f, color=blue, linewidth=2.4, label="f(z)")
        # Dashes tell the curves apart without color.
        axes.plot(z, derivative, color=orange, linewidth=2.4, linestyle=(0, (4, 1.5)), label="f'(z)")
        for line in (axes.axhline, axes.axvline):
            line(0, color=ink, linewidth=0.8, alpha=0.6)
        axes.set_xlim(z[0], z[-1])
        axes.set_ylim(_HEIGHTS.get(neuron_type))
        axes.set_xlabel("z = alpha x + bias", color=ink)
        axes.set_title(title(neuron_type), color=ink, fontsize=FONT_SIZE)
        axes.grid(color=grid, linewidth=0.7)
        style(axes, THEMES[theme])
        axes.legend(labelcolor=ink, facecolor=ground, edgecolor=grid)
        save(figure, path)


def title(neuron_type: NeuronType) -> str:
    """The type and the parameters drawn."""
    neuron = shown(neuron_type)
    values = (
        f"{name} = {np.asarray(getattr(neuron, name)).item():g}" for name in parameters_of(neuron_type)
    )
    return ", ".join((neuron_type.name, *values))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options to a parser."""
    parser.add_argument(
        "named",
        type=type_argument,
        nargs="*",
        metavar="TYPE",
        help="neuron types to draw, such as gelu (default: all)",
    )
    parser.add_argument(
        "--types", type=type_argument, nargs="+", default=[], metavar="TYPE", help="the same, as in bench"
    )
    parser.add_argument("--themes", choices=THEMES, nargs="+", default=list(THEMES), help="(default: both)")
    parser.add_argument("--format", choices=["svg", "png"], default="svg", help="(default: %(default)s)")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help=f"where to write the figures (default: {_FOLDER}, with a .gitignore that hides it from git)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Draws the figures. Returns the exit status."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        print("plot needs matplotlib: pip install matplotlib", file=sys.stderr)
        return 1
    types = [*arguments.named, *arguments.types] or list(NeuronType)
    folder = arguments.output or _FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if arguments.output is None:
            (folder / ".gitignore").write_text("*\n")
        for neuron_type in types:
            for theme in arguments.themes:
                draw(neuron_type, theme, folder / f"{neuron_type.name.lower()}-{theme}.{arguments.format}")
    except OSError as error:
        print(f"cannot write {error.filename or folder}: {error.strerror}", file=sys.stderr)
        return 1
    print(f"{len(types) * len(arguments.themes)} figures drawn in {folder}")
    return 0
