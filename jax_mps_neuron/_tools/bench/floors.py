"""Floors: loops that only read and write the same arrays, at the speed that memory allows."""

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

_PREFIX = "x * g, "  # of every floor's name
_ONE_THREAD = 2**20  # bytes up to which one thread is fastest


def is_floor(name: str) -> bool:
    """Whether a name is that of a floor, not of a peer."""
    return name.startswith(_PREFIX)


def floors(mode: str, inputs: Inputs) -> dict[str, Program]:
    """The floors of a mode: name to program.

    A floor computes g * x in place of g, once per layer of the mode; for the forward pass, x * x. The
    fastest one counts. On the CPU, NumPy on all cores and PyTorch, if installed, take part, because they
    write into existing memory, whereas XLA allocates its results.
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
    """NumPy on all cores. It multiplies 16-bit floats as integers, for which alone it has fast loops."""

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
    """work(source, part) over all parts of an array like this, one part per core."""
    threads = cores()
    if like.nbytes < _ONE_THREAD or threads == 1:
        return lambda source: work(source, slice(None))
    pool = ThreadPoolExecutor(threads)
    edges = [like.size * i // threads for i in range(threads + 1)]
    parts = [slice(*pair) for pair in pairwise(edges)]

    def run(source):
        for _ in pool.map(lambda part: work(source, part), parts):
            pass

    return run
