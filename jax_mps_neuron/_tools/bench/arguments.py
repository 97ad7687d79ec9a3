"""The options of `python -m jax_mps_neuron bench`."""

from __future__ import annotations

import argparse
import math
import re
from pathlib import Path

from ..._core.descriptor import NeuronType
from .modes import MODES
from .peers import CUSTOM_CALL, INLINE, JAX_NN, TORCH, TORCH_COMPILE, XLA

__all__ = ["DTYPES", "add_arguments", "shape_argument", "type_argument"]

DTYPES = ("float32", "float16", "bfloat16")
PEERS = (CUSTOM_CALL, INLINE, XLA, JAX_NN, TORCH, TORCH_COMPILE)
_UNITS = {"": 1, "B": 1, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--types", type=type_argument, nargs="+", metavar="TYPE", help="default: all; of a sweep, gelu relu"
    )
    parser.add_argument("--dtypes", choices=DTYPES, nargs="+", default=["float32"])
    parser.add_argument(
        "--shapes",
        type=_any_shape_argument,
        nargs="+",
        metavar="SHAPE",
        help="shapes of x, as 4096x2048 (the default), 512x8x64 or 1000003",
    )
    parser.add_argument(
        "--modes",
        type=_mode_argument,
        nargs="+",
        metavar="MODE",
        help=f"of {', '.join(MODES)}; default: all but the last",
    )
    parser.add_argument(
        "--peers",
        type=_peer_argument,
        nargs="+",
        metavar="PEER",
        help=f"of {', '.join(PEERS)}; default: all that are here",
    )
    parser.add_argument(
        "--repeats", type=positive_argument, help="measurements of each program; default: 7"
    )
    parser.add_argument(
        "--sweep",
        type=_sizes_argument,
        nargs="?",
        const="1KiB-1GiB",
        metavar="FIRST-LAST",
        help="measure dx + dbias against the size of x, by default from 1KiB-1GiB",
    )
    parser.add_argument("--quick", action="store_true", help="tiny arrays: does everything run?")
    parser.add_argument(
        "--show",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="measure nothing, and print and draw the figures that --json wrote",
    )
    parser.add_argument("--json", type=file_argument, metavar="FILE", help="also write the figures here")
    parser.add_argument("--plot", type=_picture_argument, metavar="FILE", help="also draw them here")


def shape_argument(text: str) -> tuple[int, int]:
    """ROWSxCHANNELS."""
    try:
        rows, channels = map(positive_argument, text.lower().split("x"))
    except (ValueError, argparse.ArgumentTypeError):
        message = f"{text!r} is no shape; it may be ROWSxCHANNELS, as 4096x2048"
        raise argparse.ArgumentTypeError(message) from None
    return rows, channels


def _any_shape_argument(text: str) -> tuple[int, ...]:
    try:
        return tuple(map(positive_argument, text.lower().split("x")))
    except argparse.ArgumentTypeError:
        message = f"{text!r} is no shape; it may be lengths with an x between them, as 4096x2048 or 1000003"
        raise argparse.ArgumentTypeError(message) from None


def positive_argument(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no count; it may be 1 or more")
    return int(text)


def file_argument(text: str) -> Path:
    """A file that can be written, which minutes of measurements later would be bad news."""
    path = Path(text)
    try:
        new = not path.exists()
        with path.open("a"):
            pass
        if new:
            path.unlink()
        return path
    except OSError as error:
        raise argparse.ArgumentTypeError(f"can't open {text!r}: {error.strerror}") from None


def _picture_argument(text: str) -> Path:
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise argparse.ArgumentTypeError("pictures need matplotlib, which is not installed") from None
    if Path(text).suffix not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no picture; it may end in .png, .svg or .pdf")
    return file_argument(text)


def type_argument(text: str) -> NeuronType:
    """The name of a neuron type, in any case."""
    try:
        return NeuronType[text.upper()]
    except KeyError:
        names = ", ".join(t.name.lower() for t in NeuronType)
        raise argparse.ArgumentTypeError(f"{text!r} is no neuron type; it may be {names}") from None


def _one_of(names: tuple[str, ...], what: str, text: str) -> str:
    """A name, also with other separators: "dx+dbias", "custom_call"."""

    def plain(name: str) -> str:
        return re.sub(r"[\s_-]", "", name.lower())

    for name in names:
        if plain(name) == plain(text):
            return name
    raise argparse.ArgumentTypeError(f"{text!r} is no {what}; it may be {', '.join(map(repr, names))}")


def _mode_argument(text: str) -> str:
    return _one_of(MODES, "mode", text)


def _peer_argument(text: str) -> str:
    return _one_of(PEERS, "peer", text)


def _sizes_argument(text: str) -> list[int]:
    """The sizes of a sweep in bytes, each four times the one before."""
    try:
        first, last = map(_bytes, text.split("-"))
        if not 4 <= first <= last:
            raise ValueError
    except ValueError:
        message = f"{text!r} is no range of sizes; it may be FIRST-LAST, as 1KiB-1GiB, from 4B up"
        raise argparse.ArgumentTypeError(message) from None
    steps = math.floor(math.log(last / first, 4) + 1e-9)
    return [first * 4**step for step in range(steps + 1)]


def _bytes(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*(\w*)", text.strip())
    if match is None or match[2].upper() not in _UNITS:
        raise ValueError
    return int(match[1]) * _UNITS[match[2].upper()]
