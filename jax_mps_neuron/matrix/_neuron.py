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
from ._region import by_matrix, read, write

__all__ = ["MatrixNeuron", "MatrixNeuronGradient"]


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MatrixNeuron(NeuronKernel, UnaryKernel):
    r"""y = f(alpha * x + bias) on a region of a matrix, as MPSMatrixNeuron.h defines it.

    The region starts at source_matrix_origin in each of the matrices batch_start to batch_start +
    batch_size - 1. It has source_number_of_feature_vectors rows and source_input_feature_channels columns,
    or fewer if the matrix ends before.

    Args:
      neuron: the type f and its parameters; NONE by default.
      label: a name for profiles.
      alpha: a real scalar.
      source_number_of_feature_vectors: the most rows to read; None for all rows.
      source_input_feature_channels: the most columns to read; None for all columns.
      source_matrix_origin: the (row, column) where the region of x starts: MTLOrigin's x and y.
      result_matrix_origin: the (row, column) where the region of the result starts.
      batch_start: the first matrix of [matrices, rows, columns].
      batch_size: the number of matrices; None for all matrices from batch_start.

    Raises:
      TypeError: a size or an origin does not consist of integers, neuron is not a `Neuron`, alpha is not a
        number, or label is not a string.
      ValueError: a size or an origin is negative.

    Example:
      >>> kernel = MatrixNeuron(Neuron.relu(0.1), source_matrix_origin=(0, 1))
      >>> kernel.encode(jnp.array([[1.0, -1.0, 2.0]]))
      Array([[-0.1,  2. ]], dtype=float32)
    """

    def encode(
        self,
        input_matrix: ArrayLike,
        bias_vector: ArrayLike | None = None,
        result_matrix: ArrayLike | None = None,
    ) -> Array:
        """Computes y.

        Args:
          input_matrix: x, shape [rows, columns] or [matrices, rows, columns]; float32, float16, bfloat16 or
            float64.
          bias_vector: shape [length], at least as long as the region has columns, or [vectors, length], one
            vector for each matrix of x; None for no bias.
          result_matrix: an array with x's number of axes and room for the region; None for a new one.

        Returns:
          result_matrix, in its own dtype, with y written to the region at result_matrix_origin. Without a
          result_matrix, y alone: shape [rows, columns] or [batch size, rows, columns], in x's dtype.

        Raises:
          TypeError: as `jax_mps_neuron.neuron`.
          ValueError: as `jax_mps_neuron.neuron`, and if a region does not fit or PReLU's slopes do not
            match its columns.
        """
        with self._scope():
            x = self._matrix("input_matrix", input_matrix, "source_matrix_origin")
            batch = self._batch(x)
            rows = self._shared("source_number_of_feature_vectors", (x, "rows"))
            channels = self._shared("source_input_feature_channels", (x, "columns"))
            self._require_slopes(channels)
            bias = self._vector("bias_vector", bias_vector, batch, channels, x)

            def activate(x: Array, bias: Array | None) -> Array:
                return neuron(x, self.neuron, bias, alpha=self.alpha)

            apart = bias is not None and bias.ndim == 2
            y = by_matrix(activate, (read(x, batch, rows, channels), 2), (bias, 1), apart=apart)
            return write("result_matrix", result_matrix, batch, self.result_matrix_origin, y)


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MatrixNeuronGradient(NeuronKernel, BinaryKernel):
    """The gradient of a `MatrixNeuron`, as MPSMatrixNeuronGradient (MPSMatrixNeuron.h) defines it.

    With z = alpha * x + bias, the data gradient is alpha * f'(z) * gradient, and the bias gradient is the
    sum of f'(z) * gradient over the rows.

    Args:
      neuron: the type f and its parameters; NONE by default.
      label: a name for profiles.
      alpha: a real scalar.
      source_number_of_feature_vectors: the most rows to read; None for all rows.
      source_input_feature_channels: the most columns to read; None for all columns.
      primary_source_matrix_origin: the (row, column) where the region of the incoming gradient starts.
      secondary_source_matrix_origin: the (row, column) where the region of x starts.
      result_matrix_origin: the (row, column) where the region of the data gradient starts.
      batch_start: the first matrix of [matrices, rows, columns].
      batch_size: the number of matrices; None for all matrices from batch_start.

    Raises:
      TypeError: as `MatrixNeuron`.
      ValueError: as `MatrixNeuron`.

    Example:
      >>> kernel = MatrixNeuronGradient(Neuron.relu(0.1))
      >>> kernel.encode(jnp.ones((2, 2)), jnp.array([[1.0, -1.0], [2.0, 3.0]]), jnp.zeros(2)).bias
      Array([2. , 1.1], dtype=float32)
    """

    def encode(
        self,
        gradient_matrix: ArrayLike,
        input_matrix: ArrayLike,
        bias_vector: ArrayLike | None = None,
        result_gradient_for_data_matrix: ArrayLike | None = None,
        result_gradient_for_bias_vector: ArrayLike | None = None,
    ) -> NeuronGradient:
        """Computes the gradients in one call.

        Args:
          gradient_matrix: the gradient with respect to y, shape [rows, columns] or [matrices, rows,
            columns].
          input_matrix: x, an array with as many axes. Its region has the same size, from its own origin.
          bias_vector: as in `MatrixNeuron.encode`.
          result_gradient_for_data_matrix: an array with as many axes and room for the region; None for a
            new one.
          result_gradient_for_bias_vector: shape [length], at least as long as the region has columns, or
            [vectors, length], one vector for each matrix; None for a new array with the bias's axes.

        Returns:
          NeuronGradient(data, bias, a). data is the given result with the gradient written at
          result_matrix_origin, and bias the given vector with the gradient written to its first elements.
          Without given results, they are the gradients alone, in the dtypes of x and bias. A bias gradient
          of shape [length] is the sum over all matrices; it is None without a bias and a result for it. a,
          which Apple's kernel does not have, is the gradient of PReLU's slopes over all matrices, in their
          shape and dtype; None for other types.

        Raises:
          TypeError: as `jax_mps_neuron.neuron_gradient`.
          ValueError: as `jax_mps_neuron.neuron_gradient`, and if a region does not fit, the two regions
            differ in size, or PReLU's slopes do not match their columns.
        """
        with self._scope():
            gradient = self._matrix("gradient_matrix", gradient_matrix, "primary_source_matrix_origin")
            x = self._matrix("input_matrix", input_matrix, "secondary_source_matrix_origin")
            batch = self._batch(gradient, x)
            rows = self._shared("source_number_of_feature_vectors", (gradient, "rows"), (x, "rows"))
            channels = self._shared("source_input_feature_channels", (gradient, "columns"), (x, "columns"))
            self._require_slopes(channels)
            of_bias, of_data = "result_gradient_for_bias_vector", "result_gradient_for_data_matrix"
            bias = self._vector("bias_vector", bias_vector, batch, channels, x)
            sums = self._vector(of_bias, result_gradient_for_bias_vector, batch, channels, x)
            data, d_bias, d_slopes = self._gradients(
                read(gradient, batch, rows, channels), read(x, batch, rows, channels), bias, sums
            )
            origin = self.result_matrix_origin
            data = write(of_data, result_gradient_for_data_matrix, batch, origin, data)
            if d_bias is not None:
                d_bias = write(of_bias, result_gradient_for_bias_vector, batch, (0,), d_bias)
            return NeuronGradient(data, d_bias, d_slopes)

    def _gradients(
        self, gradient: Array, x: Array, bias: Array | None, sums: Array | None
    ) -> NeuronGradient:
        """The gradients of a region. The bias gradient gets the shape and dtype of `sums`, or of bias."""
        if sums is None:
            sums = bias
        elif bias is None:
            bias = jnp.zeros(x.shape[-1:], sums.dtype)
        if bias is None or sums is None:
            return neuron_gradient(gradient, x, self.neuron, alpha=self.alpha)
        # Sums over rows and then over matrices are rounded once, at the end.
        wide = jnp.result_type(gradient, x, jnp.float32)
        neuron = self.neuron
        if neuron.type is NeuronType.PRELU:
            neuron = Neuron.prelu(jnp.asarray(neuron.a, wide))

        def backward(gradient: Array, x: Array, bias: Array) -> NeuronGradient:
            return neuron_gradient(gradient, x, neuron, bias, alpha=self.alpha)

        apart = bias.ndim == 2 or sums.ndim == 2
        operands = (gradient, 2), (x, 2), (bias.astype(wide), 1)
        data, d_bias, d_slopes = by_matrix(backward, *operands, apart=apart)
        return NeuronGradient(data, _over_matrices(d_bias, sums), _over_matrices(d_slopes, self.neuron.a))


def _over_matrices(sums: Array | None, like: ArrayLike | None) -> Array | None:
    """Gradients of each matrix, added up over the matrices that share a value, in the value's dtype."""
    if sums is None:
        return None
    like = jnp.asarray(like)
    return sums.sum(tuple(range(sums.ndim - like.ndim))).astype(like.dtype)
