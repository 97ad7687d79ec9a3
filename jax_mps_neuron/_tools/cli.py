"""The command line: ``python -m jax_mps_neuron``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from .. import __version__
from . import bench, doctor, lower, plot

__all__ = ["main"]

_COMMANDS = {
    "doctor": (doctor, "what takes which route here and why, and a self-test"),
    "lower": (lower, "the StableHLO of a neuron's gradient on any platform"),
    "bench": (bench, "our routes against XLA's autodiff, jax.nn, PyTorch and the memory's speed"),
    "plot": (plot, "figures of f and f' of each neuron type"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    about = "Shows the routes, lowers, measures and draws."
    parser = argparse.ArgumentParser(prog="python -m jax_mps_neuron", description=about)
    parser.add_argument("--version", action="version", version=f"jax-mps-neuron {__version__}")
    commands = parser.add_subparsers(required=True, metavar="{" + ",".join(_COMMANDS) + "}")
    for name, (module, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    parsed = parser.parse_args(arguments)
    try:
        status: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # of `| head`, which has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
