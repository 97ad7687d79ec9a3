"""Handlers of the custom calls that run the Metal kernels on the host, for a plugin whose device is the
host.

A handler receives XLA's FFI call frame (xla/ffi/api/c_api.h). ctypes reads the operands, results and int32
attributes from it, in the layout that they have had since version 0.1 of the FFI API. The handlers decode
the attributes themselves, as a plugin's author would.
"""

from __future__ import annotations

import ctypes
import threading
from collections import Counter
from ctypes import POINTER, c_char_p, c_int, c_int64, c_size_t, c_void_p
from math import prod

import ml_dtypes
import numpy as np

from jax_mps_neuron import NeuronType, metal
from jax_mps_neuron._core.signature import NEURON, NEURON_GRADIENT

_DTYPES = {10: np.dtype(np.float16), 11: np.dtype(np.float32), 16: np.dtype(ml_dtypes.bfloat16)}
_METADATA = 1
_INTERNAL = 13

_HEAD = [("struct_size", c_size_t), ("extension_start", c_void_p)]


class _Buffer(ctypes.Structure):
    _fields_ = (*_HEAD, ("dtype", c_int), ("data", c_void_p), ("rank", c_int64), ("dims", POINTER(c_int64)))


class _Values(ctypes.Structure):
    _fields_ = (*_HEAD, ("size", c_int64), ("types", c_void_p), ("buffers", POINTER(POINTER(_Buffer))))


class _Name(ctypes.Structure):
    _fields_ = (("text", c_void_p), ("size", c_size_t))


class _Int32(ctypes.Structure):
    _fields_ = (("dtype", c_int), ("value", POINTER(c_int)))


class _Attributes(ctypes.Structure):
    _fields_ = (
        *_HEAD,
        ("size", c_int64),
        ("types", c_void_p),
        ("names", POINTER(POINTER(_Name))),
        ("values", POINTER(POINTER(_Int32))),
    )


class _Version(ctypes.Structure):
    _fields_ = (*_HEAD, ("major", c_int), ("minor", c_int))


class _ErrorCreate(ctypes.Structure):
    _fields_ = (*_HEAD, ("message", c_char_p), ("code", c_int))


class _Api(ctypes.Structure):
    _fields_ = (
        *_HEAD,
        ("version", _Version),
        ("internal", c_void_p),
        ("create_error", ctypes.CFUNCTYPE(c_void_p, POINTER(_ErrorCreate))),
    )


class _Frame(ctypes.Structure):
    _fields_ = (
        *_HEAD,
        ("api", POINTER(_Api)),
        ("context", c_void_p),
        ("stage", c_int),
        ("operands", _Values),
        ("results", _Values),
        ("attributes", _Attributes),
    )


class _Metadata(ctypes.Structure):
    _fields_ = (("struct_size", c_size_t), ("version", _Version))


class _Extension(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("type", c_int),
        ("next", c_void_p),
        ("metadata", POINTER(_Metadata)),
    )


_HANDLER = ctypes.CFUNCTYPE(c_void_p, POINTER(_Frame))


class Handlers:
    """Handlers of both targets.

    Args:
      host: launches the kernels (metal_host).
      version: the FFI API that they say they were built for.

    Attributes:
      calls: how many calls each target had.
      failure: raised by the next call, if not None.
    """

    def __init__(self, host, version=(0, 1)):
        self._host = host
        self._version = version
        self._lock = threading.Lock()  # the host runs one launch at a time
        self.calls: Counter[str] = Counter()
        self.failure: Exception | None = None
        self._functions = {
            NEURON: _HANDLER(lambda frame: self._handle(NEURON, frame.contents)),
            NEURON_GRADIENT: _HANDLER(lambda frame: self._handle(NEURON_GRADIENT, frame.contents)),
        }
        self.addresses = {
            target: ctypes.cast(function, c_void_p).value for target, function in self._functions.items()
        }

    def _handle(self, target: str, frame: _Frame) -> int | None:
        if frame.extension_start and self._answer_metadata(frame.extension_start):
            return None
        try:
            with self._lock:
                self._launch(target, frame)
        except Exception as error:
            message = f"{target}: {error}".encode()
            create = _ErrorCreate(ctypes.sizeof(_ErrorCreate), None, message, _INTERNAL)
            return frame.api.contents.create_error(ctypes.byref(create))
        return None

    def _launch(self, target: str, frame: _Frame) -> None:
        self.calls[target] += 1
        if self.failure:
            raise self.failure
        operands, results = _arrays(frame.operands), _arrays(frame.results)
        run = self._forward if target == NEURON else self._gradient
        for result, value in zip(results, run(operands, _integers(frame.attributes)), strict=True):
            result[...] = value.reshape(result.shape)

    def _answer_metadata(self, address: int) -> bool:
        """XLA asks for a handler's version when it is registered."""
        extension = _Extension.from_address(address)
        if extension.type != _METADATA:
            return False
        version = extension.metadata.contents.version
        version.major, version.minor = self._version
        return True

    def _forward(self, operands, attributes):
        neuron_type, axes = NeuronType(attributes["neuron_type"]), attributes["batch_axes"]
        scalars, bias, slope = _vectors(neuron_type, operands[1:])
        kernel = metal.Kernel(neuron_type, str(operands[0].dtype), forward=True, bias=bias is not None)
        return [self._host.forward(kernel, *_merged(axes, operands[:1], scalars, bias, slope))]

    def _gradient(self, operands, attributes):
        neuron_type, axes = NeuronType(attributes["neuron_type"]), attributes["batch_axes"]
        scalars, bias, slope = _vectors(neuron_type, operands[2:])
        flags = [bool(attributes[name]) for name in ("bias_gradient", "slope_gradient", "from_y")]
        kernel = metal.Kernel(neuron_type, str(operands[1].dtype), False, bias is not None, *flags)
        results = self._host.gradient(kernel, *_merged(axes, operands[:2], scalars, bias, slope))
        return [result for result in results if result is not None]


def _arrays(values: _Values) -> list[np.ndarray]:
    """Views of a call's buffers."""
    arrays = []
    for i in range(values.size):
        buffer = values.buffers[i].contents
        dtype, shape = _DTYPES[buffer.dtype], tuple(buffer.dims[: buffer.rank])
        memory = (ctypes.c_uint8 * (prod(shape) * dtype.itemsize)).from_address(buffer.data)
        arrays.append(np.frombuffer(memory, dtype).reshape(shape))
    return arrays


def _integers(attributes: _Attributes) -> dict[str, int]:
    integers = {}
    for i in range(attributes.size):
        name = attributes.names[i].contents
        key = ctypes.string_at(name.text, name.size).decode()
        integers[key] = attributes.values[i].contents.value[0]
    return integers


def _vectors(neuron_type, operands):
    """scalars, bias, slope; None where absent."""
    scalars, *vectors = operands
    slope = vectors.pop() if neuron_type is NeuronType.PRELU else None
    return scalars, (vectors[0] if vectors else None), slope


def _merged(axes, elements, *vectors):
    """The operands in the launcher's form: one batch axis, along which none of them is shared."""
    present = [*elements, *(vector for vector in vectors if vector is not None)]
    batch = np.broadcast_shapes(*(operand.shape[:axes] for operand in present))
    channels = elements[-1].shape[-1]

    def stack(operand, *shape):
        whole = np.broadcast_to(operand, (*batch, *operand.shape[axes:]))
        return whole.reshape(prod(batch), *shape)

    return [
        *(stack(element, -1, channels) for element in elements),
        *(None if vector is None else stack(vector, -1) for vector in vectors),
    ]
