"""PJRT plugins as JAX registers them.

Public JAX gives no access to a plugin's table, nor to a plugin that is not initialized. This module reads a
private registry, tested on 0.4.34, 0.10.2 and 0.12.0.1. Without the registry, no plugin has a table.
"""

from __future__ import annotations

import ctypes
from typing import Any

__all__ = ["capsule_pointer", "has_plugin", "plugin_table"]


def capsule_pointer(capsule: Any) -> int:
    """The address in a PyCapsule."""
    name_of = ctypes.pythonapi.PyCapsule_GetName
    name_of.restype, name_of.argtypes = ctypes.c_char_p, [ctypes.py_object]
    pointer_of = ctypes.pythonapi.PyCapsule_GetPointer
    pointer_of.restype, pointer_of.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return pointer_of(capsule, name_of(capsule))


def _registration(platform: str) -> Any:
    from jax._src import xla_bridge

    return getattr(xla_bridge, "_backend_factories", {}).get(platform)


def has_plugin(platform: str) -> bool:
    """Whether a backend of that platform is registered with JAX, initialized or not."""
    return _registration(platform) is not None


def plugin_table(platform: str) -> int | None:
    """The address of a plugin's PJRT_Api; None if JAX knows no plugin or no table of that platform."""
    capsule = getattr(_registration(platform), "c_api", None)
    return None if capsule is None else capsule_pointer(capsule)
