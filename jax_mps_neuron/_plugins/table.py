"""The table of a PJRT plugin, as far as registering a custom call's handler needs it.

Fields as in XLA's pjrt_c_api.h and pjrt_c_api_ffi_extension.h. Every struct says its size and grows at its
end, so a field is read once the size says that it is there.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_size_t, c_void_p

__all__ = ["TableError", "check", "register_handler", "version"]

# The API that brought the FFI extension; 0.45 had laid out extensions as they are now.
_OLDEST = (0, 53)
_FFI_EXTENSION = 5


class TableError(Exception):
    """What a plugin's table lacks, or what it answered."""


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


# Its size without padding, which is what plugins compare. For a while an api_version stood before the
# handler: those plugins want 4 bytes more and answer with an error.
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
    """The version of the PJRT C API that the table at this address has."""
    api = _api(table)
    return api.version.major, api.version.minor


def check(table: int) -> None:
    """Raises a TableError that says why no handler can be registered through a table."""
    _ffi_extension(table)


def register_handler(table: int, target: str, handler: int, platform: str) -> None:
    """Registers an XLA_FFI_Handler* for a custom call.

    Args:
      table: the address of the plugin's PJRT_Api.
      target: the custom call's target.
      handler: the handler's address.
      platform: the platform under which the plugin looks handlers up.

    Raises:
      TableError: the table has no FFI extension that can, or it refused.
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
        raise TableError(f"the plugin's PJRT table has {size} bytes, too few to tell its version")
    return _Api.from_address(table)


def _ffi_extension(table: int) -> _FfiExtension:
    api = _api(table)
    found = api.version.major, api.version.minor
    if found[0] != _OLDEST[0] or found < _OLDEST:
        raise TableError(
            "the plugin speaks PJRT C API {}.{}; its FFI extension is known from {}.{} on, up to the next "
            "major version".format(*found, *_OLDEST)
        )
    address = api.extension_start
    while address:
        extension = _Extension.from_address(address)
        if extension.type == _FFI_EXTENSION:
            break
        address = extension.next
    else:
        raise TableError("the plugin has no FFI extension, without which it runs no custom call of others")
    if extension.struct_size < ctypes.sizeof(_FfiExtension):
        raise TableError(
            f"the plugin's FFI extension has {extension.struct_size} bytes, too few to register a handler"
        )
    ffi = _FfiExtension.from_address(address)
    if not ffi.register_handler:
        raise TableError("the plugin's FFI extension leaves out the function that registers a handler")
    return ffi


def _take_message(table: int, error: int) -> str:
    """An error's message; the error is destroyed."""
    api = _api(table)
    read = ctypes.CFUNCTYPE(None, POINTER(_ErrorMessage))(api.error_message)
    destroy = ctypes.CFUNCTYPE(None, POINTER(_ErrorDestroy))(api.error_destroy)
    arguments = _ErrorMessage(ctypes.sizeof(_ErrorMessage), None, error)
    read(ctypes.byref(arguments))
    message = ctypes.string_at(arguments.message, arguments.message_size).decode(errors="replace")
    destroy(ctypes.byref(_ErrorDestroy(ctypes.sizeof(_ErrorDestroy), None, error)))
    return message
