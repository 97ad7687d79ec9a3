"""What the four classes inherit: MPSKernel, MPSMatrixUnaryKernel and MPSMatrixBinaryKernel, as values."""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from .._core.arguments import floating, require_array
from .._core.descriptor import Neuron, NeuronType, by_value, parameters_of, require_neuron
from ._region import Batch, Matrix, Origin, batch_of, matrix, read_vector, shared_size

__all__ = ["BinaryKernel", "MatrixKernel", "NeuronKernel", "UnaryKernel"]

K = TypeVar("K", bound="MatrixKernel")
U = TypeVar("U", bound="UnaryKernel")
B = TypeVar("B", bound="BinaryKernel")
N = TypeVar("N", bound="NeuronKernel")

# The fields that are children in a pytree, if a class has them. The others are static.
_CHILDREN = ("neuron", "alpha")


def _count(name: str, value: Any) -> int:
    try:
        count = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer of at least 0, got {value!r}") from None
    if count < 0:
        raise ValueError(f"{name} must be an integer of at least 0, got {value!r}")
    return count


def _size(name: str, value: Any) -> int | None:
    return None if value is None else _count(name, value)


def _origin(name: str, value: Any) -> Origin:
    if not isinstance(value, Iterable) or len(origin := tuple(value)) != 2:
        raise TypeError(f"{name} must be (row, column), got {value!r}")
    return _count(f"{name}'s row", origin[0]), _count(f"{name}'s column", origin[1])


