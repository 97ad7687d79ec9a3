"""Loops that do nothing but read and write the same arrays: what the memory allows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import jax
import numpy as np

from . import torch_peers
from .modes import CHAINS, FORWARD, Inputs, in_place
from .timing import Program, cores

__all__ = ["floors", "is_floor"]

_PREFIX = "x * g, "  # begins the names of all floors
_ALONE = 2**20  # bytes below which one thread is faster than several


def is_floor(name: str) -> bool:
    """Whether a name among the figures is that of a floor."""
    return name.startswith(_PREFIX)


def floors(mode: str, inputs: Inputs) -> dict[str, Program]:
    """Name to program: g * x in g's place, as often as the mode has layers; forward, x * x.

    The fastest of them is the floor. On the CPU NumPy takes part, on all cores, and PyTorch if installed,
    since they write into memory that is there, where XLA's programs make new results.
    """
    xs = inputs.xs if mode in CHAINS else inputs.xs[:1]
    programs = {_PREFIX + "XLA": _xla(mode, inputs, xs)}
    if jax.default_backend() == "cpu":
        programs[_PREFIX + "NumPy"] = _numpy(mode, inputs, xs)
        if torch_peers.installed():
            programs[_PREFIX + "torch"] = torch_peers.floor(mode, inputs, xs)
    return programs


def _xla(mode: str, inputs: Inputs, xs: tuple[Any, ...]) -> Program:
    if mode == FORWARD:
        square = jax.jit(lambda x: x * x)
        return Program(lambda: inputs.bias, lambda _: square(xs[0]), jax.block_until_ready)
    multiply = jax.jit(lambda g, x: x * g, donate_argnums=0)

    def call(g):
        for x in xs:
            g = multiply(g, x)
        return g

    return in_place(inputs.g, call, layers=len(xs))


def _numpy(mode: str, inputs: Inputs, xs: tuple[Any, ...]) -> Program:
    """On integers in 16 bits, whose product is as wide and which NumPy has no fast loop for otherwise."""

    def flat(x):
        values = np.asarray(x).reshape(-1)
        return values if values.dtype.itemsize > 2 else values.view(np.uint16)

    sources, first = [flat(x) for x in xs], flat(inputs.g)
    target = np.empty_like(first)

    def work(source, part):
        other = source if mode == FORWARD else target
        np.multiply(source[part], other[part], out=target[part])

    run = _on_all_cores(work, first)

    def fresh():
        np.copyto(target, first)

    def call(_):
        for source in sources:
            run(source)

    return Program(fresh, call, lambda _: None, layers=len(xs))


def _on_all_cores(work: Callable[[Any, slice], None], like: np.ndarray) -> Callable[[Any], None]:
    """work(source, part) over all parts of arrays like that one."""
    threads = cores()
    if like.nbytes < _ALONE or threads == 1:
        return lambda source: work(source, slice(None))
    pool = ThreadPoolExecutor(threads)
    edges = [like.size * i // threads for i in range(threads + 1)]
    parts = [slice(*pair) for pair in pairwise(edges)]

    def run(source):
        for _ in pool.map(lambda part: work(source, part), parts):
            pass

    return run
