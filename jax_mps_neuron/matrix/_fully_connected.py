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
from ._region import Batch, Matrix, by_matrix, read, read_vector, write

__all__ = ["MatrixFullyConnected", "MatrixFullyConnectedGradient", "WeightsAndBiasGradient"]

D = TypeVar("D", bound="_DenseKernel")


class WeightsAndBiasGradient(NamedTuple):
    """The gradients that `MatrixFullyConnectedGradient.encode_for_weights_and_bias` computes.

    Attributes:
      weights: with respect to W, shape [input channels, output channels], or one for each matrix.
      bias: with respect to the bias, shape [output channels], or one for each matrix.
    """

    weights: Array
    bias: Array


@dataclasses.dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class _DenseKernel(BinaryKernel):
    """What the layer and its gradient share."""

    source_output_feature_channels: int | None = dataclasses.field(default=None, metadata=SIZE)

    def set_source_output_feature_channels(self: D, count: int | None) -> D:
        """Returns this kernel for at most `count` output channels; None for all from the origin."""
        return dataclasses.replace(self, source_output_feature_channels=count)

    def _batch_with_weights(self, source: Matrix, weights: Matrix) -> Batch | None:
        """The batch of a source, which shares weights of two axes."""
        return self._batch(source) if weights.array.ndim == 2 else self._batch(source, weights)


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MatrixFullyConnected(NeuronKernel, _DenseKernel):
    """y = f(alpha * x W + bias) on regions of matrices, as MPSMatrixFullyConnected.h defines it.

    The region of x starts at primary_source_matrix_origin, and has source_number_of_feature_vectors rows
    and source_input_feature_channels columns. The region of W starts at secondary_source_matrix_origin, and
    has source_input_feature_channels rows and source_output_feature_channels columns. Regions are smaller
    if their matrix ends before.

    Args:
      neuron: the type f and its parameters; NONE by default.
      label: a name for profiles.
      alpha: a real scalar, which scales the product.
      source_number_of_feature_vectors: the most rows of x to read; None for all rows.
      source_input_feature_channels: the most columns of x and rows of W to read; None for all, which must
        be the same number in both.
      source_output_feature_channels: the most columns of W to read; None for all columns.
      primary_source_matrix_origin: the (row, column) where the region of x starts.
      secondary_source_matrix_origin: the (row, column) where the region of W starts.
      result_matrix_origin: the (row, column) where the region of the result starts.
      batch_start: the first matrix of [matrices, rows, columns].
      batch_size: the number of matrices; None for all matrices from batch_start.

    Raises:
      TypeError: as `MatrixNeuron`.
      ValueError: as `MatrixNeuron`.

    Example:
      >>> kernel = MatrixFullyConnected(Neuron.relu(), alpha=0.5)
      >>> kernel.encode(jnp.array([[1.0, 2.0]]), jnp.array([[1.0, -1.0], [2.0, 1.0]]))
      Array([[2.5, 0.5]], dtype=float32)
    """

    def encode(
        self,
        input_matrix: ArrayLike,
        weight_matrix: ArrayLike,
        bias_vector: ArrayLike | None = None,
        result_matrix: ArrayLike | None = None,
    ) -> Array:
        """Computes y. `jax_mps_neuron.fully_connected` describes its dtypes and its gradient.

        Args:
          input_matrix: x, shape [rows, input channels] or [matrices, rows, input channels]; float32,
            float16, bfloat16 or float64.
          weight_matrix: W, shape [input channels, output channels], shared by the matrices of x, or
            [matrices, input channels, output channels].
          bias_vector: shape [length], at least as long as there are output channels, or [vectors, length],
            one vector for each matrix of x; None for no bias.
          result_matrix: an array with x's number of axes and room for the region; None for a new one.

        Returns:
          result_matrix, in its own dtype, with y written to the region at result_matrix_origin. Without a
          result_matrix, y alone: shape [rows, output channels] or [batch size, rows, output channels], in
          x's dtype.

        Raises:
          TypeError: as `jax_mps_neuron.fully_connected`.
          ValueError: as `jax_mps_neuron.fully_connected`, and if a region does not fit, the rows of W's
            region do not match the columns of x's, or PReLU's slopes do not match the output channels.
        """
        with self._scope():
            x = self._matrix("input_matrix", input_matrix, "primary_source_matrix_origin")
            w = self._matrix("weight_matrix", weight_matrix, "secondary_source_matrix_origin")
            batch = self._batch_with_weights(x, w)
            rows = self._shared("source_number_of_feature_vectors", (x, "rows"))
            inputs = self._shared("source_input_feature_channels", (x, "columns"), (w, "rows"))
            outputs = self._shared("source_output_feature_channels", (w, "columns"))
            self._require_slopes(outputs)
            bias = self._vector("bias_vector", bias_vector, batch, outputs, w)

            def layer(x: Array, w: Array, bias: Array | None) -> Array:
                return fully_connected(x, w, self.neuron, bias, self.alpha)

            apart = w.array.ndim == 3 or (bias is not None and bias.ndim == 2)
            operands = (read(x, batch, rows, inputs), 2), (read(w, batch, inputs, outputs), 2), (bias, 1)
            y = by_matrix(layer, *operands, apart=apart)
            return write("result_matrix", result_matrix, batch, self.result_matrix_origin, y)


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MatrixFullyConnectedGradient(_DenseKernel):
    """The gradients of a `MatrixFullyConnected` of type NONE, as MPSMatrixFullyConnected.h defines them.

    For another neuron, `MatrixNeuronGradient` first turns the gradient with respect to y into the gradient
    that this kernel takes.

    Args:
      label: a name for profiles.
      alpha: a real scalar, the alpha of the `MatrixFullyConnected`.
      source_number_of_feature_vectors: the most rows of the incoming gradient and of x to read; None for
        all rows.
      source_input_feature_channels: the most columns of x or rows of W to read; None for all.
      source_output_feature_channels: the most columns of the incoming gradient and of W to read; None for
        all columns.
      primary_source_matrix_origin: the (row, column) where the region of the incoming gradient starts.
      secondary_source_matrix_origin: the (row, column) where the region of W or x starts.
      result_matrix_origin: the (row, column) where the region of the result starts.
      batch_start: the first matrix of [matrices, rows, columns].
      batch_size: the number of matrices; None for all matrices from batch_start.

    Raises:
      TypeError: as `MatrixNeuron`.
      ValueError: as `MatrixNeuron`.

    Example:
      >>> kernel = MatrixFullyConnectedGradient(alpha=0.5)
      >>> gradient, x, weights = jnp.ones((1, 2)), jnp.array([[4.0]]), jnp.array([[1.0, 3.0]])
      >>> kernel.encode_for_data(gradient, weights)
      Array([[2.]], dtype=float32)
      >>> kernel.encode_for_weights_and_bias(gradient, x).weights
      Array([[2., 2.]], dtype=float32)
    """

    def encode_for_data(
        self,
        gradient_matrix: ArrayLike,
        weight_matrix: ArrayLike,
        result_gradient_for_data_matrix: ArrayLike | None = None,
    ) -> Array:
        """Computes the data gradient, alpha * gradient W^T.

        Args:
          gradient_matrix: the gradient with respect to the layer's result, shape [rows, output channels] or
            [matrices, rows, output channels]; float32, float16, bfloat16 or float64.
          weight_matrix: W, shape [input channels, output channels], shared by the matrices of the gradient,
            or [matrices, input channels, output channels].
          result_gradient_for_data_matrix: an array with the gradient's number of axes and room for the
            region; None for a new one.

        Returns:
          The given result, in its own dtype, with the data gradient written to the region at
          result_matrix_origin. Without a given result, the data gradient alone: shape [rows, input
          channels] or [batch size, rows, input channels], in the dtype to which gradient and W promote.

        Raises:
          TypeError: a matrix does not have a floating dtype, or alpha is not real.
          ValueError: a region does not fit, the columns of W's region do not match the gradient's, or alpha
            is not a scalar.
        """
        with self._scope():
            gradient = self._matrix("gradient_matrix", gradient_matrix, "primary_source_matrix_origin")
            w = self._matrix("weight_matrix", weight_matrix, "secondary_source_matrix_origin")
            batch = self._batch_with_weights(gradient, w)
            rows = self._shared("source_number_of_feature_vectors", (gradient, "rows"))
            outputs = self._shared("source_output_feature_channels", (gradient, "columns"), (w, "columns"))
            inputs = self._shared("source_input_feature_channels", (w, "rows"))
            g, of_w = read(gradient, batch, rows, outputs), read(w, batch, inputs, outputs)
            name, result = "result_gradient_for_data_matrix", result_gradient_for_data_matrix
            data = self._product("...ro,...io->...ri", g, of_w, result)
            return write(name, result, batch, self.result_matrix_origin, data)

    def encode_for_weights_and_bias(
        self,
        gradient_matrix: ArrayLike,
        input_matrix: ArrayLike,
        result_gradient_for_weight_matrix: ArrayLike | None = None,
        result_gradient_for_bias_vector: ArrayLike | None = None,
    ) -> WeightsAndBiasGradient:
        """Computes the gradient of W, alpha * x^T gradient, and of the bias, the sum over the rows.

        Args:
          gradient_matrix: as in `encode_for_data`.
          input_matrix: x, an array with the gradient's number of axes. Its region has as many rows.
          result_gradient_for_weight_matrix: an array with room for [input channels, output channels] or
            [matrices, input channels, output channels]; None for a new one, with a matrix for each matrix
            of x. If it has two axes and x has three, it gets the sum over the matrices.
          result_gradient_for_bias_vector: shape [length], at least as long as there are output channels,
            for the sum over all matrices, or [vectors, length], one vector for each matrix; None for a new
            one, with a vector for each matrix of x.

        Returns:
          The given results, in their own dtypes, with the gradient of W written to the region at
          result_matrix_origin and the bias gradient to the first elements. Without given results, the
          gradients alone: weights in the dtype to which gradient and x promote, bias in the gradient's
          dtype.

        Raises:
          TypeError: a matrix does not have a floating dtype, or alpha is not real.
          ValueError: a region does not fit, the rows of x's region do not match the gradient's, or alpha is
            not a scalar.
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
        """alpha times a product, rounded once: to the result's dtype, or to the dtype of both factors."""
        both = jnp.result_type(left, right)
        wide = jnp.result_type(both, jnp.float32)
        alpha = scalar("alpha", self.alpha, NeuronType.NONE, wide)
        product = jnp.einsum(equation, left.astype(both), right.astype(both), preferred_element_type=wide)
        return (alpha * product).astype(both if result is None else jnp.asarray(result).dtype)
