"""An Apple GPU, and the kernels run on it through PyObjC's Metal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import numpy as np

from ..descriptor import Neuron, NeuronType
from ..operands import Operands, prepare, prepare_gradient, require_array
from ..reference import NeuronGradient
from .bindings import Memory, MetalError, bindings, words
from .kernel import DTYPES, SUM_NAME, Kernel, launch_for
from .pipelines import Pipelines

__all__ = ["Device", "MetalError", "default_device", "execute", "problem"]


def problem() -> str:
    """Why there is no Apple GPU to run on; empty if there is one."""
    try:
        default_device()
    except MetalError as error:
        return str(error)
    return ""


@cache
def default_device() -> Device:
    """The system's default GPU, the same `Device` each time. Raises `MetalError` where there is none."""
    return Device()


def execute(name: str, operands: Sequence[np.ndarray], **parameters: Any) -> list[np.ndarray]:
    """`Device.execute` on the default GPU."""
    return default_device().execute(name, operands, **parameters)


class Device:
    """An Apple GPU.

    Each kernel is compiled once, when first used. NumPy arrays are used where they lie if they begin at a
    page of memory and fill whole pages, as large arrays often do; others are copied. Results are new arrays
    in memory that the GPU shares. Every call waits until the GPU is done. Threads may share a device.

    Args:
      device: an `MTLDevice`; None for the system's default.

    Attributes:
      name: what Metal calls the GPU.
      handle: the `MTLDevice`.
      queue: its `MTLCommandQueue`.
      memory: its buffers.
      pool: makes the autorelease pool in which all of this is used.

    Raises:
      MetalError: PyObjC's Metal is not installed, the system has none, or there is no GPU.
    """

    def __init__(self, device: Any = None):
        self._metal, self._objc = bindings()
        self.handle = self._metal.MTLCreateSystemDefaultDevice() if device is None else device
        if self.handle is None:
            raise MetalError("Metal finds no GPU: MTLCreateSystemDefaultDevice() returns none")
        self.name = str(self.handle.name())
        self.queue = self.handle.newCommandQueue()
        if self.queue is None:
            raise MetalError(f"{self.name} gives no command queue")
        self.memory = Memory(self.handle, self.name)
        self.pool = self._objc.autorelease_pool
        self._pipelines = Pipelines(self.handle, self.name)

    # What users call

    def neuron(self, x: Any, neuron: Neuron, bias: Any = None, *, alpha: float = 1.0) -> np.ndarray:
        """y = f(alpha * x + bias), as `jax_mps_neuron.neuron`, on NumPy arrays.

        Args:
          x: shape [..., channels]; float32, float16 or bfloat16.
          neuron: the type and its parameters.
          bias: shape [channels], or None.
          alpha: a number.

        Returns:
          y, of x's shape and dtype.

        Raises:
          TypeError: as `jax_mps_neuron.neuron`, and for another dtype.
          ValueError: as `jax_mps_neuron.neuron`.
          MetalError: the kernel did not compile or did not run.
        """
        require_array("x", x)  # jit would look inside of a list
        checked = jax.eval_shape(_check, x, neuron, bias, alpha)  # once for each signature
        operands = _operands(np.asarray(x, checked.x.dtype), neuron, bias, alpha)
        return self.execute("neuron", operands, kind=neuron.type)[0]

    def neuron_gradient(
        self, gradient: Any, x: Any, neuron: Neuron, bias: Any = None, *, alpha: float = 1.0
    ) -> NeuronGradient:
        """The gradient, as `jax_mps_neuron.neuron_gradient`, on NumPy arrays.

        Args:
          gradient: with respect to y; x's shape.
          x: shape [..., channels]; float32, float16 or bfloat16.
          neuron: the type and its parameters.
          bias: shape [channels], or None.
          alpha: a number.

        Returns:
          The three gradients as NumPy arrays.

        Raises:
          TypeError: as `jax_mps_neuron.neuron_gradient`, and for another dtype.
          ValueError: as `jax_mps_neuron.neuron_gradient`.
          MetalError: the kernel did not compile or did not run.
        """
        require_array("gradient", gradient)
        require_array("x", x)
        checked = jax.eval_shape(_check_gradient, gradient, x, neuron, bias, alpha)
        dtype = checked.x.dtype  # of gradient and x, that which holds both
        data, *sums = self.execute(
            "neuron_gradient",
            [np.asarray(gradient, dtype), *_operands(np.asarray(x, dtype), neuron, bias, alpha)],
            kind=neuron.type,
            bias_gradient=bias is not None,
            slope_gradient=neuron.type is NeuronType.PRELU,
        )
        of_bias = None if bias is None else _as(sums.pop(0), bias)
        of_slope = _as(sums.pop(0), neuron.a) if sums else None
        return NeuronGradient(_as(data, x), of_bias, of_slope)

    # What JAX's side calls

    def execute(
        self,
        name: str,
        operands: Sequence[np.ndarray],
        *,
        kind: NeuronType,
        matrix_axes: int = 0,
        bias_gradient: bool = False,
        slope_gradient: bool = False,
        from_y: bool = False,
    ) -> list[np.ndarray]:
        """Runs what a primitive stands for: one launch, and a second for sums of several strips.

        Args:
          name: "neuron" or "neuron_gradient".
          operands: the primitive's, in its order.
          kind: the neuron type.
          matrix_axes: how many leading axes number matrices.
          bias_gradient: whether the bias gradient is among the results.
          slope_gradient: whether the slope gradient is.
          from_y: whether y stands in x's place.

        Returns:
          The primitive's results.

        Raises:
          TypeError: a dtype that the kernels do not have.
          MetalError: the kernel did not compile or did not run.
        """
        arrays = 1 if name == "neuron" else 2
        x = operands[arrays - 1]
        if x.dtype.name not in DTYPES:
            raise TypeError(f"x has dtype {x.dtype}; on Metal it may be one of {', '.join(DTYPES)}")
        vectors = list(operands[arrays + 1 :])
        slope = vectors.pop() if kind is NeuronType.PRELU else None
        bias = vectors.pop() if vectors else None
        flags = (bias is not None, bias_gradient, slope_gradient, from_y)
        kernel = Kernel(kind, x.dtype.name, arrays == 1, *flags)
        matrices = np.broadcast_shapes(*(o.shape[:matrix_axes] for o in operands))
        shape = x.shape[matrix_axes:]
        channels = shape[-1] if shape else 1
        count, rows = _product(matrices), _product(shape[:-1])
        sums = bias_gradient + slope_gradient
        if not count * rows * channels:
            y = np.zeros((*matrices, *shape), x.dtype)
            return [y] + [np.zeros((*matrices, *shape[-1:]), np.float32) for _ in range(sums)]
        sizes = {
            **dict.fromkeys(("gradient", "x")[2 - arrays :], rows * channels),
            "scalars": 4,
            "bias": channels,
            "slope": channels,
        }
        named = dict(zip(sizes, [*operands[: arrays + 1], bias, slope], strict=True))
        merged = {n: _merge(o, matrices, sizes[n], matrix_axes) for n, o in named.items() if o is not None}
        shared = tuple(n for n, o in merged.items() if len(o) == 1)
        y, *totals = self._launch(kernel, merged, (count, rows, channels), shared)
        return [y.reshape(matrices + shape), *(t.reshape(matrices + shape[-1:]) for t in totals)]

    def _launch(
        self,
        kernel: Kernel,
        operands: dict[str, np.ndarray],
        sizes: tuple[int, int, int],
        shared: tuple[str, ...],
    ) -> list[np.ndarray]:
        """Launches a kernel on operands of [1 or matrices, elements]; its results, flat."""
        matrices, rows, channels = sizes
        launch = launch_for(kernel, matrices, rows, channels, shared=shared)
        with self.pool():
            pipelines = self._pipelines.of(kernel)
            x = operands["x"]
            names = [*([] if kernel.forward else ["gradient"]), "x", "scalars", "bias", "slope"]
            buffers = [self.memory.of(n, operands[n]) if n in operands else None for n in names]
            y = self.memory.new("the result", matrices * rows * channels, x.dtype)
            f32 = np.dtype(np.float32)
            partials = [
                self.memory.new("the partial sums", launch.partials, f32) if wanted else None
                for wanted in (kernel.bias_gradient, kernel.slope_gradient)
            ]
            wanted = [partial for partial in partials if partial is not None]
            sums = wanted
            if launch.strips > 1:
                sums = [self.memory.new("the sums", matrices * channels, f32) for _ in wanted]
            buffers += [y.buffer] + ([] if kernel.forward else [p and p.buffer for p in partials])
            commands = self.queue.commandBuffer()
            encoder = commands.computeCommandEncoder()
            try:
                self._dispatch(
                    encoder, pipelines[kernel.name], buffers, launch.constants, launch.grid, launch.threads
                )
                if launch.strips > 1:
                    for partial, total in zip(wanted, sums, strict=True):
                        self._dispatch(
                            encoder,
                            pipelines[SUM_NAME],
                            [partial.buffer, total.buffer],
                            launch.constants,
                            launch.sum_grid,
                            launch.sum_threads,
                        )
            finally:  # Metal ends the process over an encoder that is let go before it is ended.
                encoder.endEncoding()
            commands.commit()
            commands.waitUntilCompleted()
            if commands.status() != self._metal.MTLCommandBufferStatusCompleted:
                raise MetalError(f"{kernel.name} failed on {self.name}: {words(commands.error())}")
        return [y.array(), *(total.array() for total in sums)]

    def _dispatch(
        self,
        encoder: Any,
        pipeline: Any,
        buffers: list[Any],
        constants: bytes,
        grid: tuple[int, int, int],
        threads: tuple[int, int, int],
    ) -> None:
        encoder.setComputePipelineState_(pipeline)
        for index, buffer in enumerate(buffers):
            if buffer is not None:
                encoder.setBuffer_offset_atIndex_(buffer, 0, index)
        encoder.setBytes_length_atIndex_(constants, len(constants), len(buffers))
        size = self._metal.MTLSizeMake
        encoder.dispatchThreadgroups_threadsPerThreadgroup_(size(*grid), size(*threads))


