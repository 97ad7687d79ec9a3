"""Runs the measurements that the options ask for."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from ..descriptor import NeuronType
from . import modes, torch_peers, training
from .arguments import PEERS
from .floors import floors
from .machine import machine
from .modes import DX_DBIAS, MODES, STEP, Inputs
from .peers import TORCH, TORCH_COMPILE, activations, neuron_for, our_route
from .report import load, record, text
from .timing import CALLS, Program, interleaved

__all__ = ["run"]

_CHANNELS = 256  # of a sweep's arrays
_LARGE = 2**28  # bytes of calls in one measurement of a sweep, beyond which there are fewer calls


def run(arguments: argparse.Namespace) -> int:
    """Measures, or reads what was measured; prints, writes and draws it. Returns the exit status."""
    try:
        results = [load(path) for path in arguments.show] if arguments.show else [_measure(arguments)]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for result in results:
        print(text(result))
    if arguments.json:
        _write(results[0], arguments.json)
    if arguments.plot:
        from .plots import draw

        draw(results, arguments.plot)
    return 0


def _write(result: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(result, indent=1) + "\n")


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    quick = arguments.quick
    repeats = arguments.repeats or (2 if quick else 7)
    peers = arguments.peers or list(PEERS)
    here = our_route(jax.default_backend())
    if here not in peers:
        peers = [here, *peers]
    result = machine()
    if arguments.sweep:
        if arguments.shapes or arguments.modes:
            raise ValueError(
                "--sweep chooses shapes and mode itself; it goes with neither --shapes nor --modes"
            )
        kinds = arguments.types or [NeuronType.GELU, NeuronType.RELU]
        sizes = [size for size in arguments.sweep if not quick or size <= 2**14]
        result["sweep"] = True
        records = _sweep(kinds, arguments.dtypes, sizes, peers, repeats)
    else:
        shapes = arguments.shapes or [(64, 32) if quick else (4096, 2048)]
        result["sweep"] = False
        records = _grid(
            arguments.types or list(NeuronType),
            arguments.dtypes,
            shapes,
            arguments.modes or MODES,
            peers,
            repeats,
        )
    result["repeats"] = repeats
    result["records"] = list(records)
    return result


def _grid(kinds, dtypes, shapes, wanted, peers, repeats) -> Iterable[dict[str, Any]]:
    for dtype in dtypes:
        for shape in shapes:
            inputs = Inputs.draw(shape, dtype)
            for kind in kinds:
                for mode in wanted:
                    _say(f"{kind.name.lower()} {dtype} {list(shape)} {mode}")
                    if mode == STEP:
                        yield _step(kind, shape, dtype, peers, repeats)
                    else:
                        yield _call(kind, shape, dtype, mode, inputs, peers, repeats, CALLS)


def _sweep(kinds, dtypes, sizes, peers, repeats) -> Iterable[dict[str, Any]]:
    for dtype in dtypes:
        for size in sizes:
            elements = size // jnp.dtype(dtype).itemsize
            channels = min(_CHANNELS, elements)
            shape = (elements // channels, channels)
            inputs = Inputs.draw(shape, dtype, layers=1)
            for kind in kinds:
                _say(f"{kind.name.lower()} {dtype} {size} bytes")
                calls = max(1, min(CALLS, _LARGE // size))
                yield _call(kind, shape, dtype, DX_DBIAS, inputs, peers, repeats, calls)


def _say(what: str) -> None:
    print(f"  {what} ...", file=sys.stderr, flush=True)


def _call(kind, shape, dtype, mode, inputs, peers, repeats, calls) -> dict[str, Any]:
    n = neuron_for(kind, shape[-1])
    programs = {
        name: modes.program(mode, activation, n, inputs)
        for name, activation in activations(kind, jax.default_backend()).items()
        if name in peers
    }
    if torch_peers.installed() and {TORCH, TORCH_COMPILE} & set(peers):
        found = torch_peers.programs(mode, n, inputs)
        programs |= {name: found[name] for name in found if name in peers and _runs(name, found[name])}
    programs |= floors(mode, inputs)
    times = interleaved(programs, repeats, 1 if mode == modes.CHAIN else calls)
    moved = modes.moved_bytes(mode, shape, dtype)
    return record(kind, dtype, shape, mode, times, our_route(jax.default_backend()), moved)


def _step(kind, shape, dtype, peers, repeats) -> dict[str, Any]:
    n = neuron_for(kind, shape[-1])
    steps = {
        name: training.program(activation, n, shape, dtype)
        for name, activation in activations(kind, jax.default_backend()).items()
        if name in peers
    }
    times = interleaved({name: program for name, (program, _) in steps.items()}, repeats, 1)
    memory = {name: peak for name, (_, peak) in steps.items()}
    return record(kind, dtype, shape, STEP, times, our_route(jax.default_backend()), None, memory)


def _runs(name: str, program: Program) -> bool:
    """Whether a program of another library runs; torch.compile, for one, needs a compiler."""
    try:
        program.seconds(1)
    except Exception as error:  # whatever it raises is its own
        reason = str(error).strip().partition("\n")[0]
        print(f"  {name} is left out: {type(error).__name__}: {reason}", file=sys.stderr)
        return False
    return True