def _label(name: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise TypeError(f"{name} must be a string or None, got {value!r}")
    return value


def _number(name: str, value: Any) -> Any:
    require_array(name, value)
    return value


# The check that a field's value goes through.
LABEL = {"check": _label}
NUMBER = {"check": _number}
COUNT = {"check": _count}
SIZE = {"check": _size}
ORIGIN = {"check": _origin}


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class MatrixKernel:
    """The base of all kernels.

    A kernel is a value and a pytree. It is immutable, and equal to a kernel of the same class with equal
    properties. alpha and the neuron's parameters are leaves, so they can be traced, mapped over and
    differentiated. All other properties are static. A kernel with concrete parameters is hashable, and can
    be a static argument of jit. Setters return a new kernel.
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
        """Returns this kernel with a name for its operations in profiles (`jax.named_scope`)."""
        return dataclasses.replace(self, label=label)

    def set_alpha(self: K, alpha: ArrayLike) -> K:
        """Returns this kernel with another scale, a real scalar."""
        return dataclasses.replace(self, alpha=alpha)

    def set_source_number_of_feature_vectors(self: K, count: int | None) -> K:
        """Returns this kernel for at most `count` rows; None for all rows from the origin."""
        return dataclasses.replace(self, source_number_of_feature_vectors=count)

    def set_source_input_feature_channels(self: K, count: int | None) -> K:
        """Returns this kernel for at most `count` input channels; None for all channels from the origin."""
        return dataclasses.replace(self, source_input_feature_channels=count)

    def set_result_matrix_origin(self: K, origin: Origin) -> K:
        """Returns this kernel with another (row, column) where the result's region starts."""
        return dataclasses.replace(self, result_matrix_origin=origin)

    def set_batch_start(self: K, index: int) -> K:
        """Returns this kernel with another first matrix of [matrices, rows, columns]."""
        return dataclasses.replace(self, batch_start=index)

    def set_batch_size(self: K, count: int | None) -> K:
        """Returns this kernel for `count` matrices; None for all matrices from batch_start."""
        return dataclasses.replace(self, batch_size=count)

    # NSCopying, Equatable, Hashable, CustomStringConvertible

    def copy(self: K) -> K:
        """Returns a new kernel with equal properties."""
        return dataclasses.replace(self)

    def _by_value(self) -> tuple[Any, ...]:
        return tuple(by_value(getattr(self, field.name)) for field in dataclasses.fields(self))

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self._by_value() == other._by_value()

    def __hash__(self) -> int:
        return hash((type(self), self._by_value()))

    def __repr__(self) -> str:
        """The neuron, and the properties that differ from their defaults."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        shown = [
            f"{name}={value!r}"
            for name, value in values.items()
            # An array cannot be compared: it may be traced, or hold several values.
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
        """A matrix argument. `origin` is the property that holds its origin."""
        return matrix(name, value, origin, getattr(self, origin))

    def _vector(
        self, name: str, value: ArrayLike | None, batch: Batch | None, length: int, columns: Matrix
    ) -> Array | None:
        """The first elements of a vector argument, one for each of the columns; None for None."""
        return None if value is None else read_vector(name, value, batch, length, columns.name)

    def _shared(self, name: str, *extents: tuple[Matrix, str]) -> int:
        """The size that the property of that name gives "rows" or "columns" of these matrices."""
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
        """Returns this kernel with another (row, column) where the region of its matrix starts."""
        return dataclasses.replace(self, source_matrix_origin=origin)


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class BinaryKernel(MatrixKernel):
    """A kernel of two matrices: MPSMatrixBinaryKernel."""

    primary_source_matrix_origin: Origin = dataclasses.field(default=(0, 0), metadata=ORIGIN)
    secondary_source_matrix_origin: Origin = dataclasses.field(default=(0, 0), metadata=ORIGIN)

    def set_primary_source_matrix_origin(self: B, origin: Origin) -> B:
        """Returns this kernel with another (row, column) where the region of its first matrix starts."""
        return dataclasses.replace(self, primary_source_matrix_origin=origin)

    def set_secondary_source_matrix_origin(self: B, origin: Origin) -> B:
        """Returns this kernel with another (row, column) where the region of its second matrix starts."""
        return dataclasses.replace(self, secondary_source_matrix_origin=origin)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class NeuronKernel(MatrixKernel):
    """A kernel with a neuron, which defaults to type NONE."""

    neuron: Neuron = dataclasses.field(default_factory=Neuron.none)

    def __post_init__(self) -> None:
        require_neuron(self.neuron)
        super().__post_init__()

    @property
    def neuron_type(self) -> NeuronType:
        """The neuron's type."""
        return self.neuron.type

    @property
    def neuron_parameter_a(self) -> ArrayLike | None:
        """The neuron's a, or PReLU's slopes; None for a type that does not use it."""
        return self.neuron.a

    @property
    def neuron_parameter_b(self) -> ArrayLike | None:
        """The neuron's b; None for a type that does not use it."""
        return self.neuron.b

    @property
    def neuron_parameter_c(self) -> ArrayLike | None:
        """The neuron's c; None for a type that does not use it."""
        return self.neuron.c

    def set_neuron_type(
        self: N,
        neuron_type: NeuronType,
        parameter_a: ArrayLike | None = None,
        parameter_b: ArrayLike | None = None,
        parameter_c: ArrayLike | None = None,
    ) -> N:
        """Returns this kernel with a neuron of any type but PRELU.

        As in Apple's setNeuronType:parameterA:parameterB:parameterC:, a parameter that the type does not
        use is ignored. (A `Neuron` refuses it.)

        Args:
          neuron_type: a `NeuronType`, or its raw value.
          parameter_a: a real scalar, or None for Apple's documented default.
          parameter_b: as parameter_a.
          parameter_c: as parameter_a.

        Raises:
          ValueError: `neuron_type` is PRELU, or not a neuron type.
        """
        neuron_type = Neuron(neuron_type).type  # which raises for what is not a type
        if neuron_type is NeuronType.PRELU:
            raise ValueError(
                "neuron_type must not be PRELU, which has a slope per channel and no scalar parameters. "
                "Use set_neuron_to_prelu_with_parameters_a."
            )
        given = {"a": parameter_a, "b": parameter_b, "c": parameter_c}
        used = {name: given[name] for name in parameters_of(neuron_type)}
        return dataclasses.replace(self, neuron=Neuron(neuron_type, **used))

    def set_neuron_to_prelu_with_parameters_a(self: N, a: ArrayLike) -> N:
        """Returns this kernel with a PReLU of slopes a.

        Args:
          a: shape [channels], one slope for each channel of the region; or a scalar or shape [1], one slope
            shared by all channels, which Apple's kernels do not have.
        """
        return dataclasses.replace(self, neuron=Neuron.prelu(a))

    def _require_slopes(self, channels: int) -> None:
        """Raises unless a PReLU's slopes match the channels of the region."""
        if self.neuron.type is not NeuronType.PRELU:
            return
        if self.neuron.a is None:
            raise ValueError(
                "neuron must have slopes if it is a PRELU, got None. "
                "Use set_neuron_to_prelu_with_parameters_a."
            )
        shape = floating("a (PReLU's slopes)", self.neuron.a).shape
        if shape not in ((channels,), (1,), ()):
            raise ValueError(
                f"a (PReLU's slopes) must be a scalar or have shape {(channels,)} to match the channels of "
                f"the region, got shape {shape}"
            )
