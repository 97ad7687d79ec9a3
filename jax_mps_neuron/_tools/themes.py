"""The light and dark themes, and what all figures share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FONT_SIZE", "THEMES", "WIDTH", "Theme", "save", "settings", "style"]

# Inches. Text stays readable on a phone, whose page is about this wide.
WIDTH = 5.2
FONT_SIZE = 13


class Theme(NamedTuple):
    """Colors. Of two shades, the first is the stronger one."""

    ground: str
    ink: str
    grid: str
    blues: tuple[str, str]
    oranges: tuple[str, str]
    greens: tuple[str, str]


THEMES = {
    "light": Theme(
        ground="#ffffff",
        ink="#202124",
        grid="#d5d7db",
        blues=("#1a56c4", "#7fb2f0"),
        oranges=("#c2410c", "#f5b26b"),
        greens=("#4d7c3a", "#b5cf8f"),
    ),
    "dark": Theme(
        ground="#1e2129",
        ink="#e6e8ec",
        grid="#454a57",
        blues=("#7fb0ff", "#3d6bb3"),
        oranges=("#ffa657", "#a8622a"),
        greens=("#98cc7f", "#55793f"),
    ),
}


def settings(salt: str) -> Any:
    """matplotlib's settings. Text stays text, and equal figures are equal files."""
    return {"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": FONT_SIZE}


def style(axes: Axes, theme: Theme) -> None:
    """Gives axes the colors of a theme."""
    axes.set_facecolor(theme.ground)
    axes.tick_params(colors=theme.ink)
    axes.spines[:].set_color(theme.grid)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure. The suffix of the path selects the format."""
    figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
