"""An Apple GPU, and the kernels run on it through PyObjC's Metal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from math import prod
from typing import Any

import jax
import numpy as np

from .._core.arguments import (
    Arguments,
    as_operand,
    gather,
    plain_numbers,
    prepare,
    prepare_gradient,
    signature_of,
)
from .._core.descriptor import Neuron, NeuronType
from .._core.results import NeuronGradient, as_neuron_gradient
from .._core.signature import Signature
from .bindings import MetalError, bindings, words
from .launch import Launch, Size, launch_for
from .memory import Memory, Shared
from .pipelines import Pipelines
from .source import DTYPES, SUM_NAME, Kernel

__all__ = ["Device", "default_device", "execute", "unavailable_reason"]


def unavailable_reason() -> str:
    """Why there is no Apple GPU to run on; empty if there is one."""
    try:
        default_device()
    except MetalError as error:
        return str(error)
    return ""


@cache
def default_device() -> Device:
    """The system's default GPU, the same `Device` each time.

    Raises:
      MetalError: there is no Apple GPU to run on.
    """
    return Device()


def execute(signature: Signature, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    """`Device.execute` on the default GPU."""
    return default_device().execute(signature, operands)


class Device:
    """An Apple GPU.

    Metal compiles each kernel once, on its first use. Large NumPy arrays are often page-aligned and whole
    pages long; the GPU reads those in place. It copies other arrays. Results are new arrays in memory that
    the GPU and the CPU share. Every call waits until the GPU is done. Threads may share a device.

    Args:
      device: an `MTLDevice`; None for the system's default.

    Attributes:
      name: Metal's name of the GPU.
      handle: the `MTLDevice`.
      queue: its `MTLCommandQueue`.
      memory: allocates its buffers.
      pool: makes the autorelease pool that all of these need.

    Raises:
      MetalError: this is not macOS, PyObjC's Metal is not installed, or there is no GPU.

    Example:
      >>> device = Device()  # doctest: +SKIP
      >>> device.neuron(np.float32([-1.0, 0.0, 2.0]), Neuron.relu(0.1))  # doctest: +SKIP
      array([-0.1,  0. ,  2. ], dtype=float32)
    """

    def __init__(self, device: Any = None):
        self._metal, self._objc = bindings()
        self.handle = self._metal.MTLCreateSystemDefaultDevice() if device is None else device
        if self.handle is None:
            raise MetalError("Metal finds no GPU: MTLCreateSystemDefaultDevice() returned nil")
        self.name = str(self.handle.name())
        self.queue = self.handle.newCommandQueue()
        if self.queue is None:
            raise MetalError(f"{self.name} makes no command queue")
        self.memory = Memory(self.handle, self.name)
        self.pool = self._objc.autorelease_pool
        self._pipelines = Pipelines(self.handle, self.name)

    # For users

    def neuron(self, x: Any, neuron: Neuron, bias: Any = None, *, alpha: float = 1.0) -> np.ndarray:
        """y = f(alpha * x + bias), as `jax_mps_neuron.neuron` computes it, on NumPy arrays.

        Args:
          x: shape [..., channels]; float32, float16 or bfloat16.
          neuron: the type f and its parameters.
          bias: shape [channels], or None.
          alpha: a real scalar.

        Returns:
          y, in x's shape and dtype.

        Raises:
          TypeError: as `jax_mps_neuron.neuron`, and for float64 if JAX has it enabled.
          ValueError: as `jax_mps_neuron.neuron`.
          MetalError: the kernel did not compile or did not run.
        """
        given = gather(x, neuron, bias, alpha)
        checked = jax.eval_shape(_check(prepare, neuron.type), given)
        signature = signature_of(neuron.type, given, forward=True)
        (y,) = self.execute(signature, [_like(x, checked.x), *_vectors(neuron.type, given, checked)])
        return y.reshape(np.shape(x))

    def neuron_gradient(
        self, gradient: Any, x: Any, neuron: Neuron, bias: Any = None, *, alpha: float = 1.0
    ) -> NeuronGradient:
        """The gradient of a neuron, as `jax_mps_neuron.neuron_gradient` computes it, on NumPy arrays.

        Args:
          gradient: the incoming gradient, with respect to y; x's shape.
          x: shape [..., channels]; float32, float16 or bfloat16.
          neuron: the type f and its parameters.
          bias: shape [channels], or None.
          alpha: a real scalar.

        Returns:
          The three gradients as NumPy arrays.

        Raises:
          TypeError: as `jax_mps_neuron.neuron_gradient`, and for float64 if JAX has it enabled.
          ValueError: as `jax_mps_neuron.neuron_gradient`.
          MetalError: the kernel did not compile or did not run.
        """
        gradient = as_operand("gradient", gradient)
        given = gather(x, neuron, bias, alpha, gradient)
        _, checked = jax.eval_shape(_check(prepare_gradient, neuron.type), gradient, given)
        signature = signature_of(neuron.type, given, forward=False)
        arrays = [_like(gradient, checked.x), _like(x, checked.x), *_vectors(neuron.type, given, checked)]
        return as_neuron_gradient(self.execute(signature, arrays), given)

    # For JAX

    def execute(self, signature: Signature, operands: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Runs one call: one launch, and a second one if a sum has several strips.

        Args:
          signature: what the call computes.
          operands: the operands, in the order of ``signature.operand_names``.

        Returns:
          The results, in the order of ``signature.result_names``.

        Raises:
          TypeError: the Metal kernels do not support x's dtype.
          MetalError: the kernel did not compile or did not run.
        """
        x = signature.named(operands).x
        if x.dtype.name not in DTYPES:
            raise TypeError(f"x must have dtype float32, float16 or bfloat16 on Metal, got {x.dtype}")
        full = signature.full_shape(operands)
        batch, entry = full[: signature.batch_axes], full[signature.batch_axes :]
        shapes = signature.result_shapes(operands)
        if not prod(full):
            return [np.zeros(s, np.float32 if i else x.dtype) for i, s in enumerate(shapes)]
        merged = {n: _merge(o, batch) for n, o in zip(signature.operand_names, operands, strict=True)}
        kernel = Kernel.of(signature, x.dtype.name)
        sizes = prod(batch), prod(entry[:-1]), prod(entry[-1:])
        results = self._launch(kernel, merged, sizes)
        return [result.reshape(shape) for result, shape in zip(results, shapes, strict=True)]

    def _launch(self, kernel: Kernel, operands: dict[str, np.ndarray], sizes: Size) -> list[np.ndarray]:
        """Launches a kernel on [batch, rows, channels].

        Args:
          kernel: the kernel.
          operands: each of shape [1 or batch, elements].
          sizes: (batch, rows, channels).

        Returns:
          The results, flat.
        """
        shared = tuple(name for name, operand in operands.items() if len(operand) == 1)
        launch = launch_for(kernel, *sizes, shared=shared)
        with self.pool():
            pipelines = self._pipelines.of(kernel)
            buffers = {name: self.memory.of(name, operand) for name, operand in operands.items()}
            first = "y" if kernel.forward else "data"
            results = [self.memory.new("the result", prod(sizes), operands["x"].dtype)]
            buffers[first] = results[0].buffer
            partials = self._sums(kernel, launch.partials, "the partial sums")
            buffers |= {name: partial.buffer for name, partial in partials.items()}
            bound = [buffers.get(name) for name in kernel.buffers[:-1]]
            steps = [(pipelines[kernel.name], bound, launch.grid, launch.threads)]
            sums = partials
            if launch.strips > 1:
                sums = self._sums(kernel, sizes[0] * sizes[2], "the sums")
                add = pipelines[SUM_NAME]
                for name, total in sums.items():
                    pair = [partials[name].buffer, total.buffer]
                    steps.append((add, pair, launch.sum_grid, launch.sum_threads))
            self._run(kernel, launch, steps)
        return [result.array() for result in (*results, *sums.values())]

    def _sums(self, kernel: Kernel, elements: int, what: str) -> dict[str, Shared]:
        """Memory for the sums that a kernel computes, by name."""
        names = [name for name in ("bias_gradient", "slope_gradient") if getattr(kernel, name)]
        return {name: self.memory.new(what, elements, np.float32) for name in names}

    def _run(self, kernel: Kernel, launch: Launch, steps: list[tuple[Any, list[Any], Size, Size]]) -> None:
        """Runs (pipeline, buffers, grid, threads) in turn in one command buffer, and waits."""
        size = self._metal.MTLSizeMake
        commands = self.queue.commandBuffer()
        encoder = commands.computeCommandEncoder()
        try:
            for pipeline, buffers, grid, threads in steps:
                encoder.setComputePipelineState_(pipeline)
                for index, buffer in enumerate(buffers):
                    if buffer is not None:
                        encoder.setBuffer_offset_atIndex_(buffer, 0, index)
                constants = launch.constants
                encoder.setBytes_length_atIndex_(constants, len(constants), len(buffers))
                encoder.dispatchThreadgroups_threadsPerThreadgroup_(size(*grid), size(*threads))
        finally:  # Metal ends the process if an encoder is released before it is ended.
            encoder.endEncoding()
        commands.commit()
        commands.waitUntilCompleted()
        if commands.status() != self._metal.MTLCommandBufferStatusCompleted:
            raise MetalError(f"{kernel.name} failed on {self.name}: {words(commands.error())}")


