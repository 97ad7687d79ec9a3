"""The part of a PJRT plugin's table that registers a custom call's handler.

The fields follow XLA's pjrt_c_api.h and pjrt_c_api_ffi_extension.h. Every struct states its size and grows
at its end, so a field is read only if the size includes it.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_void_p

__all__ = ["TableError", "check", "register_handler", "version"]

# The first API version with the FFI extension. Extensions have had this layout since 0.45.
_OLDEST = (0, 53)
_FFI_EXTENSION = 5


class TableError(Exception):
    """Why a handler cannot be registered: what the table lacks, or the plugin's error."""


class _ApiVersion(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("extension_start", c_void_p),
        ("major", c_int),
        ("minor", c_int),
    )


class _Api(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("extension_start", c_void_p),
        ("version", _ApiVersion),
        ("error_destroy", c_void_p),
        ("error_message", c_void_p),
    )


class _Extension(ctypes.Structure):
    _fields_ = (("struct_size", c_size_t), ("type", c_int), ("next", c_void_p))


class _FfiExtension(ctypes.Structure):
    _fields_ = (
        ("base", _Extension),
        ("type_id_register", c_void_p),
        ("user_data_add", c_void_p),
        ("register_handler", c_void_p),
    )


# The size without padding, which is what plugins check. Some versions had an api_version before the
# handler. Plugins of those versions expect 4 bytes more and return an error.
_REGISTER_SIZE = 52


class _RegisterHandler(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("target_name", c_char_p),
        ("target_name_size", c_size_t),
        ("handler", c_void_p),
        ("platform_name", c_char_p),
        ("platform_name_size", c_size_t),
        ("traits", c_int),
    )


class _ErrorMessage(ctypes.Structure):
    _fields_ = (
        ("struct_size", c_size_t),
        ("extension_start", c_void_p),
        ("error", c_void_p),
        ("message", c_void_p),
        ("message_size", c_size_t),
    )


class _ErrorDestroy(ctypes.Structure):
    _fields_ = (("struct_size", c_size_t), ("extension_start", c_void_p), ("error", c_void_p))


def version(table: int) -> tuple[int, int]:
    """The PJRT C API version of the table at an address."""
    api = _api(table)
    return api.version.major, api.version.minor


def check(table: int) -> None:
    """Raises a TableError if no handler can be registered through the table at an address."""
    _ffi_extension(table)


def register_handler(table: int, target: str, handler: int, platform: str) -> None:
    """Registers an XLA_FFI_Handler* for a custom call.

    Args:
      table: the address of the plugin's PJRT_Api.
      target: the custom call's target.
      handler: the handler's address.
      platform: the platform name under which the plugin looks up handlers.

    Raises:
      TableError: the table does not support it, or the plugin returned an error.
    """
    extension = _ffi_extension(table)
    register = ctypes.CFUNCTYPE(c_void_p, POINTER(_RegisterHandler))(extension.register_handler)
    name, where = target.encode(), platform.encode()
    arguments = _RegisterHandler(_REGISTER_SIZE, name, len(name), handler, where, len(where), 0)
    if error := register(ctypes.byref(arguments)):
        raise TableError(f"the plugin refused the handler of {target}: {_take_message(table, error)}")


def _api(table: int) -> _Api:
    size = c_size_t.from_address(table).value
    if size < ctypes.sizeof(_Api):
        least = ctypes.sizeof(_Api)
        raise TableError(f"the plugin's PJRT table must have at least {least} bytes, got {size}")
    return _Api.from_address(table)


def _ffi_extension(table: int) -> _FfiExtension:
    api = _api(table)
    found, (major, oldest) = (api.version.major, api.version.minor), _OLDEST
    if found[0] != major or found < _OLDEST:
        raise TableError(
            f"the plugin's PJRT C API must be version {major}.{oldest} or a later {major}.x, "
            f"got {found[0]}.{found[1]}"
        )
    address = api.extension_start
    while address:
        extension = _Extension.from_address(address)
        if extension.type == _FFI_EXTENSION:
            break
        address = extension.next
    else:
        raise TableError("the plugin has no FFI extension, so it does not run third-party custom calls")
    if extension.struct_size < ctypes.sizeof(_FfiExtension):
        raise TableError(
            f"the plugin's FFI extension must have at least {ctypes.sizeof(_FfiExtension)} bytes to "
            f"register handlers, got {extension.struct_size}"
        )
    ffi = _FfiExtension.from_address(address)
    if not ffi.register_handler:
        raise TableError("the plugin's FFI extension has no function that registers handlers")
    return ffi


def _take_message(table: int, error: int) -> str:
    """The message of an error, which this function destroys."""
    api = _api(table)
    read = ctypes.CFUNCTYPE(None, POINTER(_ErrorMessage))(api.error_message)
    destroy = ctypes.CFUNCTYPE(None, POINTER(_ErrorDestroy))(api.error_destroy)
    arguments = _ErrorMessage(ctypes.sizeof(_ErrorMessage), None, error)
    read(ctypes.byref(arguments))
    message = ctypes.string_at(arguments.message, arguments.message_size).decode(errors="replace")
    destroy(ctypes.byref(_ErrorDestroy(ctypes.sizeof(_ErrorDestroy), None, error)))
    return message
