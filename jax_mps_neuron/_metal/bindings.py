"""PyObjC's Metal, and the memory that an Apple GPU shares with NumPy."""

from __future__ import annotations

import mmap
import platform
from typing import Any

import numpy as np

__all__ = ["Memory", "MetalError", "Shared", "bindings", "words"]


class MetalError(RuntimeError):
    """Metal is not there, or refused something; the message has Metal's own words."""


def bindings() -> tuple[Any, Any]:
    """The modules Metal and objc."""
    try:
        import Metal
        import objc
    except ImportError as error:
        raise MetalError(
            "Metal needs macOS on a Mac with a GPU, and the extra metal: in a checkout pip install "
            f"'.[metal]'; this is {platform.system()} on {platform.machine()}: {error}"
        ) from error
    return Metal, objc


def words(error: Any) -> str:
    """What an NSError says."""
    return "no reason given" if error is None else str(error.localizedDescription())


class Memory:
    """Buffers of an `MTLDevice`, in memory that the CPU sees too."""

    def __init__(self, device: Any, device_name: str):
        metal, _ = bindings()
        self._device, self._name = device, device_name
        self._mode = metal.MTLResourceStorageModeShared

    def of(self, name: str, array: np.ndarray) -> Any:
        """A buffer with an array's bytes: its own memory, which is then to be kept, where Metal can take
        it; else a copy."""
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._check_length(name, raw.nbytes)
        # What ascontiguousarray made ends with this function.
        whole_pages = raw.ctypes.data % mmap.PAGESIZE == 0 and raw.nbytes % mmap.PAGESIZE == 0
        if array.flags.c_contiguous and whole_pages:
            buffer = self._device.newBufferWithBytesNoCopy_length_options_deallocator_(
                raw, raw.nbytes, self._mode, None
            )
            if buffer is not None and address(buffer, raw.nbytes) == raw.ctypes.data:
                return buffer
        buffer = self._device.newBufferWithBytes_length_options_(raw, raw.nbytes, self._mode)
        return self._checked(name, buffer, raw.nbytes)

    def new(self, name: str, elements: int, dtype: np.dtype) -> Shared:
        """Memory for a result."""
        length = elements * dtype.itemsize
        self._check_length(name, length)
        buffer = self._device.newBufferWithLength_options_(length, self._mode)
        return Shared(self._checked(name, buffer, length), length, dtype)

    def _check_length(self, name: str, length: int) -> None:
        longest = self._device.maxBufferLength()
        if length > longest:
            raise MetalError(f"{name} has {length} bytes; on {self._name} it may have {longest}")

    def _checked(self, name: str, buffer: Any, length: int) -> Any:
        if buffer is None:
            raise MetalError(f"{self._name} has no memory for {name}, {length} bytes")
        return buffer


class Shared:
    """A buffer that NumPy reads too. An array made of it keeps it alive."""

    def __init__(self, buffer: Any, length: int, dtype: np.dtype):
        self.buffer, self.dtype = buffer, dtype
        self.__array_interface__ = {
            "version": 3,
            "shape": (length,),
            "typestr": "|u1",
            "data": (address(buffer, length), False),
        }

    def array(self) -> np.ndarray:
        return np.asarray(self).view(self.dtype)


def address(buffer: Any, length: int) -> int:
    """Where a buffer's bytes lie."""
    return np.frombuffer(buffer.contents().as_buffer(length), np.uint8).ctypes.data
