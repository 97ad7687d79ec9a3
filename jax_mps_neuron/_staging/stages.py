"""The stages of a staged function, as its user sees them."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

from jax.extend.core import JaxprEqn

from .cut import Program, Stage

__all__ = ["StageInfo", "Stages", "stages_of"]


class StageInfo(NamedTuple):
    """One stage of a staged function.

    Attributes:
      kind: "jit" or "kernel".
      equations: the number of equations.
      kernels: the kernels' names and neuron types; empty for a "jit" stage.
      shapes: the shapes of the results that later stages or the caller read.
    """

    kind: str
    equations: int
    kernels: tuple[str, ...]
    shapes: tuple[str, ...]


class Stages(tuple[StageInfo, ...]):
    """The stages of a staged function. ``str`` formats them as a table."""

    def __str__(self) -> str:
        def text(names: tuple[str, ...]) -> str:
            return ", ".join(f"{n} {name}" if n > 1 else name for name, n in Counter(names).items())

        rows = [("stage", "kind", "equations", "kernels", "results")]
        for i, stage in enumerate(self):
            rows.append((str(i), stage.kind, str(stage.equations), text(stage.kernels), text(stage.shapes)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows)
        return "\n".join(lines)


def stages_of(program: Program | None) -> Stages:
    """The stages of a program; empty without one."""
    return Stages(map(_info, program.stages if program else ()))


def _info(stage: Stage) -> StageInfo:
    def kernel(equation: JaxprEqn) -> str:
        return f"{equation.primitive.name} {equation.params['signature'].neuron_type.name}"

    return StageInfo(
        kind="kernel" if stage.is_kernel else "jit",
        equations=len(stage.equations),
        kernels=tuple(map(kernel, stage.equations)) if stage.is_kernel else (),
        shapes=tuple(atom.aval.str_short() for atom in stage.outputs.values()),
    )
