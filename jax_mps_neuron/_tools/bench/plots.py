"""Pictures of the measurements: bandwidth beside the floor, and time against size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ..themes import FONT_SIZE, THEMES, WIDTH, Theme, save, settings, style
from .modes import BARRIERS, CHAIN, DX, DX_DBIAS, FORWARD, STEP
from .peers import PEERS
from .report import bandwidth, groups, median, title

__all__ = ["draw"]

_DRAWN = (CHAIN, BARRIERS, DX_DBIAS, DX, FORWARD)
_FLOOR = "floor: g * x"
_BAR = 0.125  # inches
_SMALL = 9  # points, as high as a bar


def draw(results: Sequence[dict[str, Any]], path: Path, theme: str = "light") -> None:
    """Draws results into one file: a panel per dtype and shape; in a sweep, per dtype and neuron type.

    Raises:
      ValueError: the results have nothing to draw.
    """
    panels = [(group, result["sweep"]) for result in results for group in _drawn(result)]
    if not panels:
        raise ValueError("nothing to draw: only sweeps, and modes with a bandwidth, have pictures")
    colors = THEMES[theme]
    peers = [name for name in PEERS if any(name in cell["ms"] for group, _ in panels for cell in group)]
    heights = [3.6 if sweep else 1.1 + _spacing(group) * len(group) for group, sweep in panels]
    legend = 0.3 * math.ceil((len(peers) + 1) / 2)
    with matplotlib.rc_context(settings(path.stem)):
        figure = Figure((WIDTH, sum(heights) + legend), layout="constrained", facecolor=colors.ground)
        axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)
        for axis, (group, sweep) in zip(axes.flat, panels, strict=True):
            style(axis, colors)
            (_lines if sweep else _bars)(axis, group, colors)
            axis.set_title(title(group, sweep), fontsize=FONT_SIZE, color=colors.ink)
        sweeps = all(sweep for _, sweep in panels)
        figure.legend(
            handles=_handles(peers, colors, sweeps),
            loc="outside upper center",
            ncols=2,
            frameon=False,
            labelcolor=colors.ink,
            fontsize=FONT_SIZE - 1,
        )
        save(figure, path)


def _drawn(result: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """The groups of a sweep; otherwise those of one mode, the first of `_DRAWN` that was measured."""
    if "records" not in result:
        return []
    found = [group for group in groups(result) if group[0]["mode"] != STEP]
    if result["sweep"]:
        return found
    modes = {group[0]["mode"] for group in found}
    best = next((mode for mode in _DRAWN if mode in modes), None)
    return [group for group in found if group[0]["mode"] == best]


def _peers(group: Sequence[dict[str, Any]]) -> list[str]:
    return [name for name in PEERS if any(name in cell["ms"] for cell in group)]


def _colors(theme: Theme) -> dict[str, str]:
    shades = (*theme.blues, *theme.oranges, *theme.greens)
    return dict(zip(PEERS, shades, strict=True))


def _handles(peers: Sequence[str], theme: Theme, sweep: bool) -> list[Any]:
    """The entries of the legend."""
    colors = _colors(theme)
    floor = Line2D([], [], color=theme.ink, linewidth=1.8, linestyle="--" if sweep else "-", label=_FLOOR)
    if sweep:
        return [*(Line2D([], [], marker="o", markersize=3, color=colors[p], label=p) for p in peers), floor]
    return [*(Patch(color=colors[p], label=p) for p in peers), floor]


def _spacing(group: Sequence[dict[str, Any]]) -> float:
    """The distance in inches between the groups of two types."""
    return _BAR * (len(_peers(group)) + 1.2)


def _bars(axis: Any, group: Sequence[dict[str, Any]], theme: Theme) -> None:
    """Draws a group of bars per type, from the top down, and the floor as a line across each group."""
    colors, width = _colors(theme), _BAR / _spacing(group)
    end = 1.25 * max(bandwidth(cell, cell["floor"]) for cell in group)
    for y, cell in enumerate(group):
        names = [name for name in PEERS if name in cell["ms"]]
        half = width * len(names) / 2
        places = [y - half + (i + 0.5) * width for i in range(len(names))]
        speeds = [bandwidth(cell, name) for name in names]
        axis.barh(places, [min(s, end) for s in speeds], width, color=[colors[name] for name in names])
        for place, speed in zip(places, speeds, strict=True):
            if speed > end:  # the axis cuts the bar
                text = f"\N{RIGHTWARDS ARROW} {_number(speed)}"
                at = {"xytext": (3, 0), "textcoords": "offset points", "va": "center_baseline"}
                axis.annotate(text, (end, place), color=theme.ink, fontsize=_SMALL, **at)
        floor = bandwidth(cell, cell["floor"])
        axis.vlines(floor, y - half, y + half, theme.ink, linewidth=1.8)
    axis.set_xlim(0, end)
    axis.set_ylim(len(group) - 0.5, -0.5)
    axis.set_yticks(range(len(group)), [cell["type"] for cell in group], fontsize=FONT_SIZE - 1)
    axis.set_xlabel("GB/s (higher is better)", color=theme.ink)
    axis.grid(axis="x", color=theme.grid, linewidth=0.7)
    axis.tick_params(axis="y", length=0)
    axis.set_axisbelow(True)


def _number(speed: float) -> str:
    return f"{speed:.0f}" if speed < 10000 else f"{speed:.0e}".replace("e+0", "e")


def _lines(axis: Any, group: Sequence[dict[str, Any]], theme: Theme) -> None:
    """Draws a line per peer, and the floor."""
    item = 4 if group[0]["dtype"] == "float32" else 2
    sizes = [math.prod(cell["shape"]) * item for cell in group]
    colors = _colors(theme)
    for name in _peers(group):
        points = [(s, median(c, name)) for s, c in zip(sizes, group, strict=True) if name in c["ms"]]
        axis.plot(*zip(*points, strict=True), "o-", markersize=3, color=colors[name])
    axis.plot(sizes, [median(cell, cell["floor"]) for cell in group], "--", color=theme.ink, linewidth=1.8)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    ticks = [2**power for power in range(0, 41, 5) if sizes[0] <= 2**power <= sizes[-1]]
    axis.set_xticks(ticks, [_bytes(t) for t in ticks])
    axis.set_xlabel("size of x", color=theme.ink)
    axis.set_ylabel("milliseconds per call", color=theme.ink)
    axis.grid(color=theme.grid, linewidth=0.7, which="major")


def _bytes(size: int) -> str:
    for power, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 2**power:
            return f"{size >> power} {unit}"
    return f"{size} B"
