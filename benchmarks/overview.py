"""Draws the chart of the first page: milliseconds for the backward pass of a layer, for five activations.

    python benchmarks/overview.py

The figures are those of the chain in benchmarks/results/cpu-float32.json. `write_performance.py` calls this
script.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from jax_mps_neuron._tools.themes import FONT_SIZE, THEMES, save, settings, style

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PICTURES = ROOT / "benchmarks/results/cpu-float32.json", ROOT / "docs/img"
TYPES = {"gelu": "GELU", "softplus": "softplus", "elu": "ELU", "tanh": "tanh", "relu": "ReLU"}
PEERS = {"custom call": "jax-mps-neuron", "jax.nn": "jax.nn", "XLA": "XLA autodiff", "torch": "PyTorch"}


def draw(path: Path, theme: str) -> None:
    """Draws a group of bars for each activation, with its times at their ends."""
    records = json.loads(RESULTS.read_text())["records"]
    chain = {r["type"]: r["ms"] for r in records if r["mode"] == "chain" and r["dtype"] == "float32"}
    colors = THEMES[theme]
    shades = [colors.blues[0], colors.oranges[0], colors.oranges[1], colors.greens[1]]
    with matplotlib.rc_context(settings(path.stem)):
        figure = Figure((5.2, 3.9), layout="constrained", facecolor=colors.ground)
        figure.get_layout_engine().set(w_pad=0.1)
        axis = figure.subplots()
        style(axis, colors)
        height = 0.8 / len(PEERS)
        for i, ((peer, label), shade) in enumerate(zip(PEERS.items(), shades, strict=True)):
            times = [chain[name][peer]["median"] for name in TYPES]
            places = [y + (i - (len(PEERS) - 1) / 2) * height for y in range(len(TYPES))]
            bars = axis.barh(places, times, height * 0.9, color=shade, label=label)
            axis.bar_label(
                bars, [f"{t:.1f}" for t in times], padding=3, color=colors.ink, fontsize=FONT_SIZE - 4
            )
        axis.set_yticks(range(len(TYPES)), TYPES.values(), color=colors.ink)
        axis.invert_yaxis()
        axis.margins(x=0.08)
        axis.set_xlabel("ms per layer, backward (less is better)", color=colors.ink, fontsize=FONT_SIZE - 1)
        axis.grid(axis="x", color=colors.grid, linewidth=0.7)
        axis.tick_params(axis="y", length=0)
        axis.set_axisbelow(True)
        axis.legend(frameon=False, labelcolor=colors.ink, fontsize=FONT_SIZE - 1, loc="lower right")
        save(figure, path)


def main() -> None:
    for theme in THEMES:
        draw(PICTURES / f"overview-{theme}.svg", theme)


if __name__ == "__main__":
    main()
