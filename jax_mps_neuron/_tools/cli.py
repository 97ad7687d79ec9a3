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
    "doctor": (doctor, "show the route of each platform and the reason for it, and run a self-test"),
    "lower": (lower, "print the StableHLO of a neuron's gradient for any platform"),
    "bench": (bench, "measure against XLA, jax.nn, PyTorch and memory bandwidth"),
    "plot": (plot, "draw f and f' of each neuron type"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status."""
    about = "Diagnoses an installation, and prints, measures and draws neurons."
    parser = argparse.ArgumentParser(prog="python -m jax_mps_neuron", description=about)
    parser.add_argument("--version", action="version", version=f"jax-mps-neuron {__version__}")
    commands = parser.add_subparsers(required=True, metavar="{" + ",".join(_COMMANDS) + "}")
    for name, (module, summary) in _COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(command)
        command.set_defaults(run=module.run, command=command)
    parsed, unknown = parser.parse_known_args(arguments)
    if unknown:  # argparse would show the usage of the outer parser
        parsed.command.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        status: int = parsed.run(parsed)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status
