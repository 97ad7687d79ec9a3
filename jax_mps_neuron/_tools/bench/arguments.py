"""The options of `python -m jax_mps_neuron bench`."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

from ..._core.descriptor import NeuronType
from .modes import MODES
from .peers import PEERS

__all__ = ["DTYPES", "add_arguments", "file_argument", "shape_argument", "type_argument"]

DTYPES = ("float32", "float16", "bfloat16")
_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options to a parser."""
    _add_cells(parser.add_argument_group("what to measure"))
    _add_others(parser.add_argument_group("other measurements").add_mutually_exclusive_group())
    output = parser.add_argument_group("output")
    output.add_argument(
        "--json", type=file_argument, metavar="FILE", help="write the measurements to a file"
    )
    output.add_argument(
        "--plot", type=_picture_argument, metavar="FILE", help="draw them into a .png, .svg or .pdf file"
    )


def _add_cells(what: argparse._ArgumentGroup) -> None:
    what.add_argument(
        "--types",
        type=type_argument,
        nargs="+",
        metavar="TYPE",
        help="neuron types (default: all; with --sweep: gelu relu)",
    )
    what.add_argument("--dtypes", choices=DTYPES, nargs="+", help="dtypes of x (default: float32)")
    what.add_argument(
        "--shapes",
        type=_any_shape_argument,
        nargs="+",
        metavar="SHAPE",
        help="shapes of x, such as 4096x2048 (the default), 512x8x64 or 1000003",
    )
    what.add_argument(
        "--modes",
        type=_mode_argument,
        nargs="+",
        metavar="MODE",
        help=f"one or more of {_listed(MODES)} (default: all but the last)",
    )
    what.add_argument(
        "--peers",
        type=_peer_argument,
        nargs="+",
        metavar="PEER",
        help=f"one or more of {_listed(PEERS)} (default: all that are installed)",
    )
    what.add_argument(
        "--repeats", type=positive_argument, metavar="N", help="measurements of each program (default: 7)"
    )
    what.add_argument("--quick", action="store_true", help="use tiny arrays, to check that everything runs")


def _add_others(other: argparse._MutuallyExclusiveGroup) -> None:
    other.add_argument(
        "--sweep",
        type=_sizes_argument,
        nargs="?",
        const="1KiB-1GiB",
        metavar="FIRST-LAST",
        help="measure dx + dbias for sizes of x in this range (default: 1KiB-1GiB)",
    )
    other.add_argument(
        "--latency",
        action="store_true",
        help="measure latency against jax.nn: eager calls and their gradients, for float32 x of shape "
        "[32, 64]; the trace, lower and compile time and the temporaries of a deep network; the "
        "compilations of a training step that learns a neuron",
    )
    other.add_argument(
        "--show",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing; print, and with --plot draw, files that --json wrote",
    )


def shape_argument(text: str) -> tuple[int, int]:
    """ROWSxCHANNELS."""
    try:
        rows, channels = _lengths(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be ROWSxCHANNELS, such as 4096x2048, got {text!r}"
        ) from None
    return rows, channels


def _any_shape_argument(text: str) -> tuple[int, ...]:
    try:
        return _lengths(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"must be positive lengths separated by x, such as 4096x2048 or 1000003, got {text!r}"
        ) from None


def _lengths(text: str) -> tuple[int, ...]:
    return tuple(map(_positive, text.lower().split("x")))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise ValueError
    return int(text)


def positive_argument(text: str) -> int:
    """A positive integer."""
    try:
        return _positive(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a positive integer, got {text!r}") from None


def file_argument(text: str) -> Path:
    """A writable file. Checked before the measurements, which take minutes."""
    path = Path(text)
    try:
        new = not path.exists()
        with path.open("a"):
            pass
        if new:
            path.unlink()
        return path
    except OSError as error:
        raise argparse.ArgumentTypeError(
            f"must be a writable file, got {text!r}: {error.strerror}"
        ) from None


def _picture_argument(text: str) -> Path:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        message = "needs matplotlib, which is not installed: pip install matplotlib"
        raise argparse.ArgumentTypeError(message) from None
    if Path(text).suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf, got {text!r}")
    return file_argument(text)


def type_argument(text: str) -> NeuronType:
    """A neuron type by name, in any case."""
    try:
        return NeuronType[text.upper()]
    except KeyError:
        names = ", ".join(t.name.lower() for t in NeuronType)
        raise argparse.ArgumentTypeError(f"must be one of {names}, got {text!r}") from None


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(map(repr, names))


def _one_of(names: tuple[str, ...], text: str) -> str:
    """A name that may be written with other separators: "dx+dbias", "custom_call"."""

    def plain(name: str) -> str:
        return re.sub(r"[\s_-]", "", name.lower())

    for name in names:
        if plain(name) == plain(text):
            return name
    raise argparse.ArgumentTypeError(f"must be one of {_listed(names)}, got {text!r}")


def _mode_argument(text: str) -> str:
    return _one_of(MODES, text)


def _peer_argument(text: str) -> str:
    return _one_of(PEERS, text)


def _sizes_argument(text: str) -> list[int]:
    """The sizes of a sweep in bytes, each four times the previous one."""
    try:
        first, last = map(_bytes, text.split("-"))
        if not 4 <= first <= last:
            raise ValueError
    except ValueError:
        message = f"must be FIRST-LAST with FIRST at least 4B, such as 1KiB-1GiB, got {text!r}"
        raise argparse.ArgumentTypeError(message) from None
    steps = math.floor(math.log(last / first, 4) + 1e-9)
    return [first * 4**step for step in range(steps + 1)]


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*(\w*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError
    return int(match[1]) * _UNITS[match[2].upper()]
