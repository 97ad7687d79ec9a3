"""Pictures of the figures: bars of bandwidth against the floor, and time against size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from .modes import CHAIN, DX, DX_DBIAS, FORWARD, STEP
from .peers import CUSTOM_CALL, INLINE, JAX_NN, TORCH, TORCH_COMPILE, XLA
from .report import bandwidth, groups, median, title

__all__ = ["draw"]

_COLORS = {
    CUSTOM_CALL: "#1f5fbf",
    INLINE: "#7fb2f0",
    XLA: "#d95f02",
    JAX_NN: "#f5b26b",
    TORCH: "#6a9955",
    TORCH_COMPILE: "#b5cf8f",
}
_FLOOR = "#333333"


def draw(results: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws results into one file, one panel for each dtype and shape, or dtype and type of a sweep."""
    panels = [(group, result["sweep"]) for result in results for group in _drawn(result)]
    if not panels:
        raise ValueError("nothing to draw: a training step alone has no bandwidth")
    sweep = all(is_sweep for _, is_sweep in panels)
    columns = min(2, len(panels)) if sweep else 1
    rows = math.ceil(len(panels) / columns)
    size = (6.5 * columns, 4.6 * rows) if sweep else (13, 4.2 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    for axis, (group, is_sweep) in zip(axes.flat, panels, strict=False):
        (_lines if is_sweep else _bars)(axis, group)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _drawn(result: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Of a sweep all groups; otherwise, for each dtype and shape, those of one mode: the chain if there."""
    found = [group for group in groups(result) if group[0]["mode"] != STEP]
    if result["sweep"]:
        return found
    modes = {group[0]["mode"] for group in found}
    best = next((mode for mode in (CHAIN, DX_DBIAS, DX, FORWARD) if mode in modes), None)
    return [group for group in found if group[0]["mode"] == best]


def _peers(group: Sequence[dict[str, Any]]) -> list[str]:
    return [name for name in _COLORS if any(name in cell["ms"] for cell in group)]


def _bars(axis: Any, group: Sequence[dict[str, Any]]) -> None:
    peers = _peers(group)
    width = 0.8 / len(peers)
    floors = [bandwidth(cell, cell["floor"]) for cell in group]
    top = 1.25 * max(floors)
    for i, name in enumerate(peers):
        places = [x for x, cell in enumerate(group) if name in cell["ms"]]
        heights = [bandwidth(group[x], name) for x in places]
        shifted = [x - 0.4 + (i + 0.5) * width for x in places]
        bars = axis.bar(shifted, heights, width, color=_COLORS[name], label=name)
        above = [f"{h:.0f}" if h > top else "" for h in heights]
        axis.bar_label(bars, above, fontsize=7, rotation=90, label_type="center", color="white")
    for x, floor in enumerate(floors):
        label = "floor: g * x" if x == 0 else None
        axis.plot([x - 0.45, x + 0.45], [floor, floor], color=_FLOOR, linewidth=1.8, label=label)
    axis.set_ylim(0, top)
    axis.set_xlim(-0.6, len(group) - 0.4)
    axis.set_xticks(range(len(group)), [c["type"].replace("_", "\n") for c in group], fontsize=9)
    axis.set_ylabel("GB/s (higher is better)")
    axis.set_title(title(group, False), fontsize=11)
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _lines(axis: Any, group: Sequence[dict[str, Any]]) -> None:
    item = 4 if group[0]["dtype"] == "float32" else 2
    sizes = [math.prod(cell["shape"]) * item for cell in group]
    for name in _peers(group):
        points = [(s, median(c, name)) for s, c in zip(sizes, group, strict=True) if name in c["ms"]]
        axis.plot(*zip(*points, strict=True), "o-", markersize=3, color=_COLORS[name], label=name)
    floors = [median(cell, cell["floor"]) for cell in group]
    axis.plot(sizes, floors, "--", color=_FLOOR, linewidth=1.8, label="floor: g * x")
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    ticks = [2**power for power in range(0, 41, 5) if sizes[0] <= 2**power <= sizes[-1]]
    axis.set_xticks(ticks, [_bytes(t) for t in ticks])
    axis.set_xlabel("size of x")
    axis.set_ylabel("milliseconds a call")
    axis.set_title(title(group, True), fontsize=11)
    axis.grid(alpha=0.3, which="major")
    axis.legend(fontsize=8, frameon=False)


def _bytes(size: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 2**power:
            return f"{size >> power} {unit}"
    return f"{size} B"
