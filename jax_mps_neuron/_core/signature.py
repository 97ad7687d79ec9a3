"""What one call of a neuron kernel computes, and the layout of its operands and results.

=================  ============  ======================================================================
array              shape         meaning and dtype
=================  ============  ======================================================================
gradient, x        [*B, *R, C]   float32, float16, bfloat16 or float64, both of one dtype; with
                                 ``from_y``, x holds y
scalars            [*B, 4]       alpha, a, b, c, in the compute dtype: float64 for float64, else float32
bias, slope        [*B, C]       in the compute dtype
y, data            [*B, *R, C]   in x's dtype
bias and slope     [*B, C]       sums over the rows R, in the compute dtype
gradients
=================  ============  ======================================================================

B are the batch axes: each `jax.vmap` adds one in front, so a mapped call is still one call. An operand
shared along a batch axis has size 1 there. R are the row axes, C the channels. Neither batch nor row axes
are flattened, because a reshape would gather a sharded axis. x may lack channels ([*B]); it then holds one
element for each batch entry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from .descriptor import NeuronType

__all__ = ["NEURON", "NEURON_GRADIENT", "Dimensions", "Operands", "Signature", "compute_dtype"]

# The custom calls' targets, the same on every platform.
NEURON = "jax_mps_neuron.neuron"
NEURON_GRADIENT = "jax_mps_neuron.neuron_gradient"

# The dimensions of an array, numbered as those of the first result. None stands for a dimension of its own:
# the four scalars, or size 1 along an axis that the operand shares.
Dimensions = list["int | None"]


def compute_dtype(x: Any) -> np.dtype[Any]:
    """The dtype in which a call on x computes: float64 for float64, else float32."""
    return np.dtype(np.float64 if x.dtype == np.float64 else np.float32)


class Operands(NamedTuple):
    """A call's operands by name, None where absent: arrays, avals, shapes or MLIR values."""

    gradient: Any
    x: Any
    scalars: Any
    bias: Any
    slope: Any


@dataclasses.dataclass(frozen=True)
class Signature:
    """What one call computes.

    Attributes:
      neuron_type: the neuron type.
      forward: whether the call computes y; otherwise it computes gradients.
      bias: whether the call has a bias.
      bias_gradient: whether the bias gradient is among the results.
      slope_gradient: whether PReLU's slope gradient is among the results.
      from_y: whether x holds y = f(z), from which f' is computed.
      batch_axes: how many leading axes are batch axes.
    """

    neuron_type: NeuronType
    forward: bool = False
    bias: bool = False
    bias_gradient: bool = False
    slope_gradient: bool = False
    from_y: bool = False
    batch_axes: int = 0

    def __str__(self) -> str:
        batch = f", batch_axes={self.batch_axes}" if self.batch_axes else ""
        operands = ["y" if self.from_y and n == "x" else n for n in self.operand_names]
        return f"{self.neuron_type.name}({', '.join(operands)}) -> {', '.join(self.result_names)}{batch}"

    @property
    def target(self) -> str:
        """The custom call's target."""
        return NEURON if self.forward else NEURON_GRADIENT

    @property
    def has_slope(self) -> bool:
        """Whether the call has PReLU's slopes."""
        return self.neuron_type is NeuronType.PRELU

    @property
    def operand_names(self) -> tuple[str, ...]:
        """The names of the operands, in order."""
        present = {"gradient": not self.forward, "bias": self.bias, "slope": self.has_slope}
        return tuple(name for name in Operands._fields if present.get(name, True))

    @property
    def result_names(self) -> tuple[str, ...]:
        """The names of the results, in order."""
        if self.forward:
            return ("y",)
        return "data", *(n for n in ("bias_gradient", "slope_gradient") if getattr(self, n))

    @property
    def attributes(self) -> dict[str, int]:
        """The custom call's attributes, all of them int32."""
        flags = () if self.forward else ("bias_gradient", "slope_gradient", "from_y")
        common = {"neuron_type": int(self.neuron_type), "batch_axes": self.batch_axes}
        return common | {name: int(getattr(self, name)) for name in flags}

    def ordered(self, operands: Operands) -> list[Any]:
        """The operands in order, without those that the call does not have."""
        return [getattr(operands, name) for name in self.operand_names]

    def named(self, operands: Sequence[Any]) -> Operands:
        """The operands by name."""
        given = dict(zip(self.operand_names, operands, strict=True))
        return Operands(*(given.get(name) for name in Operands._fields))

    def replace(self, **changes: Any) -> Signature:
        """The signature with other values."""
        return dataclasses.replace(self, **changes)

    def without_sums(self) -> Signature:
        """The signature of the data gradient alone."""
        return self.replace(bias_gradient=False, slope_gradient=False)

    # Shapes

    def batch_shape(self, operands: Sequence[Any]) -> tuple[Any, ...]:
        """The sizes of the batch axes: what those of the operands broadcast to."""
        return jnp.broadcast_shapes(*(operand.shape[: self.batch_axes] for operand in operands))

    def full_shape(self, operands: Sequence[Any]) -> tuple[Any, ...]:
        """The shape of the first result, y or the data gradient."""
        x = self.named(operands).x
        return (*self.batch_shape(operands), *x.shape[self.batch_axes :])

    def broadcast(self, results: Sequence[Array], operands: Sequence[Any]) -> list[Array]:
        """The results, broadcast to all batch axes."""
        batch = self.batch_shape(operands)
        return [jnp.broadcast_to(r, (*batch, *r.shape[self.batch_axes :])) for r in results]

    def result_shapes(self, operands: Sequence[Any]) -> list[tuple[Any, ...]]:
        """The shapes of the results."""
        full = self.full_shape(operands)
        return [tuple(full[d] for d in own) for own in self.result_dimensions(len(full))]

    def row_axes(self, rank: int) -> range:
        """The row axes of the first result, which has that rank."""
        return range(self.batch_axes, rank - 1)

    def operand_dimensions(self, shapes: Sequence[Sequence[Any]], full: Sequence[Any]) -> list[Dimensions]:
        """The dimensions of each operand, given all shapes and that of the first result."""
        every: list[Any] = list(range(len(full)))
        batch = every[: self.batch_axes]
        layouts = {"gradient": every, "x": every, "scalars": [*batch, None]}
        vector = [*batch, *every[-1:]]
        return [
            [
                d if d is not None and size == full[d] else None
                for d, size in zip(layouts.get(name, vector), shape, strict=True)
            ]
            for name, shape in zip(self.operand_names, shapes, strict=True)
        ]

    def result_dimensions(self, rank: int) -> list[list[int]]:
        """The dimensions of each result, given the rank of the first."""
        every = list(range(rank))
        sums = len(self.result_names) - 1
        return [every] + [[*every[: self.batch_axes], *every[-1:]]] * sums