# Operands


@jax.jit
def _check(x: Any, neuron: Neuron, bias: Any, alpha: Any) -> Operands:
    return prepare(x, neuron, bias, alpha)[1]


@jax.jit
def _check_gradient(gradient: Any, x: Any, neuron: Neuron, bias: Any, alpha: Any) -> Operands:
    return prepare_gradient(gradient, x, neuron, bias, alpha)[2]


def _as(array: np.ndarray, like: Any) -> Any:
    """In the dtype that JAX gives another array."""
    return array.astype(jax.dtypes.canonicalize_dtype(np.asarray(like).dtype), copy=False)


def _operands(x: np.ndarray, neuron: Neuron, bias: Any, alpha: Any) -> list[np.ndarray]:
    """x, scalars, [bias], [slope] of checked arguments, as the primitives have them."""
    prelu = neuron.type is NeuronType.PRELU
    a = 0.0 if prelu else neuron.a
    operands = [x, np.asarray([alpha, a, neuron.b, neuron.c], np.float32)]
    operands += [np.asarray(v, np.float32) for v in (bias, neuron.a if prelu else None) if v is not None]
    return operands


def _product(sizes: Sequence[int]) -> int:
    return int(np.prod(sizes, dtype=np.int64))


def _merge(operand: np.ndarray, matrices: tuple[int, ...], size: int, matrix_axes: int) -> np.ndarray:
    """[1 or all matrices, elements], the matrix axes made one. A copy where only some are shared."""
    leading = operand.shape[:matrix_axes]
    if leading != matrices and _product(leading) != 1:
        operand = np.broadcast_to(operand, (*matrices, *operand.shape[matrix_axes:]))
    return operand.reshape(-1, size)
