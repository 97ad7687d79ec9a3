"""Interleaved measurements."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["CALLS", "Program", "Times", "cores", "interleaved"]

CALLS = 8  # in one measurement
_SHORTEST = 1e-3  # seconds in one measurement, reached by repeating the calls
_MOST_ROUNDS = 100
_PAUSE = 0.02  # seconds before a turn

Times = dict[str, float]


@dataclass(frozen=True)
class Program:
    """A peer, ready to be timed.

    `fresh` makes, outside of the measured time, what the first call takes: calls overwrite the incoming
    gradient, and after many of them nothing but zeros would be left of it. `call` takes that or what the
    call before gave; `wait` returns when it is computed.
    """

    fresh: Callable[[], Any]
    call: Callable[[Any], Any]
    wait: Callable[[Any], Any]
    layers: int = 1  # gradients in one call

    def seconds(self, calls: int) -> float:
        """How long that many calls take that follow each other."""
        state = self.fresh()
        self.wait(state)
        start = time.perf_counter()
        for _ in range(calls):
            state = self.call(state)
        self.wait(state)
        return time.perf_counter() - start


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def interleaved(programs: Mapping[str, Program], repeats: int, calls: int = CALLS) -> dict[str, Times]:
    """Times of one layer's call of each program, in milliseconds: median and quartiles of the repeats.

    The programs take turns, and each turn begins with another of them, so that what slows the machine for
    a while slows all of them. Between two of them is a pause, until the threads of the one before sleep,
    and a call that is not measured.
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
            # OpenMP's threads, for one, keep a core busy for milliseconds after a call.
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
