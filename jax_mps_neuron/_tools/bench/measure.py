"""Measures cells: one neuron type, dtype, shape and mode, on all peers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ..._core.descriptor import NeuronType
from . import modes, torch_peers, training
from .floors import floors
from .modes import CHAINS, DX_DBIAS, STEP, Inputs
from .peers import TORCH, TORCH_COMPILE, activations, neuron_for
from .report import record
from .timing import CALLS, Program, interleaved

__all__ = ["Plan", "grid", "sweep"]

_SWEEP_CHANNELS = 256
_SWEEP_BYTES = 2**28  # of all calls in one measurement; larger arrays get fewer calls


class Plan(NamedTuple):
    """What all measurements of a run share."""

    types: list[NeuronType]
    dtypes: list[str]
    peers: list[str]
    repeats: int
    ours: str


def grid(plan: Plan, shapes: list[tuple[int, ...]], wanted: list[str]) -> Iterator[dict[str, Any]]:
    """The records of every neuron type and mode, for each dtype and shape."""
    for dtype in plan.dtypes:
        for shape in shapes:
            inputs = Inputs.draw(shape, dtype)
            for neuron_type in plan.types:
                for mode in wanted:
                    _say(f"{neuron_type.name.lower()} {dtype} {list(shape)} {mode}")
                    if mode == STEP:
                        yield _step(plan, neuron_type, shape, dtype)
                    else:
                        calls = 1 if mode in CHAINS else CALLS
                        yield _call(plan, neuron_type, dtype, mode, inputs, calls)


def sweep(plan: Plan, sizes: list[int]) -> Iterator[dict[str, Any]]:
    """The records of dx + dbias for arrays of these sizes in bytes."""
    for dtype in plan.dtypes:
        for size in sizes:
            elements = size // jnp.dtype(dtype).itemsize
            channels = min(_SWEEP_CHANNELS, elements)
            inputs = Inputs.draw((elements // channels, channels), dtype, layers=1)
            calls = max(1, min(CALLS, _SWEEP_BYTES // size))
            for neuron_type in plan.types:
                _say(f"{neuron_type.name.lower()} {dtype} {size} bytes")
                yield _call(plan, neuron_type, dtype, DX_DBIAS, inputs, calls)


def _say(what: str) -> None:
    print(f"  {what} ...", file=sys.stderr, flush=True)


def _call(
    plan: Plan, neuron_type: NeuronType, dtype: str, mode: str, inputs: Inputs, calls: int
) -> dict[str, Any]:
    shape = inputs.g.shape
    neuron = neuron_for(neuron_type, shape[-1])
    programs = {
        name: modes.program(mode, activation, neuron, inputs)
        for name, activation in activations(neuron_type, jax.default_backend()).items()
        if name in plan.peers
    }
    if torch_peers.installed() and {TORCH, TORCH_COMPILE} & set(plan.peers):
        found = torch_peers.programs(mode, neuron, inputs)
        programs |= {name: found[name] for name in found if name in plan.peers and _runs(name, found[name])}
    times = interleaved(programs | floors(mode, inputs), plan.repeats, calls)
    moved = modes.moved_bytes(mode, shape, dtype)
    return record(neuron_type, dtype, shape, mode, times, plan.ours, moved)


def _step(plan: Plan, neuron_type: NeuronType, shape: tuple[int, ...], dtype: str) -> dict[str, Any]:
    neuron = neuron_for(neuron_type, shape[-1])
    steps = {
        name: training.program(activation, neuron, shape, dtype)
        for name, activation in activations(neuron_type, jax.default_backend()).items()
        if name in plan.peers
    }
    times = interleaved({name: program for name, (program, _) in steps.items()}, plan.repeats, 1)
    memory = {name: peak for name, (_, peak) in steps.items()}
    return record(neuron_type, dtype, shape, STEP, times, plan.ours, None, memory)


def _runs(name: str, program: Program) -> bool:
    """Whether a program of another library runs; torch.compile, for example, needs a compiler."""
    try:
        program.seconds(1)
    except Exception as error:  # the other library's own error, whatever it is
        reason = str(error).strip().partition("\n")[0]
        print(f"  {name} is left out: {type(error).__name__}: {reason}", file=sys.stderr)
        return False
    return True
