"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["digits", "ratio", "table"]


def table(header: Sequence[str], rows: Iterable[Sequence[str]], texts: Iterable[int] = (0,)) -> str:
    """A table. Columns are aligned to the right, except those in `texts`."""
    left = set(texts)
    rules = ["---" if i in left else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (header, rules, *rows))


def ratio(value: float | None) -> str:
    """A ratio with two digits, such as 1.3x; empty for None."""
    return "" if value is None else f"{value:.2g}x" if value < 100 else f"{value:.0f}x"


def digits(value: float) -> str:
    """A number with three digits, or as an integer from 100."""
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"
