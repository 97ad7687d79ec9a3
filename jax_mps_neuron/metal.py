"""The Metal kernels: their source and launches, Apple GPUs, `jit`, and registration on Metal plugins."""

from ._metal.bindings import MetalError
from ._metal.device import Device
from ._metal.launch import Launch, launch_for
from ._metal.source import Kernel, source
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
