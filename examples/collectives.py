"""Finds the collectives in a compiled program: what its devices send each other."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import jax
import numpy as np

__all__ = ["Collective", "collectives"]

_KINDS = "all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|reduce-scatter"
_INSTRUCTION = re.compile(
    rf"= (?P<type>.*?) (?P<kind>{_KINDS}|ragged-all-to-all)(?P<start>-start)?\((?P<operands>[^)]*)"
)
_SHAPE = re.compile(r"\b[a-z]+\d+\w*\[([\d,]*)\]")
# XLA writes groups of devices in three ways: as lists, as an order of all devices that is cut into groups,
# and as axes of a mesh.
_LISTED = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
_ORDER = r"\[([\d,]+)\](?:T\(([\d,]+)\))?"
_CUT = re.compile(rf"replica_groups=\[([\d,]+)\]<={_ORDER}")
_MESH = re.compile(rf"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\({_ORDER}\))? ?\{{([^}}:]*)\}}")

Groups = frozenset[frozenset[int]]


class Collective(NamedTuple):
    """One collective instruction.

    Attributes:
      kind: XLA's name for it, such as "all-reduce".
      shapes: the shapes of its results on each device. XLA combines several collectives of a kind into one.
      axes: the mesh axes that it spans, without axes of size 1; None if its groups of devices do not
        correspond to mesh axes.
    """

    kind: str
    shapes: tuple[tuple[int, ...], ...]
    axes: tuple[str, ...] | None

    @property
    def elements(self) -> int:
        """The number of elements of its results on one device."""
        return sum(map(math.prod, self.shapes))


def collectives(compiled: Any, mesh: jax.sharding.Mesh) -> list[Collective]:
    """The collectives of a program, in the order of its text.

    Args:
      compiled: the result of ``jax.jit(f).lower(...).compile()`` for arrays on the devices of `mesh`.
      mesh: the mesh, which names the axes.

    Raises:
      TypeError: `compiled` is not a compiled program, or `mesh` is not a mesh.
    """
    if not callable(getattr(compiled, "as_text", None)):
        raise TypeError(f"compiled must be the result of jax.jit(f).lower(...).compile(), got {compiled!r}")
    if not isinstance(mesh, jax.sharding.Mesh):
        raise TypeError(f"mesh must be a jax.sharding.Mesh, got {mesh!r}")
    groups = dict(_groups_of_axes(mesh))
    found = []
    for line in compiled.as_text().splitlines():
        if match := _INSTRUCTION.search(line):
            shapes = [_numbers(shape) for shape in _SHAPE.findall(match["type"])]
            operands = match["operands"].count("%")
            # The type of a start lists the operands before the results. An all-reduce may omit them.
            if match["start"] and (match["kind"] != "all-reduce" or len(shapes) == 2 * operands):
                shapes = shapes[len(shapes) // 2 :]
            found.append(Collective(match["kind"], tuple(shapes), groups.get(_groups(line, mesh.size))))
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(n) for n in text.split(",") if n)


def _partition(groups: Any) -> Groups:
    return frozenset(frozenset(int(i) for i in group) for group in groups)


def _groups(line: str, size: int) -> Groups:
    """The groups of devices that communicate in an instruction, by their positions in the mesh."""
    if match := _CUT.search(line):
        return _partition(_order(match[2], match[3]).reshape(_numbers(match[1])))
    if match := _MESH.search(line):
        sizes = {name: int(size) for name, size in re.findall(r"'(.*?)'=(\d+)", match[1])}
        devices = _order(match[2], match[3]) if match[2] else np.arange(math.prod(sizes.values()))
        together = [list(sizes).index(name) for name in re.findall(r"'(.*?)'", match[4])]
        return _along(devices.reshape(tuple(sizes.values())), together)
    if match := _LISTED.search(line):
        return _partition(
            map(_numbers, re.findall(r"\{([\d,]+)\}", match[1])) if match[1] else [range(size)]
        )
    return frozenset()


def _order(dimensions: str, permutation: str | None) -> np.ndarray:
    """Devices 0, 1, ... in these dimensions, transposed."""
    shape = _numbers(dimensions)
    return np.arange(math.prod(shape)).reshape(shape).transpose(_numbers(permutation or "") or None)


def _along(devices: np.ndarray, together: Sequence[int]) -> Groups:
    """The groups of devices whose positions in a mesh differ only along these axes."""
    apart = [i for i in range(devices.ndim) if i not in together]
    size = math.prod(devices.shape[i] for i in together)
    return _partition(devices.transpose(*apart, *together).reshape(-1, size))


def _groups_of_axes(mesh: jax.sharding.Mesh) -> Iterator[tuple[Groups, tuple[str, ...]]]:
    """The groups of devices along each combination of axes, with the names of the axes."""
    sizes: tuple[int, ...] = mesh.devices.shape
    devices = np.arange(mesh.size).reshape(sizes)
    wide = [i for i, size in enumerate(sizes) if size > 1]
    for count in range(len(wide) + 1):
        for together in combinations(wide, count):
            yield _along(devices, together), tuple(mesh.axis_names[i] for i in together)
