"""Neuron types and their parameters."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

__all__ = ["FROM_Y", "Neuron", "NeuronType", "by_value", "parameters_of"]


class NeuronType(enum.IntEnum):
    """The neuron types, with the raw values of Apple's ``MPSCNNNeuronType``."""

    NONE = 0
    RELU = 1
    LINEAR = 2
    SIGMOID = 3
    HARD_SIGMOID = 4
    TANH = 5
    ABSOLUTE = 6
    SOFTPLUS = 7
    SOFTSIGN = 8
    ELU = 9
    PRELU = 10
    RELUN = 11
    POWER = 12
    EXPONENTIAL = 13
    LOGARITHM = 14
    GELU = 15


# Those whose f' is a function of y = f(z).
FROM_Y = (NeuronType.SIGMOID, NeuronType.TANH, NeuronType.EXPONENTIAL)

# The parameters of each type with the defaults of MPSNNNeuronDescriptor. PReLU's slopes have none.
_DEFAULTS: dict[NeuronType, dict[str, float | None]] = {
    NeuronType.NONE: {},
    NeuronType.RELU: {"a": 0.0},
    NeuronType.LINEAR: {"a": 1.0, "b": 0.0},
    NeuronType.SIGMOID: {},
    NeuronType.HARD_SIGMOID: {"a": 0.2, "b": 0.5},
    NeuronType.TANH: {"a": 1.0, "b": 1.0},
    NeuronType.ABSOLUTE: {},
    NeuronType.SOFTPLUS: {"a": 1.0, "b": 1.0},
    NeuronType.SOFTSIGN: {},
    NeuronType.ELU: {"a": 1.0},
    NeuronType.PRELU: {"a": None},
    NeuronType.RELUN: {"a": 1.0, "b": 6.0},
    NeuronType.POWER: {"a": 1.0, "b": 0.0, "c": 1.0},
    NeuronType.EXPONENTIAL: {"a": 1.0, "b": 0.0, "c": -1.0},
    NeuronType.LOGARITHM: {"a": 1.0, "b": 0.0, "c": -1.0},
    NeuronType.GELU: {},
}


