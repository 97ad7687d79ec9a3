"""The Metal kernels: source, launches, a launcher for Apple GPUs, a jit that uses it, and Metal plugins."""

from .bindings import MetalError
from .device import Device
from .kernel import Kernel, Launch, launch_for, source
from .plugin import register_targets
from .staging import jit

__all__ = [
    "Device",
    "Kernel",
    "Launch",
    "MetalError",
    "jit",
    "launch_for",
    "register_targets",
    "source",
]
