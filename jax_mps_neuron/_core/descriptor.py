"""Neuron types and their parameters."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

__all__ = [
    "FROM_Y",
    "Neuron",
    "NeuronType",
    "by_value",
    "default_of",
    "parameters_of",
    "require_neuron",
]


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


# The types whose f' is a function of y = f(z).
FROM_Y = (NeuronType.SIGMOID, NeuronType.TANH, NeuronType.EXPONENTIAL)

# The parameters of each type, with the defaults of MPSNNNeuronDescriptor. PReLU's slopes have no default.
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


_PARAMETERS = {neuron_type: tuple(defaults) for neuron_type, defaults in _DEFAULTS.items()}


def parameters_of(neuron_type: NeuronType) -> tuple[str, ...]:
    """The names of the parameters that a type uses."""
    return _PARAMETERS[neuron_type]


def default_of(neuron_type: NeuronType, name: str) -> float:
    """The default of a parameter, 0 if the type does not use it or, like PReLU, has no default for it."""
    return _DEFAULTS[neuron_type].get(name) or 0.0


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Neuron:
    """A neuron type and its parameters.

    A Neuron is immutable and a pytree. The type is static. The parameters that the type uses are the
    leaves, so they can be traced, differentiated, stacked and mapped over. Two neurons are equal if their
    types and the values of their parameters are. A neuron with concrete parameters is hashable.

    Args:
      type: a `NeuronType`, or its raw value.
      a: the first parameter, a real scalar. PReLU's slopes have shape ``[channels]``; a scalar or shape
        ``[1]`` is one slope shared by all channels.
      b: the second parameter, a real scalar.
      c: the third parameter, a real scalar. Each of the three defaults to Apple's documented value, and is
        None for a type that does not use it.

    Raises:
      ValueError: `type` is not a neuron type, or a parameter is given that the type does not use.

    Example:
      >>> Neuron(NeuronType.TANH, a=1.7, b=0.6)
      Neuron(TANH, a=1.7, b=0.6)
    """

    type: NeuronType
    a: ArrayLike | None = None
    b: ArrayLike | None = None
    c: ArrayLike | None = None

    def __post_init__(self) -> None:
        try:
            neuron_type = NeuronType(self.type)
        except ValueError:
            names = ", ".join(f"{t.name} ({t.value})" for t in NeuronType)
            raise ValueError(f"type must be a NeuronType ({names}), got {self.type!r}") from None
        object.__setattr__(self, "type", neuron_type)
        defaults = _DEFAULTS[neuron_type]
        for name in ("a", "b", "c"):
            value = getattr(self, name)
            if value is None:
                object.__setattr__(self, name, defaults.get(name))
            elif name not in defaults:
                used = f"uses only {' and '.join(defaults)}" if defaults else "has no parameters"
                raise ValueError(
                    f"{name} must not be given for {neuron_type.name}, which {used}; got {value!r}"
                )

    # One constructor per type.

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
        """f(x) = x for x >= 0, a[j]*x below for channel j; a has shape [channels], or [] or [1] for all."""
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
        """f(x) = log of a*x + b to the base c, which is positive and not 1; c = -1 stands for e."""
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
        names = parameters_of(self.type)
        return tuple((jax.tree_util.GetAttrKey(n), getattr(self, n)) for n in names), self.type

    def tree_flatten(self) -> tuple[Any, NeuronType]:
        return tuple([getattr(self, name) for name in parameters_of(self.type)]), self.type

    @classmethod
    def tree_unflatten(cls, neuron_type: NeuronType, parameters: Any) -> Neuron:
        # JAX puts anything into a tree's leaves, so nothing is checked or filled in here.
        neuron = object.__new__(cls)
        values = dict(zip(parameters_of(neuron_type), parameters, strict=True))
        object.__setattr__(neuron, "type", neuron_type)
        for name in ("a", "b", "c"):
            object.__setattr__(neuron, name, values.get(name))
        return neuron


def _key(neuron: Neuron) -> tuple[Any, ...]:
    key = (neuron.type, *map(by_value, (neuron.a, neuron.b, neuron.c)))
    if neuron.type is NeuronType.PRELU:  # the gradient of slopes has their dtype
        return *key, str(getattr(neuron.a, "dtype", type(neuron.a))), getattr(neuron.a, "weak_type", False)
    return key


def by_value(parameter: Any) -> Any:
    """The key for equality and hashing: 0.5, np.float32(0.5) and jnp.array(0.5) are one value."""
    if isinstance(parameter, jax.core.Tracer):
        return parameter  # JAX raises its own error where a tracer cannot be compared or hashed
    if isinstance(parameter, (jax.Array, np.ndarray, np.generic, int, float)):
        array = np.asarray(parameter)
        if array.ndim == 0:
            return array.item()
        # The gradient of slopes has their dtype, so the dtype is part of their value.
        return str(array.dtype), array.shape, tuple(array.ravel().tolist())
    return parameter


def require_neuron(neuron: Any, name: str = "neuron") -> None:
    """Raises unless a value is a Neuron, and says what to write in its place."""
    if isinstance(neuron, Neuron):
        return
    shown, written = repr(neuron), ""
    constructor = getattr(neuron, "__name__", "")
    if callable(neuron) and constructor in _CONSTRUCTORS:
        written = _written(_CONSTRUCTORS[constructor])
        if getattr(neuron, "__self__", None) is Neuron:
            shown = f"the constructor Neuron.{constructor}"
    elif isinstance(neuron, str):
        key = neuron.strip().lower().rpartition(".")[2].replace("-", "_").replace(" ", "_")
        written = _written(_CONSTRUCTORS[key]) if key in _CONSTRUCTORS else ""
    elif (
        isinstance(neuron, int) and neuron in NeuronType._value2member_map_ and not isinstance(neuron, bool)
    ):
        written = _written(NeuronType(neuron))
    elif hasattr(neuron, "shape"):
        shown = f"an array of shape {neuron.shape}"
    remedy = f"Write {written}." if written else f"Its constructors are {', '.join(_CONSTRUCTORS)}."
    raise TypeError(f"{name} must be a jax_mps_neuron.Neuron, got {shown}. {remedy}")


_CONSTRUCTORS = {neuron_type.name.lower(): neuron_type for neuron_type in NeuronType}


def _written(neuron_type: NeuronType) -> str:
    """The call that makes a neuron of a type."""
    required = "slopes" if neuron_type is NeuronType.PRELU else ""
    return f"Neuron.{neuron_type.name.lower()}({required})"
