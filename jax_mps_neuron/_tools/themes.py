"""The two grounds on which figures are drawn, a light one and a dark one, and what all figures share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["FONT_SIZE", "THEMES", "WIDTH", "Theme", "save", "settings", "style"]

# A figure of this width, in inches, is read on a phone, whose page is about as wide.
WIDTH = 5.2
FONT_SIZE = 13


class Theme(NamedTuple):
    """Colours."""

    ground: str
    ink: str
    grid: str
    blues: tuple[str, str]
    oranges: tuple[str, str]
    greens: tuple[str, str]


# The first of two shades is the stronger one.
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
    """matplotlib's: text stays text, and nothing depends on the day: the same figure is the same file."""
    return {"svg.fonttype": "none", "svg.hashsalt": salt, "font.size": FONT_SIZE}


def style(axes: Axes, theme: Theme) -> None:
    """Puts axes on the theme's ground."""
    axes.set_facecolor(theme.ground)
    axes.tick_params(colors=theme.ink)
    axes.spines[:].set_color(theme.grid)


def save(figure: Figure, path: Path) -> None:
    """Writes a figure; the suffix of the path says in which format."""
    figure.savefig(path, dpi=160, metadata={"Date": None} if path.suffix == ".svg" else None)
