"""Buffers in memory that an Apple GPU and NumPy share."""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np

from .bindings import MetalError, bindings

__all__ = ["Memory", "Shared"]


class Memory:
    """Allocates the buffers of an `MTLDevice`.

    Args:
      device: the `MTLDevice`.
      device_name: its name in error messages.
    """

    def __init__(self, device: Any, device_name: str):
        metal, _ = bindings()
        self._device, self._name = device, device_name
        self._mode = metal.MTLResourceStorageModeShared

    def of(self, name: str, array: np.ndarray) -> Any:
        """An `MTLBuffer` that holds an array's bytes.

        Metal uses the array's own memory where it can, so the caller keeps the array until the GPU is done.
        Otherwise the buffer is a copy.

        Args:
          name: what the array is, for error messages.
          array: the array.

        Raises:
          MetalError: the array is too long for a buffer, or there is no memory for the copy.
        """
        raw = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self._check_length(name, raw.nbytes)
        # Metal takes whole pages only. A copy by ascontiguousarray does not outlive this function.
        whole_pages = raw.ctypes.data % mmap.PAGESIZE == 0 and raw.nbytes % mmap.PAGESIZE == 0
        if array.flags.c_contiguous and whole_pages:
            buffer = self._device.newBufferWithBytesNoCopy_length_options_deallocator_(
                raw, raw.nbytes, self._mode, None
            )
            if buffer is not None and _address(buffer, raw.nbytes) == raw.ctypes.data:
                return buffer
        buffer = self._device.newBufferWithBytes_length_options_(raw, raw.nbytes, self._mode)
        return self._checked(name, buffer, raw.nbytes)

    def new(self, name: str, elements: int, dtype: Any) -> Shared:
        """Uninitialized memory for a result.

        Args:
          name: what the result is, for error messages.
          elements: the number of elements.
          dtype: their dtype.

        Raises:
          MetalError: the result is too long for a buffer, or there is no memory for it.
        """
        dtype = np.dtype(dtype)
        length = elements * dtype.itemsize
        self._check_length(name, length)
        buffer = self._device.newBufferWithLength_options_(length, self._mode)
        return Shared(self._checked(name, buffer, length), length, dtype)

    def _check_length(self, name: str, length: int) -> None:
        longest = self._device.maxBufferLength()
        if length > longest:
            raise MetalError(f"{name} must have at most {longest} bytes on {self._name}, got {length}")

    def _checked(self, name: str, buffer: Any, length: int) -> Any:
        if buffer is None:
            raise MetalError(f"{self._name} has no memory for {name} ({length} bytes)")
        return buffer


class Shared:
    """An `MTLBuffer` that NumPy can read and write. Its arrays keep it alive.

    Attributes:
      buffer: the `MTLBuffer`.
      dtype: the dtype of its elements.
    """

    def __init__(self, buffer: Any, length: int, dtype: np.dtype):
        self.buffer, self.dtype = buffer, dtype
        self.__array_interface__ = {
            "version": 3,
            "shape": (length,),
            "typestr": "|u1",
            "data": (_address(buffer, length), False),
        }

    def array(self) -> np.ndarray:
        """The elements, as a flat array on the same memory."""
        return np.asarray(self).view(self.dtype)


def _address(buffer: Any, length: int) -> int:
    """The address of a buffer's first byte."""
    return np.frombuffer(buffer.contents().as_buffer(length), np.uint8).ctypes.data
