"""An Apple GPU, and the kernels run on it through PyObjC's Metal."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import jax
import numpy as np

from .._core.arguments import Arguments, gather, prepare, prepare_gradient, require_array
from .._core.descriptor import Neuron, NeuronType
from .._core.results import NeuronGradient
from .._core.signature import Operands, Signature
from .bindings import Memory, MetalError, bindings, words
from .pipelines import Pipelines
from .source import DTYPES, SUM_NAME, Kernel, launch_for

__all__ = ["Device", "MetalError", "default_device", "execute", "unavailable_reason"]


def unavailable_reason() -> str:
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


def execute(signature: Signature, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    """`Device.execute` on the default GPU."""
    return default_device().execute(signature, operands)


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
        given = gather(x, neuron, bias, alpha)
        dtype = jax.eval_shape(_checked(neuron.type), given).x.dtype
        signature = Signature(neuron.type, forward=True, bias=bias is not None)
        return self.execute(signature, [np.asarray(x, dtype), *_small_operands(given, x)])[0]

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
        given = gather(x, neuron, bias, alpha)
        dtype = jax.eval_shape(_checked_gradient(neuron.type), given, gradient).x.dtype
        signature = Signature(
            neuron.type,
            bias=bias is not None,
            bias_gradient=bias is not None,
            slope_gradient=neuron.type is NeuronType.PRELU,
        )
        arrays = [np.asarray(gradient, dtype), np.asarray(x, dtype), *_small_operands(given, x)]
        data, *sums = self.execute(signature, arrays)
        of_bias = None if bias is None else _like(sums.pop(0), bias)
        of_slope = _like(sums.pop(0), neuron.a) if sums else None
        return NeuronGradient(_like(data, x), of_bias, of_slope)

    # What JAX's side calls

    def execute(self, signature: Signature, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs one call: one launch, and a second one for sums of several strips.

        Args:
          signature: what the call computes.
          operands: the operands, in the order of ``signature.operand_names``.

        Returns:
          The results, in the order of ``signature.result_names``.

        Raises:
          TypeError: the Metal kernels do not have x's dtype.
          MetalError: the kernel did not compile or did not run.
        """
        named = signature.named(operands)
        x = named.x
        if x.dtype.name not in DTYPES:
            raise TypeError(f"x must have dtype {', '.join(DTYPES)} on Metal, got {x.dtype}")
        batch = signature.batch_shape(operands)
        shape = x.shape[signature.batch_axes :]
        channels = shape[-1] if shape else 1
        count, rows = _product(batch), _product(shape[:-1])
        if not count * rows * channels:
            y = np.zeros((*batch, *shape), x.dtype)
            return [y] + [np.zeros((*batch, *shape[-1:]), np.float32) for _ in signature.result_names[1:]]
        elements = rows * channels
        sizes = Operands(elements, elements, 4, channels, channels)
        merged = {
            name: _merge(getattr(named, name), batch, getattr(sizes, name))
            for name in signature.operand_names
        }
        y, *totals = self._launch(Kernel.of(signature, x.dtype.name), merged, (count, rows, channels))
        return [y.reshape(batch + shape), *(t.reshape(batch + shape[-1:]) for t in totals)]

    def _launch(
        self,
        kernel: Kernel,
        operands: dict[str, np.ndarray],
        sizes: tuple[int, int, int],
    ) -> list[np.ndarray]:
        """Launches a kernel on operands of [1 or batch, elements], and returns its results, flat."""
        batch, rows, channels = sizes
        shared = tuple(name for name, operand in operands.items() if len(operand) == 1)
        launch = launch_for(kernel, batch, rows, channels, shared=shared)
        with self.pool():
            pipelines = self._pipelines.of(kernel)
            x = operands["x"]
            names = [*([] if kernel.forward else ["gradient"]), "x", "scalars", "bias", "slope"]
            buffers = [self.memory.of(n, operands[n]) if n in operands else None for n in names]
            y = self.memory.new("the result", batch * rows * channels, x.dtype)
            f32 = np.dtype(np.float32)
            partials = [
                self.memory.new("the partial sums", launch.partials, f32) if wanted else None
                for wanted in (kernel.bias_gradient, kernel.slope_gradient)
            ]
            wanted = [partial for partial in partials if partial is not None]
            sums = wanted
            if launch.strips > 1:
                sums = [self.memory.new("the sums", batch * channels, f32) for _ in wanted]
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


@cache
def _checked(neuron_type: NeuronType) -> Any:
    def check(given: Arguments) -> Arguments:
        return prepare(neuron_type, given)

    return jax.jit(check)


@cache
def _checked_gradient(neuron_type: NeuronType) -> Any:
    def check(given: Arguments, gradient: Any) -> Arguments:
        return prepare_gradient(neuron_type, gradient, given)[1]

    return jax.jit(check)


def _like(array: np.ndarray, like: Any) -> Any:
    """In the shape of another array, and the dtype that JAX gives it."""
    dtype = jax.dtypes.canonicalize_dtype(np.asarray(like).dtype)
    if np.size(like) == 1 and array.size != 1:
        array = array.sum()  # one slope is shared by all channels
    return array.reshape(np.shape(like)).astype(dtype, copy=False)


def _small_operands(given: Arguments, x: Any) -> list[np.ndarray]:
    """The operands after x of checked arguments: scalars, [bias], [slope]."""
    scalars = given.numbers
    if scalars is None:
        scalars = [given.alpha, given.a, given.b, given.c]
    operands = [np.asarray(scalars, np.float32)]
    if given.bias is not None:
        operands.append(np.asarray(given.bias, np.float32))
    if given.slope is not None:
        slope = np.asarray(given.slope, np.float32)
        channels = np.shape(x)[-1:] or (1,)
        operands.append(np.broadcast_to(slope.reshape(-1) if slope.size == 1 else slope, channels))
    return operands


def _product(sizes: Sequence[int]) -> int:
    return int(np.prod(sizes, dtype=np.int64))


def _merge(operand: np.ndarray, batch: tuple[int, ...], size: int) -> np.ndarray:
    """The operand as [1 or batch, elements]; a copy where only some batch axes are shared."""
    leading = operand.shape[: len(batch)]
    if leading != batch and _product(leading) != 1:
        operand = np.broadcast_to(operand, (*batch, *operand.shape[len(batch) :]))
    return operand.reshape(-1, size)
