"""MatrixNeuron and MatrixNeuronGradient."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from .._core.descriptor import Neuron, NeuronType
from .._core.results import NeuronGradient
from .._ops.activation import neuron, neuron_gradient
from ._base import BinaryKernel, NeuronKernel, UnaryKernel
from ._region import read, read_vector, write

__all__ = ["MatrixNeuron", "MatrixNeuronGradient"]


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MatrixNeuron(NeuronKernel, UnaryKernel):
    """y = neuron(alpha * x + bias) on a region of a matrix, as MPSMatrixNeuron.h defines it.

    The region has min(source_number_of_feature_vectors, rows from source_matrix_origin) rows and
    min(source_input_feature_channels, columns from there) columns, in the matrices batch_start to
    batch_start + batch_size.

    Args:
      neuron: the neuron; NONE to begin with.
      label: a name for profiles.
      alpha: a real scalar.
      source_number_of_feature_vectors: at most so many rows; None for all.
      source_input_feature_channels: at most so many columns; None for all.
      source_matrix_origin: the (row, column) of the input from which it reads: MTLOrigin's x and y.
      result_matrix_origin: the (row, column) of the result from which it writes.
      batch_start: the first matrix of [matrices, rows, columns].
      batch_size: how many matrices; None for all from there.

    Raises:
      TypeError: a size or an origin is not of integers, neuron is not a `Neuron`, alpha not a number, or
        label not a string.
      ValueError: a size or an origin is below 0.
    """

    def encode(
        self,
        input_matrix: ArrayLike,
        bias_vector: ArrayLike | None = None,
        result_matrix: ArrayLike | None = None,
    ) -> Array:
        """Computes y.

        Args:
          input_matrix: x, of shape [rows, columns] or [matrices, rows, columns]; float32, float16, bfloat16
            or float64.
          bias_vector: shape [length], of at least the region's columns, or [vectors, length], one for each
            matrix of the input; None for no bias.
          result_matrix: of as many axes as the input, with room for the region; None for a new one.

        Returns:
          result_matrix with y in the region from result_matrix_origin, and nothing else changed, in its
          dtype. Without a result_matrix the region alone, [rows, columns] or [batch size, rows, columns],
          in x's dtype.

        Raises:
          TypeError: as `jax_mps_neuron.neuron`.
          ValueError: as that, and if a region does not fit or PReLU's slopes are not as many as its
            columns.
        """
        with self._scope():
            x = self._matrix("input_matrix", input_matrix, "source_matrix_origin")
            batch = self._batch(x)
            rows = self._shared("source_number_of_feature_vectors", (x, "rows"))
            channels = self._shared("source_input_feature_channels", (x, "columns"))
            self._require_slopes(channels)
            bias = None
            if bias_vector is not None:
                bias = read_vector("bias_vector", bias_vector, batch, channels, x.name)
            region = read(x, batch, rows, channels)

            def activate(x: Array, bias: Array | None) -> Array:
                return neuron(x, self.neuron, bias, alpha=self.alpha)

            by_matrix = bias is not None and bias.ndim == 2
            y = (jax.vmap(activate) if by_matrix else activate)(region, bias)
            return write("result_matrix", result_matrix, batch, self.result_matrix_origin, y)


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MatrixNeuronGradient(NeuronKernel, BinaryKernel):
    """The gradient of a `MatrixNeuron`, as MPSMatrixNeuronGradient (MPSMatrixNeuron.h) defines it.

    With z = alpha * x + bias: the data gradient is alpha f'(z) gradient, the bias gradient the sum of f'(z)
    gradient over rows.

    Args:
      neuron: the neuron; NONE to begin with.
      label: a name for profiles.
      alpha: a real scalar.
      source_number_of_feature_vectors: at most so many rows; None for all.
      source_input_feature_channels: at most so many columns; None for all.
      primary_source_matrix_origin: the (row, column) of the incoming gradient from which it reads.
      secondary_source_matrix_origin: the same of the input.
      result_matrix_origin: the (row, column) of the data gradient from which it writes.
      batch_start: the first matrix of [matrices, rows, columns].
      batch_size: how many matrices; None for all from there.

    Raises:
      TypeError: as `MatrixNeuron`.
      ValueError: as `MatrixNeuron`.
    """

    def encode(
        self,
        gradient_matrix: ArrayLike,
        input_matrix: ArrayLike,
        bias_vector: ArrayLike | None = None,
        result_gradient_for_data_matrix: ArrayLike | None = None,
        result_gradient_for_bias_vector: ArrayLike | None = None,
    ) -> NeuronGradient:
        """Computes the gradients, in one call.

        Args:
          gradient_matrix: the gradient with respect to y, of shape [rows, columns] or [matrices, rows,
            columns].
          input_matrix: x, of as many axes, with the same region from its own origin.
          bias_vector: as in `MatrixNeuron.encode`.
          result_gradient_for_data_matrix: of as many axes, with room for the region; None for a new one.
          result_gradient_for_bias_vector: shape [length], at least the region's columns, or [vectors,
            length], one for each matrix; None for a new one of the bias's axes.

        Returns:
          NeuronGradient(data, bias, a). data and bias are the given results with the region from
          result_matrix_origin, and the first elements, written, and nothing else changed; where none is
          given, what would be written, in the dtype of x and of the bias. A vector of shape [length] has
          the sum over all matrices. bias is None without both a bias and a result for it. a, which Apple's
          kernel does not have, is the gradient of PReLU's slopes, [channels], over all matrices, and None
          for other types.

        Raises:
          TypeError: as `jax_mps_neuron.neuron_gradient`.
          ValueError: as that, and if a region does not fit, the gradient's is not x's, or PReLU's slopes
            are not as many as its columns.
        """
        with self._scope():
            gradient = self._matrix("gradient_matrix", gradient_matrix, "primary_source_matrix_origin")
            x = self._matrix("input_matrix", input_matrix, "secondary_source_matrix_origin")
            batch = self._batch(gradient, x)
            rows = self._shared("source_number_of_feature_vectors", (gradient, "rows"), (x, "rows"))
            channels = self._shared("source_input_feature_channels", (gradient, "columns"), (x, "columns"))
            self._require_slopes(channels)
            bias = sums = None
            if bias_vector is not None:
                bias = read_vector("bias_vector", bias_vector, batch, channels, x.name)
            name, result = "result_gradient_for_bias_vector", result_gradient_for_bias_vector
            if result is not None:
                sums = read_vector(name, result, batch, channels, x.name)
            data, d_bias, d_slopes = self._gradients(
                read(gradient, batch, rows, channels), read(x, batch, rows, channels), bias, sums
            )
            data = write(
                "result_gradient_for_data_matrix",
                result_gradient_for_data_matrix,
                batch,
                self.result_matrix_origin,
                data,
            )
            if d_bias is not None:
                d_bias = write(name, result, batch, (0,), d_bias)
            return NeuronGradient(data, d_bias, d_slopes)

    def _gradients(
        self, gradient: Array, x: Array, bias: Array | None, sums: Array | None
    ) -> NeuronGradient:
        """The gradients of a region; `sums` has the shape and dtype that the bias's may have."""
        if sums is None:
            sums = bias
        elif bias is None:
            bias = jnp.zeros(x.shape[-1:], sums.dtype)
        if bias is None or sums is None:
            return neuron_gradient(gradient, x, self.neuron, alpha=self.alpha)
        # What is summed over rows and then over matrices is rounded once, at the end.
        wide = jnp.result_type(gradient, x, jnp.float32)
        neuron, bias = self.neuron, bias.astype(wide)
        if neuron.type is NeuronType.PRELU:
            neuron = Neuron.prelu(jnp.asarray(neuron.a, wide))

        def backward(gradient: Array, x: Array, bias: Array) -> NeuronGradient:
            return neuron_gradient(gradient, x, neuron, bias, alpha=self.alpha)

        if bias.ndim == sums.ndim == 1:
            data, d_bias, d_slopes = backward(gradient, x, bias)
        else:
            by_bias = 0 if bias.ndim == 2 else None
            data, d_bias, d_slopes = jax.vmap(backward, (0, 0, by_bias))(gradient, x, bias)
        return NeuronGradient(data, _over_matrices(d_bias, sums), _over_matrices(d_slopes, self.neuron.a))


def _over_matrices(sums: Array | None, like: ArrayLike | None) -> Array | None:
    """Sums of each matrix, summed over them where what they are gradients of is shared, in its dtype."""
    if sums is None:
        return None
    like = jnp.asarray(like)
    return sums.sum(tuple(range(sums.ndim - like.ndim))).astype(like.dtype)