# Operands


@cache
def _check(function: Callable[..., Any], neuron_type: NeuronType) -> Callable[..., Any]:
    """`prepare` or `prepare_gradient` of a type. JAX traces it once for each combination of shapes."""
    return jax.jit(partial(function, neuron_type))


def _like(value: Any, checked: Any) -> np.ndarray:
    """A value in the shape and dtype that `prepare` gives x."""
    return np.asarray(value, checked.dtype).reshape(checked.shape)


def _vectors(neuron_type: NeuronType, given: Arguments, checked: Arguments) -> list[np.ndarray]:
    """The operands after x: scalars, [bias], [slope], in the shapes that `prepare` gives them."""
    scalars = plain_numbers(neuron_type, given)
    if scalars is None:
        scalars = [given.alpha, given.a, given.b, given.c]
    operands = [np.asarray(scalars, np.float32)]
    for value, aval in ((given.bias, checked.bias), (given.slope, checked.slope)):
        if value is not None:
            operands.append(np.broadcast_to(np.asarray(value, np.float32), aval.shape))
    return operands


def _merge(operand: np.ndarray, batch: tuple[int, ...]) -> np.ndarray:
    """The operand as [1 or batch, elements]; a copy if the entries share it along some batch axes only."""
    leading, entry = operand.shape[: len(batch)], operand.shape[len(batch) :]
    if leading != batch and prod(leading) != 1:
        operand = np.broadcast_to(operand, batch + entry)
    return operand.reshape(-1, prod(entry))
