"""What the four classes inherit: MPSKernel, MPSMatrixUnaryKernel and MPSMatrixBinaryKernel, as values."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.typing import ArrayLike

from .._core.arguments import floating, require_array
from .._core.descriptor import Neuron, NeuronType, by_value, parameters_of, require_neuron
from ._region import Batch, Matrix, Origin, batch_of, matrix, shared_size

__all__ = ["BinaryKernel", "MatrixKernel", "NeuronKernel", "UnaryKernel"]

K = TypeVar("K", bound="MatrixKernel")
U = TypeVar("U", bound="UnaryKernel")
B = TypeVar("B", bound="BinaryKernel")
N = TypeVar("N", bound="NeuronKernel")

# The fields that are children in a pytree, where a class has them; the others are static.
_CHILDREN = ("neuron", "alpha")


def _count(name: str, value: Any) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} is {value!r}; it may be an integer from 0") from None
    if count < 0:
        raise ValueError(f"{name} is {value!r}; it may be an integer from 0")
    return count


def _size(name: str, value: Any) -> int | None:
    return None if value is None else _count(name, value)


def _origin(name: str, value: Any) -> Origin:
    if not isinstance(value, Iterable) or len(origin := tuple(value)) != 2:
        raise TypeError(f"{name} is {value!r}; it may be (row, column)")
    return _count(f"{name}'s row", origin[0]), _count(f"{name}'s column", origin[1])


def _label(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}; it may be a string or None")
    return value


def _number(name: str, value: Any) -> Any:
    require_array(name, value)
    return value


# Which check a field's value goes through.
LABEL = {"check": _label}
NUMBER = {"check": _number}
COUNT = {"check": _count}
SIZE = {"check": _size}
ORIGIN = {"check": _origin}


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MatrixKernel:
    """A kernel is a value: immutable, equal to another of its class with equal properties, and a pytree.

    alpha and the neuron's parameters are leaves: they may be traced, mapped over, and have gradients. All
    else is static. With concrete parameters it is hashable, and may be a static argument of jit. Setters
    return another kernel.
    """

    label: str | None = dataclasses.field(default=None, metadata=LABEL)
    alpha: ArrayLike = dataclasses.field(default=1.0, metadata=NUMBER)
    source_number_of_feature_vectors: int | None = dataclasses.field(default=None, metadata=SIZE)
    source_input_feature_channels: int | None = dataclasses.field(default=None, metadata=SIZE)
    result_matrix_origin: Origin = dataclasses.field(default=(0, 0), metadata=ORIGIN)
    batch_start: int = dataclasses.field(default=0, metadata=COUNT)
    batch_size: int | None = dataclasses.field(default=None, metadata=SIZE)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if check := field.metadata.get("check"):
                object.__setattr__(self, field.name, check(field.name, getattr(self, field.name)))

    # Setters

    def set_label(self: K, label: str | None) -> K:
        """This kernel with a name, which its operations have in profiles (`jax.named_scope`)."""
        return dataclasses.replace(self, label=label)

    def set_alpha(self: K, alpha: ArrayLike) -> K:
        """This kernel with another scale: a real scalar."""
        return dataclasses.replace(self, alpha=alpha)

    def set_source_number_of_feature_vectors(self: K, count: int | None) -> K:
        """This kernel for at most so many rows; None for all that there are from the origin."""
        return dataclasses.replace(self, source_number_of_feature_vectors=count)

    def set_source_input_feature_channels(self: K, count: int | None) -> K:
        """This kernel for at most so many input channels; None for all that there are from the origin."""
        return dataclasses.replace(self, source_input_feature_channels=count)

    def set_result_matrix_origin(self: K, origin: Origin) -> K:
        """This kernel writing from another (row, column) of the result matrix on."""
        return dataclasses.replace(self, result_matrix_origin=origin)

    def set_batch_start(self: K, index: int) -> K:
        """This kernel with another first matrix of [matrices, rows, columns]."""
        return dataclasses.replace(self, batch_start=index)

    def set_batch_size(self: K, count: int | None) -> K:
        """This kernel for so many matrices; None for all that there are from batch_start."""
        return dataclasses.replace(self, batch_size=count)

    # NSCopying, Equatable, Hashable, CustomStringConvertible

    def copy(self: K) -> K:
        """Another kernel of equal properties."""
        return dataclasses.replace(self)

    def _by_value(self) -> tuple[Any, ...]:
        return tuple(by_value(getattr(self, field.name)) for field in dataclasses.fields(self))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._by_value() == other._by_value()

    def __hash__(self) -> int:
        return hash((type(self), self._by_value()))

    def __repr__(self) -> str:
        """The properties that differ from their defaults, and the neuron."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        shown = [
            f"{name}={value!r}"
            for name, value in values.items()
            # An alpha that is an array may be traced, or several.
            if name == "neuron" or isinstance(value, (jax.Array, np.ndarray)) or value != defaults[name]
        ]
        return f"{type(self).__name__}({', '.join(shown)})"

    # Pytree

    def tree_flatten_with_keys(self) -> tuple[Any, tuple[Any, ...]]:
        children, static = self.tree_flatten()
        names = [field.name for field in dataclasses.fields(self) if field.name in _CHILDREN]
        return tuple(zip(map(jax.tree_util.GetAttrKey, names), children, strict=True)), static

    def tree_flatten(self) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        names = [field.name for field in dataclasses.fields(self)]
        children = tuple(getattr(self, name) for name in names if name in _CHILDREN)
        return children, tuple(getattr(self, name) for name in names if name not in _CHILDREN)

    @classmethod
    def tree_unflatten(cls: type[K], static: tuple[Any, ...], children: Iterable[Any]) -> K:
        # JAX puts anything into a tree's leaves, so nothing is checked here.
        kernel = object.__new__(cls)
        child, rest = iter(children), iter(static)
        for field in dataclasses.fields(cls):
            object.__setattr__(kernel, field.name, next(child if field.name in _CHILDREN else rest))
        return kernel

    # For encode

    def _matrix(self, name: str, value: ArrayLike, origin: str) -> Matrix:
        """An argument with its origin: the property of that name."""
        return matrix(name, value, origin, getattr(self, origin))

    def _shared(self, name: str, *extents: tuple[Matrix, str]) -> int:
        """What the size of that name comes to; each matrix has it as its "rows" or "columns"."""
        return shared_size(name, getattr(self, name), *extents)

    def _batch(self, *sources: Matrix) -> Batch | None:
        return batch_of(self.batch_start, self.batch_size, *sources)

    def _scope(self) -> Any:
        return jax.named_scope(self.label or type(self).__name__)


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class UnaryKernel(MatrixKernel):
    """A kernel of one matrix: MPSMatrixUnaryKernel."""

    source_matrix_origin: Origin = dataclasses.field(default=(0, 0), metadata=ORIGIN)

    def set_source_matrix_origin(self: U, origin: Origin) -> U:
        """This kernel reading from another (row, column) of its matrix on."""
        return dataclasses.replace(self, source_matrix_origin=origin)


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BinaryKernel(MatrixKernel):
    """A kernel of two matrices: MPSMatrixBinaryKernel."""

    primary_source_matrix_origin: Origin = dataclasses.field(default=(0, 0), metadata=ORIGIN)
    secondary_source_matrix_origin: Origin = dataclasses.field(default=(0, 0), metadata=ORIGIN)

    def set_primary_source_matrix_origin(self: B, origin: Origin) -> B:
        """This kernel reading from another (row, column) of its first matrix on."""
        return dataclasses.replace(self, primary_source_matrix_origin=origin)

    def set_secondary_source_matrix_origin(self: B, origin: Origin) -> B:
        """This kernel reading from another (row, column) of its second matrix on."""
        return dataclasses.replace(self, secondary_source_matrix_origin=origin)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NeuronKernel(MatrixKernel):
    """A kernel with a neuron, at first the one of type NONE."""

    neuron: Neuron = dataclasses.field(default_factory=Neuron.none)

    def __post_init__(self) -> None:
        require_neuron(self.neuron)
        super().__post_init__()

    @property
    def neuron_type(self) -> NeuronType:
        """The type of the neuron."""
        return self.neuron.type

    @property
    def neuron_parameter_a(self) -> ArrayLike | None:
        """The neuron's a; PReLU's slopes."""
        return self.neuron.a

    @property
    def neuron_parameter_b(self) -> ArrayLike | None:
        """The neuron's b."""
        return self.neuron.b

    @property
    def neuron_parameter_c(self) -> ArrayLike | None:
        """The neuron's c."""
        return self.neuron.c

    def set_neuron_type(
        self: N,
        neuron_type: NeuronType,
        parameter_a: ArrayLike | None = None,
        parameter_b: ArrayLike | None = None,
        parameter_c: ArrayLike | None = None,
    ) -> N:
        """This kernel with a neuron of any type but PRELU.

        Args:
          neuron_type: a `NeuronType`, or its raw value.
          parameter_a: a real scalar, or None for Apple's documented default.
          parameter_b: as parameter_a.
          parameter_c: as parameter_a.

        Raises:
          ValueError: the type is PRELU, which has a slope for each channel, or none that there is.
        """
        used = parameters_of(NeuronType(neuron_type))
        given = {"a": parameter_a, "b": parameter_b, "c": parameter_c}
        neuron = Neuron(neuron_type, **{name: given[name] for name in used})
        if neuron.type is NeuronType.PRELU:
            raise ValueError(
                "neuron_type is PRELU, which has a slope for each channel and no scalar parameters; "
                "set_neuron_to_prelu_with_parameters_a sets it"
            )
        return dataclasses.replace(self, neuron=neuron)

    def set_neuron_to_prelu_with_parameters_a(self: N, a: ArrayLike) -> N:
        """This kernel with a PReLU of slopes a, of shape [channels], one for each channel of the region."""
        return dataclasses.replace(self, neuron=Neuron.prelu(a))

    def _require_slopes(self, channels: int) -> None:
        """Raises unless a PReLU has a slope for each channel of the region."""
        if self.neuron.type is not NeuronType.PRELU:
            return
        if self.neuron.a is None:
            raise ValueError(
                "neuron is a PRELU without slopes; set_neuron_to_prelu_with_parameters_a sets them"
            )
        shape = floating("a (PReLU's slopes)", self.neuron.a).shape
        if shape not in ((channels,), (1,), ()):
            raise ValueError(
                f"a (PRELU's slopes) has shape {shape}, but the region has {channels} channels; it may "
                f"have shape {(channels,)}"
            )
