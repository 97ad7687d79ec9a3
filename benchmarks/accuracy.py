"""Measures how accurate f and f' of every neuron are, in ULP of the result's dtype, on each route.

    python benchmarks/accuracy.py [--neuron NAME ...] [--dtype DTYPE ...] [--route ROUTE ...]
                                  [--points N] [--json FILE] [--markdown FILE]

Every number of float16 and bfloat16, and N numbers over the whole range of float32, against float64 from
Apple's table; tests/ulps.py says how errors are measured. Routes are "plain" (the formula as one writes it
in jax.numpy, and XLA's autodiff of it), "inline", and the instruction sets of the CPU kernels.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from pathlib import Path

import jax

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import ulps  # noqa: E402

FUNCTIONS = ("f", "f'")


def figure(value: float) -> str:
    """Two decimals, or as many digits as say something."""
    return (
        f"{value:.2f}"
        if value < 99.995
        else f"{value:.0f}"
        if value < 1e5
        else f"{value:.0e}".replace("e+0", "e")
    )


def cell(figures: dict) -> str:
    wrong = f", {figures['wrong']} wrong" if figures["wrong"] else ""
    return f"{figure(figures['max'])} / {figure(figures['mean'])}{wrong}"


def table(results: dict, dtype: str, routes: list[str]) -> str:
    """Markdown: a row for each neuron and function, a column for each route, maximum / mean."""
    lines = [
        "| neuron | | " + " | ".join(routes) + " |",
        "| --- | --- | " + " | ".join("---" for _ in routes) + " |",
    ]
    for name, by_function in results[dtype].items():
        for function, by_route in by_function.items():
            cells = " | ".join(cell(by_route[route]) for route in routes)
            lines.append(f"| {name if function == 'f' else ''} | {function} | {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--neuron", nargs="+", choices=list(ulps.NEURONS), default=list(ulps.NEURONS))
    parser.add_argument("--dtype", nargs="+", choices=ulps.DTYPES, default=ulps.DTYPES)
    parser.add_argument("--route", nargs="+", choices=ulps.routes(), default=ulps.routes())
    parser.add_argument("--points", type=int, default=1_000_000, metavar="N", help="of float32")
    parser.add_argument("--worst", action="store_true", help="also print where each maximum is")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()

    results: dict = {dtype: {} for dtype in arguments.dtype}
    for dtype in arguments.dtype:
        for name in arguments.neuron:
            print(f"  {dtype} {name} ...", file=sys.stderr, flush=True)
            results[dtype][name] = {
                function: {
                    route: figures._asdict()
                    for route, figures in ulps.measure(
                        ulps.NEURONS[name],
                        dtype,
                        arguments.route,
                        arguments.points,
                        derivative=function == "f'",
                    ).items()
                }
                for function in FUNCTIONS
            }
    text = "\n\n".join(f"### {dtype}\n\n{table(results, dtype, arguments.route)}" for dtype in results)
    print(text)
    if arguments.worst:
        for dtype, by_neuron in results.items():
            for name, by_function in by_neuron.items():
                for function, by_route in by_function.items():
                    for route, f in by_route.items():
                        print(
                            f"{dtype} {name} {function} {route}: {f['max']:.6g} ULP at {f['at']!r}: "
                            f"{f['got']!r}, true {f['true']!r}; below {f['below']:.3g}"
                        )
    if arguments.markdown:
        arguments.markdown.write_text(text + "\n")
    if arguments.json:
        about = {"jax": jax.__version__, "machine": platform.machine(), "points": arguments.points}
        arguments.json.write_text(json.dumps({**about, "errors in ULP": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
