"""Compares our Metal kernels with Apple's MPSMatrixNeuron and MPSMatrixNeuronGradient, on a Mac."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .._core.descriptor import Neuron, NeuronType
from .._metal.bindings import MetalError, bindings, words
from .._metal.device import Device
from .bench import neuron_for

__all__ = ["EDGES", "Difference", "Edge", "apples", "apples_gradient", "difference", "edges", "report"]

SHAPE = (61, 36)
TYPES = tuple(NeuronType)
ALPHA = 1.25

# Where Apple's tables, read literally, are not the derivative of f: z at and around each kink.
EDGES = {
    NeuronType.HARD_SIGMOID: (
        Neuron.hard_sigmoid(),
        (-3.0, -2.5, -2.0, -0.5, 0.0, 0.5, 1.0, 2.0, 2.5, 3.0),
    ),
    NeuronType.RELUN: (Neuron.relun(0.25, 6.0), (-1.0, 0.0, 1.0, 5.5, 6.0, 7.0)),
    NeuronType.RELU: (Neuron.relu(0.25), (-1.0, 0.0, 1.0)),
    NeuronType.ELU: (Neuron.elu(0.5), (-1.0, 0.0, 1.0)),
    NeuronType.ABSOLUTE: (Neuron.absolute(), (-1.0, 0.0, 1.0)),
}


class Difference(NamedTuple):
    """The largest differences between Apple's results and ours, relative to our largest magnitude."""

    type: NeuronType
    dtype: str
    y: float
    data: float
    bias: float


class Edge(NamedTuple):
    """f'(z) by Apple's kernel and by ours."""

    type: NeuronType
    z: float
    apples: float
    ours: float


def difference(device: Device, neuron_type: NeuronType, dtype: str) -> Difference:
    """Compares one neuron type on random inputs, with an alpha and a bias.

    Args:
      device: an Apple GPU.
      neuron_type: the type.
      dtype: "float32" or "float16".

    Raises:
      MetalError: MetalPerformanceShaders is not installed, or a kernel failed.
    """
    neuron = neuron_for(neuron_type, SHAPE[1])
    x, gradient = np.random.default_rng(0).standard_normal((2, *SHAPE)).astype(dtype)
    bias = np.linspace(-1, 1, SHAPE[1]).astype(dtype)
    ours = device.neuron_gradient(gradient, x, neuron, bias, alpha=ALPHA)
    y = device.neuron(x, neuron, bias, alpha=ALPHA)
    data, bias_gradient = apples_gradient(device, gradient, x, neuron, bias, ALPHA)
    return Difference(
        neuron_type,
        dtype,
        _relative(apples(device, x, neuron, bias, ALPHA), y),
        _relative(data, ours.data),
        _relative(bias_gradient, ours.bias),
    )


def edges(device: Device) -> list[Edge]:
    """f' at the kinks, where Apple's tables are ambiguous."""
    found = []
    for neuron_type, (neuron, points) in EDGES.items():
        z = np.asarray([points], np.float32)
        ones = np.ones_like(z)
        theirs, _ = apples_gradient(device, ones, z, neuron, np.zeros(z.shape[1], np.float32), 1.0)
        ours = device.neuron_gradient(ones, z, neuron).data
        found += [
            Edge(neuron_type, *map(float, row)) for row in zip(points, theirs[0], ours[0], strict=True)
        ]
    return found


def report(device: Device) -> str:
    """Both comparisons as tables. A type that fails has its error in its row.

    Raises:
      MetalError: MetalPerformanceShaders is not installed, or fails at the kinks.
    """
    _shaders()
    lines = ["type          dtype       y        data     bias"]
    for neuron_type in TYPES:
        for dtype in ("float32", "float16"):
            line = f"{neuron_type.name.lower():<13} {dtype:<9}"
            try:
                d = difference(device, neuron_type, dtype)
                lines.append(f"{line} {d.y:8.1e} {d.data:8.1e} {d.bias:8.1e}")
            except MetalError as error:
                lines.append(f"{line} {error}")
    lines += ["", "f'(z) at the kinks   z    Apple's     ours"]
    for e in edges(device):
        mark = "" if e.apples == e.ours else "  differs"
        lines.append(f"{e.type.name.lower():<16} {e.z:5} {e.apples:10.6g} {e.ours:8.6g}{mark}")
    return "\n".join(lines)


# Apple's classes


@contextlib.contextmanager
def _in_pool(device: Device, name: str) -> Iterator[None]:
    """An autorelease pool that turns Objective-C exceptions into MetalError."""
    _, objc = bindings()
    try:
        with device.pool():
            yield
    # PyObjC raises Python's own errors for some NSExceptions (invalid argument, range, malloc) and for a
    # missing selector.
    except (objc.error, ValueError, IndexError, MemoryError, AttributeError) as error:
        raise MetalError(f"{name} failed: {error}") from error


