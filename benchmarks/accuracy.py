"""Measures the errors of f and f' of every neuron on each route, in ULP of the result's dtype.

    python benchmarks/accuracy.py [--neuron NAME ...] [--dtype DTYPE ...] [--route ROUTE ...]
                                  [--points N] [--aarch64] [--worst] [--json FILE] [--docs FILE]

The inputs are every number of float16 and bfloat16, and N numbers over the whole range of float32. The
expected values are those of Apple's table in float64; tests/support/ulps.py defines the error. The routes
are "plain" (the usual jax.numpy formula, and XLA's autodiff of it), "inline", and the instruction sets of
the CPU kernels. --aarch64 adds those of aarch64, cross-compiled and run by qemu.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from support import ulps  # noqa: E402
from support.cpu_kernels import build  # noqa: E402

FUNCTIONS = ("f", "f'")
# --docs replaces what follows this line of a page.
MARK = "<!-- written by benchmarks/accuracy.py -->"


def figure(value: float) -> str:
    if value < 99.995:
        return f"{value:.2f}"
    return f"{value:.0f}" if value < 99_999.5 else f"{value:.0e}".replace("e+0", "e").replace("e+", "e")


def cell(figures: dict) -> str:
    wrong = f", {figures['wrong']} wrong" if figures["wrong"] else ""
    return f"{figure(figures['max'])} / {figure(figures['mean'])}{wrong}"


def table(by_neuron: dict) -> str:
    """A table in Markdown: a row per neuron and function, a column per route, cells of maximum / mean."""
    routes = list(next(iter(by_neuron.values()))["f"])
    lines = [f"| neuron | of | {' | '.join(routes)} |", "| --- " * (len(routes) + 2) + "|"]
    for name, by_function in by_neuron.items():
        for function, by_route in by_function.items():
            cells = " | ".join(cell(by_route[route]) for route in routes)
            lines.append(f"| {name if function == 'f' else ''} | {function} | {cells} |")
    return "\n".join(lines)


def print_worst(results: dict) -> None:
    for dtype, by_neuron in results.items():
        for name, by_function in by_neuron.items():
            for function, by_route in by_function.items():
                for route, f in by_route.items():
                    where = f"{f['max']:.6g} ULP at {f['at']!r}: {f['got']!r}, true {f['true']!r}"
                    print(f"{dtype} {name} {function} {route}: {where}; below {f['below']:.3g}")


def aarch64_kernels(folder: Path) -> dict[str, build.Kernels]:
    """aarch64's kernels: route to kernels."""
    if problem := build.problem(build.AARCH64):
        raise SystemExit(f"--aarch64: {problem}")
    build.build(folder, build.AARCH64)
    sets = build.isas(folder, build.AARCH64)
    return {f"aarch64 {isa}": build.Kernels(folder, build.AARCH64, isa) for isa in sets}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neuron", nargs="+", choices=list(ulps.NEURONS), default=list(ulps.NEURONS))
    parser.add_argument("--dtype", nargs="+", choices=ulps.DTYPES, default=ulps.DTYPES)
    parser.add_argument("--route", nargs="+", choices=ulps.routes(), default=ulps.routes())
    parser.add_argument(
        "--points",
        type=int,
        default=1_000_000,
        metavar="N",
        help="numbers of float32 (default: %(default)s)",
    )
    parser.add_argument(
        "--aarch64", action="store_true", help="also measure the kernels of aarch64, by qemu"
    )
    parser.add_argument("--worst", action="store_true", help="also print where each maximum is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the errors to a file")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="replace the tables of this page")
    return parser.parse_args()


def write(results: dict, points: int, path: Path) -> None:
    """Writes JSON with one line per neuron and function."""
    about = {"jax": jax.__version__, "machine": platform.machine(), "points": points}
    rows = [
        f"{json.dumps(f'{dtype} {name} {f}')}: {json.dumps(by_route)}"
        for dtype, by_neuron in results.items()
        for name, by_function in by_neuron.items()
        for f, by_route in by_function.items()
    ]
    body = ",\n".join(rows)
    path.write_text(f'{{"about": {json.dumps(about)},\n"errors": {{\n{body}\n}}}}\n')


def main() -> None:
    arguments = parse()

    with tempfile.TemporaryDirectory() as folder:
        others = aarch64_kernels(Path(folder)) if arguments.aarch64 else {}

        def measure(name: str, dtype: str, function: str) -> dict:
            """The errors of each route."""
            also: dict[str, Callable[..., np.ndarray]] = {
                route: partial(build.values, kernels) for route, kernels in others.items()
            }
            print(f"  {dtype} {name} {function} ...", file=sys.stderr, flush=True)
            derivative = function == "f'"
            neuron, routes, points = ulps.NEURONS[name], arguments.route, arguments.points
            measured = ulps.measure(neuron, dtype, routes, points, derivative=derivative, also=also)
            return {route: figures._asdict() for route, figures in measured.items()}

        results = {
            dtype: {name: {f: measure(name, dtype, f) for f in FUNCTIONS} for name in arguments.neuron}
            for dtype in arguments.dtype
        }
    text = "\n\n".join(f"## {dtype}\n\n{table(results[dtype])}" for dtype in results)
    print(text)
    if arguments.worst:
        print_worst(results)
    if arguments.docs:
        before = arguments.docs.read_text().partition(MARK)[0]
        arguments.docs.write_text(f"{before}{MARK}\n\n{text}\n")
    if arguments.json:
        write(results, arguments.points, arguments.json)


if __name__ == "__main__":
    main()
