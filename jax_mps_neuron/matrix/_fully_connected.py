"""MatrixFullyConnected and MatrixFullyConnectedGradient."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from .._core.arguments import floating, scalar
from .._core.descriptor import NeuronType
from .._ops.dense import fully_connected
from ._base import SIZE, BinaryKernel, NeuronKernel
from ._region import read, read_vector, write

__all__ = ["MatrixFullyConnected", "MatrixFullyConnectedGradient", "WeightsAndBiasGradient"]

D = TypeVar("D", bound="_DenseKernel")


class WeightsAndBiasGradient(NamedTuple):
    """What `MatrixFullyConnectedGradient.encode_for_weights_and_bias` computes.

    Attributes:
      weights: the gradient of the weights, [input channels, output channels] or one for each matrix.
      bias: the gradient of the bias, [output channels] or one for each matrix.
    """

    weights: Array
    bias: Array


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _DenseKernel(BinaryKernel):
    source_output_feature_channels: int | None = dataclasses.field(default=None, metadata=SIZE)

    def set_source_output_feature_channels(self: D, count: int | None) -> D:
        """This kernel for at most so many output channels; None for all that there are from the origin."""
        return dataclasses.replace(self, source_output_feature_channels=count)


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MatrixFullyConnected(NeuronKernel, _DenseKernel):
    """y = neuron(alpha * x W + bias) on regions of matrices, as MPSMatrixFullyConnected.h defines it.

    The region of x has min(source_number_of_feature_vectors, rows from primary_source_matrix_origin) rows
    and min(source_input_feature_channels, columns from there) columns, that of W as many rows from
    secondary_source_matrix_origin and min(source_output_feature_channels, columns from there) columns.

    Args:
      neuron: the neuron; NONE to begin with.
      label: a name for profiles.
      alpha: a real scalar, which scales the product.
      source_number_of_feature_vectors: at most so many rows of x; None for all.
      source_input_feature_channels: at most so many columns of x and rows of W; None for all, of which both
        have to have as many.
      source_output_feature_channels: at most so many columns of W; None for all.
      primary_source_matrix_origin: the (row, column) of x from which it reads.
      secondary_source_matrix_origin: the same of W.
      result_matrix_origin: the (row, column) of the result from which it writes.
      batch_start: the first matrix of [matrices, rows, columns].
      batch_size: how many matrices; None for all from there.

    Raises:
      TypeError: as `MatrixNeuron`.
      ValueError: as `MatrixNeuron`.
    """

    def encode(
        self,
        input_matrix: ArrayLike,
        weight_matrix: ArrayLike,
        bias_vector: ArrayLike | None = None,
        result_matrix: ArrayLike | None = None,
    ) -> Array:
        """Computes y; see `jax_mps_neuron.fully_connected` for its dtypes and its gradient.

        Args:
          input_matrix: x, of shape [rows, input channels] or [matrices, rows, input channels]; float32,
            float16, bfloat16 or float64.
          weight_matrix: W, of shape [input channels, output channels], which the matrices of x share, or
            [matrices, input channels, output channels].
          bias_vector: shape [length], of at least the output channels, or [vectors, length], one for each
            matrix of the input; None for no bias.
          result_matrix: of as many axes as the input, with room for the region; None for a new one.

        Returns:
          result_matrix with y in the region from result_matrix_origin, and nothing else changed, in its
          dtype. Without a result_matrix the region alone, [rows, output channels] or [batch size, rows,
          output channels], in x's dtype.

        Raises:
          TypeError: as `jax_mps_neuron.fully_connected`.
          ValueError: as that, and if a region does not fit, W's has not a row for each channel of x's, or
            PReLU's slopes are not as many as the output channels.
        """
        with self._scope():
            x = self._matrix("input_matrix", input_matrix, "primary_source_matrix_origin")
            w = self._matrix("weight_matrix", weight_matrix, "secondary_source_matrix_origin")
            batch = self._batch(x) if w.array.ndim == 2 else self._batch(x, w)
            rows = self._shared("source_number_of_feature_vectors", (x, "rows"))
            inputs = self._shared("source_input_feature_channels", (x, "columns"), (w, "rows"))
            outputs = self._shared("source_output_feature_channels", (w, "columns"))
            self._require_slopes(outputs)
            bias = None
            if bias_vector is not None:
                bias = read_vector("bias_vector", bias_vector, batch, outputs, w.name)
            operands = read(x, batch, rows, inputs), read(w, batch, inputs, outputs), bias

            def layer(x: Array, w: Array, bias: Array | None) -> Array:
                return fully_connected(x, w, self.neuron, bias, self.alpha)

            by_weights = 0 if w.array.ndim == 3 else None
            by_bias = 0 if bias is not None and bias.ndim == 2 else None
            if by_weights is None and by_bias is None:
                y = layer(*operands)
            else:
                y = jax.vmap(layer, (0, by_weights, by_bias))(*operands)
            return write("result_matrix", result_matrix, batch, self.result_matrix_origin, y)


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MatrixFullyConnectedGradient(_DenseKernel):
    """The gradients of a `MatrixFullyConnected` whose neuron is NONE, as MPSMatrixFullyConnected.h defines
    them.

    That of a neuron is `MatrixNeuronGradient`'s: it turns the gradient of the layer's result into the one
    that this kernel takes.

    Args:
      label: a name for profiles.
      alpha: a real scalar, the forward kernel's.
      source_number_of_feature_vectors: at most so many rows of the incoming gradient and of x; None for
        all.
      source_input_feature_channels: at most so many columns of x and rows of W; None for all.
      source_output_feature_channels: at most so many columns of the incoming gradient and of W; None for
        all.
      primary_source_matrix_origin: the (row, column) of the incoming gradient from which it reads.
      secondary_source_matrix_origin: the same of W or of x.
      result_matrix_origin: the (row, column) of the result matrix from which it writes.
      batch_start: the first matrix of [matrices, rows, columns].
      batch_size: how many matrices; None for all from there.

    Raises:
      TypeError: as `MatrixNeuron`.
      ValueError: as `MatrixNeuron`.
    """

    def encode_for_data(
        self,
        gradient_matrix: ArrayLike,
        weight_matrix: ArrayLike,
        result_gradient_for_data_matrix: ArrayLike | None = None,
    ) -> Array:
        """Computes the gradient of x: alpha * gradient W^T.

        Args:
          gradient_matrix: the gradient with respect to the layer's result, of shape [rows, output channels]
            or [matrices, rows, output channels]; float32, float16, bfloat16 or float64.
          weight_matrix: W, of shape [input channels, output channels], which the matrices of the gradient
            share, or [matrices, input channels, output channels].
          result_gradient_for_data_matrix: of as many axes as the gradient, with room for the region; None
            for a new one.

        Returns:
          The result with [rows, input channels] from result_matrix_origin written, and nothing else
          changed, in its dtype. Without a result what would be written, in the dtype that holds the
          gradient's and W's.

        Raises:
          TypeError: a matrix is not of a floating dtype.
          ValueError: a region does not fit, or W's has not a column for each one of the gradient's.
        """
        with self._scope():
            gradient = self._matrix("gradient_matrix", gradient_matrix, "primary_source_matrix_origin")
            w = self._matrix("weight_matrix", weight_matrix, "secondary_source_matrix_origin")
            batch = self._batch(gradient) if w.array.ndim == 2 else self._batch(gradient, w)
            rows = self._shared(
                "source_number_of_feature_vectors",
                (gradient, "rows"),
            )
            outputs = self._shared("source_output_feature_channels", (gradient, "columns"), (w, "columns"))
            inputs = self._shared("source_input_feature_channels", (w, "rows"))
            data = self._product(
                "...ro,...io->...ri",
                read(gradient, batch, rows, outputs),
                read(w, batch, inputs, outputs),
                result_gradient_for_data_matrix,
            )
            return write(
                "result_gradient_for_data_matrix",
                result_gradient_for_data_matrix,
                batch,
                self.result_matrix_origin,
                data,
            )

    def encode_for_weights_and_bias(
        self,
        gradient_matrix: ArrayLike,
        input_matrix: ArrayLike,
        result_gradient_for_weight_matrix: ArrayLike | None = None,
        result_gradient_for_bias_vector: ArrayLike | None = None,
    ) -> WeightsAndBiasGradient:
        """Computes the gradients of W, alpha * x^T gradient, and of the bias, the sum of gradient over
        rows.

        Args:
          gradient_matrix: as in `encode_for_data`.
          input_matrix: x, of as many axes, with as many rows in its region.
          result_gradient_for_weight_matrix: with room for [input channels, output channels]; of two axes
            beside [matrices, rows, columns] it is that of weights which all matrices share. None for a new
            one, with a matrix for each of the batch.
          result_gradient_for_bias_vector: shape [length], at least the output channels, the sum over all
            matrices, or [vectors, length], one for each matrix; None for a new one, with a vector for each
            of the batch.

        Returns:
          The results with [input channels, output channels] from result_matrix_origin and the first
          elements written, and nothing else changed, in their dtypes. Where none is given, what would be
          written, in the dtype that holds the gradient's and x's, and for the bias the gradient's.

        Raises:
          TypeError: a matrix is not of a floating dtype.
          ValueError: a region does not fit, or x's has not a row for each one of the gradient's.
        """
        with self._scope():
            gradient = self._matrix("gradient_matrix", gradient_matrix, "primary_source_matrix_origin")
            x = self._matrix("input_matrix", input_matrix, "secondary_source_matrix_origin")
            batch = self._batch(gradient, x)
            rows = self._shared("source_number_of_feature_vectors", (gradient, "rows"), (x, "rows"))
            outputs = self._shared("source_output_feature_channels", (gradient, "columns"))
            inputs = self._shared("source_input_feature_channels", (x, "columns"))
            g, of_x = read(gradient, batch, rows, outputs), read(x, batch, rows, inputs)

            name, result = "result_gradient_for_weight_matrix", result_gradient_for_weight_matrix
            shared = batch is not None and result is not None and floating(name, result).ndim == 2
            weights = self._product("mri,mro->io" if shared else "...ri,...ro->...io", of_x, g, result)
            weights = write(name, result, batch, self.result_matrix_origin, weights)

            name, result = "result_gradient_for_bias_vector", result_gradient_for_bias_vector
            kept, dtype = g.ndim - 2, g.dtype
            if result is not None:
                sums = read_vector(name, result, batch, outputs, gradient.name)
                kept, dtype = sums.ndim - 1, sums.dtype
            over = tuple(range(kept, g.ndim - 1))
            bias = g.sum(over, dtype=jnp.result_type(g, jnp.float32)).astype(dtype)
            return WeightsAndBiasGradient(weights, write(name, result, batch, (0,), bias))

    def _product(self, equation: str, left: Array, right: Array, result: ArrayLike | None) -> Array:
        """alpha times a product, rounded once: to the result's dtype, or to that which holds both."""
        both = jnp.result_type(left, right)
        wide = jnp.result_type(both, jnp.float32)
        alpha = scalar("alpha", self.alpha, NeuronType.NONE, wide)
        product = jnp.einsum(equation, left.astype(both), right.astype(both), preferred_element_type=wide)
        return (alpha * product).astype(both if result is None else jnp.asarray(result).dtype)