def parameters_of(kind: NeuronType) -> tuple[str, ...]:
    """The names of the parameters that a type uses."""
    return tuple(_DEFAULTS[kind])


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Neuron:
    """A neuron type and its parameters.

    Immutable, and a pytree: the type is static, the parameters are leaves, so they can be traced,
    differentiated, mapped over and put through ``jax.tree.map``. Two are equal if their types and the
    values of their parameters are; one with concrete parameters is hashable.

    Args:
      type: a `NeuronType`, or its raw value.
      a: the type's first parameter: a number or an array of shape ``[]``, of any real dtype. For ``PRELU``,
        an array of shape ``[channels]``: a slope for each channel.
      b: the second, a number or an array of shape ``[]``.
      c: the third, likewise. Of these three, those left out have Apple's documented defaults, and those
        that the type does not use have no effect.

    Raises:
      ValueError: `type` is not a neuron type.
    """

    type: NeuronType
    a: ArrayLike | None = None
    b: ArrayLike | None = None
    c: ArrayLike | None = None

    def __post_init__(self) -> None:
        try:
            kind = NeuronType(self.type)
        except ValueError:
            names = ", ".join(f"{t.name} ({t.value})" for t in NeuronType)
            raise ValueError(f"type is {self.type!r}; it may be a NeuronType: {names}") from None
        object.__setattr__(self, "type", kind)
        for name in ("a", "b", "c"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, _DEFAULTS[kind].get(name, 0.0))

    # One constructor a type.

    @classmethod
    def none(cls) -> Neuron:
        """f(x) = x."""
        return cls(NeuronType.NONE)

    @classmethod
    def relu(cls, a: ArrayLike = 0.0) -> Neuron:
        """f(x) = x for x >= 0, a*x below."""
        return cls(NeuronType.RELU, a)

    @classmethod
    def linear(cls, a: ArrayLike = 1.0, b: ArrayLike = 0.0) -> Neuron:
        """f(x) = a*x + b."""
        return cls(NeuronType.LINEAR, a, b)

    @classmethod
    def sigmoid(cls) -> Neuron:
        """f(x) = 1 / (1 + e^-x)."""
        return cls(NeuronType.SIGMOID)

    @classmethod
    def hard_sigmoid(cls, a: ArrayLike = 0.2, b: ArrayLike = 0.5) -> Neuron:
        """f(x) = a*x + b, clamped to [0, 1]."""
        return cls(NeuronType.HARD_SIGMOID, a, b)

    @classmethod
    def tanh(cls, a: ArrayLike = 1.0, b: ArrayLike = 1.0) -> Neuron:
        """f(x) = a tanh(b*x)."""
        return cls(NeuronType.TANH, a, b)

    @classmethod
    def absolute(cls) -> Neuron:
        """f(x) = abs(x)."""
        return cls(NeuronType.ABSOLUTE)

    @classmethod
    def softplus(cls, a: ArrayLike = 1.0, b: ArrayLike = 1.0) -> Neuron:
        """f(x) = a log(1 + e^(b*x))."""
        return cls(NeuronType.SOFTPLUS, a, b)

    @classmethod
    def softsign(cls) -> Neuron:
        """f(x) = x / (1 + abs(x))."""
        return cls(NeuronType.SOFTSIGN)

    @classmethod
    def elu(cls, a: ArrayLike = 1.0) -> Neuron:
        """f(x) = x for x >= 0, a (e^x - 1) below."""
        return cls(NeuronType.ELU, a)

    @classmethod
    def prelu(cls, a: ArrayLike) -> Neuron:
        """f(x) = x for x >= 0, a[j]*x below, with a slope for each channel j; a has shape [channels]."""
        return cls(NeuronType.PRELU, a)

    @classmethod
    def relun(cls, a: ArrayLike = 1.0, b: ArrayLike = 6.0) -> Neuron:
        """f(x) = min(x for x >= 0, a*x below; b)."""
        return cls(NeuronType.RELUN, a, b)

    @classmethod
    def power(cls, a: ArrayLike = 1.0, b: ArrayLike = 0.0, c: ArrayLike = 1.0) -> Neuron:
        """f(x) = (a*x + b)^c."""
        return cls(NeuronType.POWER, a, b, c)

    @classmethod
    def exponential(cls, a: ArrayLike = 1.0, b: ArrayLike = 0.0, c: ArrayLike = -1.0) -> Neuron:
        """f(x) = c^(a*x + b); c = -1 stands for e."""
        return cls(NeuronType.EXPONENTIAL, a, b, c)

    @classmethod
    def logarithm(cls, a: ArrayLike = 1.0, b: ArrayLike = 0.0, c: ArrayLike = -1.0) -> Neuron:
        """f(x) = log of a*x + b to the base c; c = -1 stands for e."""
        return cls(NeuronType.LOGARITHM, a, b, c)

    @classmethod
    def gelu(cls) -> Neuron:
        """f(x) = x Phi(x), with the normal distribution function Phi."""
        return cls(NeuronType.GELU)

    def __repr__(self) -> str:
        parameters = (f", {name}={getattr(self, name)!r}" for name in parameters_of(self.type))
        return f"Neuron({self.type.name}{''.join(parameters)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Neuron) and _key(self) == _key(other)

    def __hash__(self) -> int:
        return hash(_key(self))

    def tree_flatten_with_keys(self) -> tuple[Any, NeuronType]:
        key = jax.tree_util.GetAttrKey
        return ((key("a"), self.a), (key("b"), self.b), (key("c"), self.c)), self.type

    def tree_flatten(self) -> tuple[Any, NeuronType]:
        return (self.a, self.b, self.c), self.type

    @classmethod
    def tree_unflatten(cls, kind: NeuronType, parameters: Any) -> Neuron:
        # JAX puts anything into a tree's leaves, so nothing is checked or filled in here.
        neuron = object.__new__(cls)
        for name, value in zip(("type", "a", "b", "c"), (kind, *parameters), strict=True):
            object.__setattr__(neuron, name, value)
        return neuron


def _key(neuron: Neuron) -> tuple[Any, ...]:
    return (neuron.type, *map(by_value, (neuron.a, neuron.b, neuron.c)))


def by_value(parameter: Any) -> Any:
    """What equality and hash go by: 0.5, np.float32(0.5) and jnp.array(0.5) are one value."""
    if isinstance(parameter, jax.core.Tracer):
        return parameter  # JAX says what cannot be done with it
    if isinstance(parameter, (jax.Array, np.ndarray, np.generic, int, float)):
        array = np.asarray(parameter)
        if array.ndim == 0:
            return array.item()
        # Slopes have gradients of their own dtype.
        return str(array.dtype), array.shape, tuple(array.ravel().tolist())
    return parameter