def apples(device: Device, x: np.ndarray, neuron: Neuron, bias: np.ndarray, alpha: float) -> np.ndarray:
    """MPSMatrixNeuron's y. x: [rows, channels], bias: [channels]; float32 or float16."""
    with _in_pool(device, "MPSMatrixNeuron"):
        mps = _shaders()
        kernel = _kernel(mps.MPSMatrixNeuron, device, neuron, alpha)
        y = device.memory.new("y", x.size, x.dtype)
        commands = device.queue.commandBuffer()
        kernel.encodeToCommandBuffer_inputMatrix_biasVector_resultMatrix_(
            commands, _matrix(mps, device, x), _vector(mps, device, bias), _matrix(mps, device, x, y.buffer)
        )
        _run(commands, "MPSMatrixNeuron")
    return y.array().reshape(x.shape)


def apples_gradient(
    device: Device, gradient: np.ndarray, x: np.ndarray, neuron: Neuron, bias: np.ndarray, alpha: float
) -> tuple[np.ndarray, np.ndarray]:
    """MPSMatrixNeuronGradient's data and bias gradients. Shapes and dtypes as in `apples`."""
    with _in_pool(device, "MPSMatrixNeuronGradient"):
        mps = _shaders()
        kernel = _kernel(mps.MPSMatrixNeuronGradient, device, neuron, alpha)
        data = device.memory.new("data", x.size, x.dtype)
        sums = device.memory.new("the bias gradient", bias.size, bias.dtype)
        commands = device.queue.commandBuffer()
        (
            kernel.encodeToCommandBuffer_gradientMatrix_inputMatrix_biasVector_resultGradientForDataMatrix_resultGradientForBiasVector_
        )(
            commands,
            _matrix(mps, device, gradient),
            _matrix(mps, device, x),
            _vector(mps, device, bias),
            _matrix(mps, device, x, data.buffer),
            _vector(mps, device, bias, sums.buffer),
        )
        _run(commands, "MPSMatrixNeuronGradient")
    return data.array().reshape(x.shape), sums.array()


def _shaders() -> Any:
    bindings()
    try:
        import MetalPerformanceShaders
    except ImportError as error:
        raise MetalError(
            "Apple's kernels need macOS and the extra 'metal': run pip install '.[metal]' in a checkout "
            f"({error})"
        ) from error
    return MetalPerformanceShaders


def _kernel(cls: Any, device: Device, neuron: Neuron, alpha: float) -> Any:
    kernel = cls.alloc().initWithDevice_(device.handle)
    if neuron.type is NeuronType.PRELU:
        kernel.setNeuronToPReLUWithParametersA_(np.asarray(neuron.a, np.float32).tobytes())
    else:
        parameters: tuple[Any, ...] = (neuron.a, neuron.b, neuron.c)
        kernel.setNeuronType_parameterA_parameterB_parameterC_(
            int(neuron.type), *(0.0 if p is None else float(p) for p in parameters)
        )
    kernel.setAlpha_(alpha)
    return kernel


def _data_type(mps: Any, dtype: np.dtype) -> int:
    return {"float32": mps.MPSDataTypeFloat32, "float16": mps.MPSDataTypeFloat16}[dtype.name]


def _matrix(mps: Any, device: Device, like: np.ndarray, buffer: Any = None) -> Any:
    """An MPSMatrix of an array's shape, over `buffer` or a buffer with the array's values."""
    rows, columns = like.shape
    descriptor = mps.MPSMatrixDescriptor.matrixDescriptorWithRows_columns_rowBytes_dataType_(
        rows, columns, columns * like.itemsize, _data_type(mps, like.dtype)
    )
    buffer = device.memory.of("a matrix", like) if buffer is None else buffer
    return mps.MPSMatrix.alloc().initWithBuffer_descriptor_(buffer, descriptor)


def _vector(mps: Any, device: Device, like: np.ndarray, buffer: Any = None) -> Any:
    descriptor = mps.MPSVectorDescriptor.vectorDescriptorWithLength_dataType_(
        like.size, _data_type(mps, like.dtype)
    )
    buffer = device.memory.of("a vector", like) if buffer is None else buffer
    return mps.MPSVector.alloc().initWithBuffer_descriptor_(buffer, descriptor)


def _run(commands: Any, name: str) -> None:
    commands.commit()
    commands.waitUntilCompleted()
    if commands.error() is not None:
        raise MetalError(f"{name} failed: {words(commands.error())}")


def _relative(theirs: np.ndarray, ours: Any) -> float:
    theirs, ours = theirs.astype(np.float64), np.asarray(ours, np.float64)
    return float(np.max(np.abs(theirs - ours)) / np.max(np.abs(ours)))
