"""Runs the measurements that the options ask for."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._core.descriptor import NeuronType
from . import modes, torch_peers, training
from .arguments import PEERS
from .floors import floors
from .machine import machine
from .modes import CHAINS, DX_DBIAS, MODES, STEP, USUAL, Inputs
from .peers import TORCH, TORCH_COMPILE, activations, neuron_for, our_route
from .report import load, record, text
from .timing import CALLS, Program, interleaved

__all__ = ["run"]

_CHANNELS = 256  # of a sweep's arrays
_QUICK = 2**14  # bytes of the largest arrays of a quick sweep
_LARGE = 2**28  # bytes of calls in one measurement of a sweep, beyond which there are fewer calls


def run(arguments: argparse.Namespace) -> int:
    """Measures, or reads what was measured; prints, writes and draws it. Returns the exit status."""
    try:
        _check(arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    try:
        results = [load(path) for path in arguments.show] if arguments.show else [_measure(arguments)]
        for result in results:
            print(text(result))
        if arguments.json:
            _write(results[0], arguments.json)
        if arguments.plot:
            from .plots import draw

            draw(results, arguments.plot)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises if the options do not go together."""
    if arguments.sweep and (arguments.shapes or arguments.modes):
        raise ValueError("--sweep chooses shapes and mode itself; it takes neither --shapes nor --modes")
    if arguments.plot and arguments.modes == [STEP]:
        raise ValueError(f"--plot draws bandwidth, and a step has none; --modes may be {', '.join(MODES)}")
    asked = [name for name in (TORCH, TORCH_COMPILE) if name in (arguments.peers or ())]
    if asked and not torch_peers.installed():
        raise ValueError(f"--peers has {', '.join(asked)}, and PyTorch is not installed")


def _write(result: dict[str, Any], path: Path) -> None:
    """As JSON, with a line for each record."""
    head = json.dumps({**result, "records": []}, indent=1).rpartition("[]")[0]
    records = ",\n".join(json.dumps(cell) for cell in result["records"])
    path.write_text(f"{head}[\n{records}\n]}}\n")


class _Plan(NamedTuple):
    """What all measurements of a run share."""

    kinds: list[NeuronType]
    dtypes: list[str]
    peers: list[str]
    repeats: int
    ours: str


def _measure(arguments: argparse.Namespace) -> dict[str, Any]:
    quick, sweep = arguments.quick, bool(arguments.sweep)
    ours = our_route(jax.default_backend())
    plan = _Plan(
        arguments.types or ([NeuronType.GELU, NeuronType.RELU] if sweep else list(NeuronType)),
        arguments.dtypes,
        [ours, *(arguments.peers or PEERS)],
        arguments.repeats or (2 if quick else 7),
        ours,
    )
    if sweep:
        records = _sweep(plan, [size for size in arguments.sweep if not quick or size <= _QUICK])
    else:
        shapes = arguments.shapes or [(64, 32) if quick else (4096, 2048)]
        records = _grid(plan, shapes, arguments.modes or list(USUAL))
    return {**machine(), "sweep": sweep, "repeats": plan.repeats, "records": list(records)}


def _grid(plan: _Plan, shapes: list[tuple[int, ...]], wanted: list[str]) -> Iterator[dict[str, Any]]:
    for dtype in plan.dtypes:
        for shape in shapes:
            inputs = Inputs.draw(shape, dtype)
            for kind in plan.kinds:
                for mode in wanted:
                    _say(f"{kind.name.lower()} {dtype} {list(shape)} {mode}")
                    if mode == STEP:
                        yield _step(plan, kind, shape, dtype)
                    else:
                        yield _call(plan, kind, dtype, mode, inputs, 1 if mode in CHAINS else CALLS)


def _sweep(plan: _Plan, sizes: list[int]) -> Iterator[dict[str, Any]]:
    for dtype in plan.dtypes:
        for size in sizes:
            elements = size // jnp.dtype(dtype).itemsize
            channels = min(_CHANNELS, elements)
            inputs = Inputs.draw((elements // channels, channels), dtype, layers=1)
            for kind in plan.kinds:
                _say(f"{kind.name.lower()} {dtype} {size} bytes")
                yield _call(plan, kind, dtype, DX_DBIAS, inputs, max(1, min(CALLS, _LARGE // size)))


def _say(what: str) -> None:
    print(f"  {what} ...", file=sys.stderr, flush=True)


def _call(
    plan: _Plan, kind: NeuronType, dtype: str, mode: str, inputs: Inputs, calls: int
) -> dict[str, Any]:
    shape = inputs.g.shape
    n = neuron_for(kind, shape[-1])
    programs = {
        name: modes.program(mode, activation, n, inputs)
        for name, activation in activations(kind, jax.default_backend()).items()
        if name in plan.peers
    }
    if torch_peers.installed() and {TORCH, TORCH_COMPILE} & set(plan.peers):
        found = torch_peers.programs(mode, n, inputs)
        programs |= {name: found[name] for name in found if name in plan.peers and _runs(name, found[name])}
    times = interleaved(programs | floors(mode, inputs), plan.repeats, calls)
    moved = modes.moved_bytes(mode, shape, dtype)
    return record(kind, dtype, shape, mode, times, plan.ours, moved)


def _step(plan: _Plan, kind: NeuronType, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    n = neuron_for(kind, shape[-1])
    steps = {
        name: training.program(activation, n, shape, dtype)
        for name, activation in activations(kind, jax.default_backend()).items()
        if name in plan.peers
    }
    times = interleaved({name: program for name, (program, _) in steps.items()}, plan.repeats, 1)
    memory = {name: peak for name, (_, peak) in steps.items()}
    return record(kind, dtype, shape, STEP, times, plan.ours, None, memory)


def _runs(name: str, program: Program) -> bool:
    """Whether a program of another library runs; torch.compile, for one, needs a compiler."""
    try:
        program.seconds(1)
    except Exception as error:  # whatever it raises is its own
        reason = str(error).strip().partition("\n")[0]
        print(f"  {name} is left out: {type(error).__name__}: {reason}", file=sys.stderr)
        return False
    return True
