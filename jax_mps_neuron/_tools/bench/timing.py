"""Times programs that take turns."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CALLS", "Program", "Times", "cores", "interleaved"]

CALLS = 8  # per measurement
_SHORTEST = 1e-3  # seconds per measurement; shorter ones repeat their calls
_MOST_ROUNDS = 100
_PAUSE = 0.02  # seconds before each turn

Times = dict[str, float]


@dataclass(frozen=True)
class Program:
    """A compiled peer.

    Attributes:
      fresh: makes the state for the first call, outside the measured time. Calls overwrite the incoming
        gradient, which would decay to zeros over many of them.
      call: the call, from the previous state to the next.
      wait: returns once a state is computed.
      layers: the gradients that one call computes.
    """

    fresh: Callable[[], Any]
    call: Callable[[Any], Any]
    wait: Callable[[Any], Any]
    layers: int = 1

    def seconds(self, calls: int) -> float:
        """The time of consecutive calls."""
        state = self.fresh()
        self.wait(state)
        start = time.perf_counter()
        for _ in range(calls):
            state = self.call(state)
        self.wait(state)
        return time.perf_counter() - start


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def interleaved(programs: Mapping[str, Program], repeats: int, calls: int = CALLS) -> dict[str, Times]:
    """Times every program in turns.

    Each round starts with another program, so a slow phase of the machine affects all of them alike. Before
    each measurement there is a pause, in which the threads of the previous program go to sleep, and a call
    that is not measured.

    Args:
      programs: name to program.
      repeats: the measurements of each program.
      calls: the calls per measurement.

    Returns:
      Name to median and quartiles, in milliseconds per layer of a call.
    """
    names = list(programs)
    rounds = {}
    for name in names:
        programs[name].seconds(1)  # compiles
        shortest = max(programs[name].seconds(calls), 1e-9)
        rounds[name] = max(1, min(_MOST_ROUNDS, round(_SHORTEST / shortest)))
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            program = programs[name]
            # OpenMP's threads keep a core busy for milliseconds after a call.
            time.sleep(_PAUSE)
            program.seconds(1)
            seconds = sum(program.seconds(calls) for _ in range(rounds[name]))
            times[name].append(seconds / (rounds[name] * calls * program.layers) * 1e3)
    return {name: _summary(values) for name, values in times.items()}


def _summary(values: list[float]) -> Times:
    if len(values) == 1:
        low = high = values[0]
    else:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    figures = {"median": statistics.median(values), "low": low, "high": high}
    return {name: float(f"{value:.5g}") for name, value in figures.items()}
