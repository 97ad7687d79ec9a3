"""Writes the tables of docs/performance.md and the charts in docs/img from the files in benchmarks/results.

    python benchmarks/write_performance.py

A table stands between two comments of the page. The first names a file of figures and a mode, a type for a
sweep, "latency" or "summary": <!-- table cpu-float32 chain --> ... <!-- end -->. Each chart is written as
docs/img/NAME-light.svg and docs/img/NAME-dark.svg.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import overview

from jax_mps_neuron._tools.bench import latency_report
from jax_mps_neuron._tools.bench.plots import draw
from jax_mps_neuron._tools.bench.report import groups, load, summary, table
from jax_mps_neuron._tools.themes import THEMES

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE, PICTURES = ROOT / "benchmarks/results", ROOT / "docs/performance.md", ROOT / "docs/img"
BLOCK = re.compile(r"(<!-- table (\S+) (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def table_of(name: str, which: str) -> str:
    result = load(RESULTS / f"{name}.json")
    if which == "summary":
        return summary(result)
    if which == "latency":
        return latency_report.tables(result).replace("### ", "#### ")
    key = "type" if result["sweep"] else "mode"
    found = [group for group in groups(result) if group[0][key] == which]
    if not found:
        sys.exit(f"{name}.json has no {key} {which!r}, which docs/performance.md asks for")
    return "\n\n".join(table(group, result["sweep"]) for group in found)


def main() -> None:
    page = PAGE.read_text()
    PAGE.write_text(BLOCK.sub(lambda m: f"{m[1]}\n{table_of(m[2], m[3])}\n\n{m[4]}", page))
    PICTURES.mkdir(exist_ok=True)
    overview.main()
    # The figures at many shapes have a table and no chart.
    for name in ("cpu-float32", "cpu-float16", "cpu-bfloat16", "cpu-sweep"):
        result = load(RESULTS / f"{name}.json")
        for theme in THEMES:
            draw([result], PICTURES / f"{name}-{theme}.svg", theme)


if __name__ == "__main__":
    main()
