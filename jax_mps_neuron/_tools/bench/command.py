"""Runs `python -m jax_mps_neuron bench`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import jax

from ..._core.descriptor import NeuronType
from . import latency, torch_peers
from .machine import machine
from .measure import Plan, grid, sweep
from .modes import MODES, STEP, USUAL
from .peers import PEERS, TORCH, TORCH_COMPILE, our_route
from .report import load, text

__all__ = ["run"]

_QUICK_BYTES = 2**14  # of the largest array of a quick sweep


def run(arguments: argparse.Namespace) -> int:
    """Measures or loads; then writes, prints and draws. Returns the exit status."""
    try:
        _check(arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        results = [load(path) for path in arguments.show] if arguments.show else [_measured(arguments)]
        for result in results:
            print(text(result))
        if arguments.plot:
            from .plots import draw

            draw(results, arguments.plot)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises a ValueError if the options contradict each other."""
    if arguments.sweep and (arguments.shapes or arguments.modes):
        raise ValueError("--sweep must not be combined with --shapes or --modes. It chooses both itself.")
    if arguments.show and arguments.json:
        raise ValueError("--json must not be combined with --show, which measures nothing")
    if arguments.latency:
        for name in ("sweep", "plot", "types", "dtypes", "shapes", "modes", "peers"):
            if getattr(arguments, name):
                raise ValueError(f"--latency must not be combined with --{name}")
    if arguments.plot and arguments.modes and set(arguments.modes) == {STEP}:
        others = ", ".join(repr(mode) for mode in MODES if mode != STEP)
        raise ValueError(
            f"--plot needs a mode other than 'step', which has no bandwidth. Add one of {others}."
        )
    asked = [name for name in (TORCH, TORCH_COMPILE) if name in (arguments.peers or ())]
    if asked and not torch_peers.installed():
        raise ValueError(f"--peers {', '.join(asked)} needs PyTorch, which is not installed")


def _measured(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measures, and writes the file of --json before anything else can fail."""
    if arguments.quick:
        print("--quick uses tiny arrays and few repeats: its figures are not measurements", file=sys.stderr)
    if arguments.latency:
        result = {**machine(), "latency": latency.measure(quick=arguments.quick, turns=arguments.repeats)}
        if arguments.json:
            arguments.json.write_text(json.dumps(result, indent=1) + "\n")
        return result
    plan = _plan(arguments)
    result = {**machine(), "sweep": bool(arguments.sweep), "repeats": plan.repeats, "records": []}
    if arguments.sweep:
        cells = sweep(plan, [s for s in arguments.sweep if not arguments.quick or s <= _QUICK_BYTES])
    else:
        shapes = arguments.shapes or [(64, 32) if arguments.quick else (4096, 2048)]
        cells = grid(plan, shapes, arguments.modes or list(USUAL))
    try:
        for cell in cells:
            result["records"].append(cell)
    finally:  # what an interrupted run has measured is worth keeping
        if arguments.json and result["records"]:
            _write(result, arguments.json)
    return result


def _plan(arguments: argparse.Namespace) -> Plan:
    types = [NeuronType.GELU, NeuronType.RELU] if arguments.sweep else list(NeuronType)
    ours = our_route(jax.default_backend())
    return Plan(
        types=arguments.types or types,
        dtypes=arguments.dtypes or ["float32"],
        peers=[ours, *(arguments.peers or PEERS)],
        repeats=arguments.repeats or (2 if arguments.quick else 7),
        ours=ours,
    )


def _write(result: dict[str, Any], path: Path) -> None:
    """Writes JSON with one line per record."""
    start = json.dumps({**result, "records": []}, indent=1).rpartition("[]")[0]
    records = ",\n".join(json.dumps(cell) for cell in result["records"])
    path.write_text(f"{start}[\n{records}\n]}}\n")
