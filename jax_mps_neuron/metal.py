"""The Metal kernels: source, launches, a launcher for Apple GPUs, a jit that uses it, and Metal plugins."""

from ._metal.bindings import MetalError
from ._metal.device import Device
from ._metal.source import Kernel, Launch, launch_for, source
from ._plugins.targets import register_targets
from ._staging.staging import jit

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
