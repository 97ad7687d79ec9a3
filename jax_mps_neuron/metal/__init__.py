"""The Metal kernels: source, launches, a launcher for Apple GPUs, and what Metal plugins can do."""

from .bindings import MetalError
from .device import Device
from .kernel import Kernel, Launch, launch_for, source
from .plugin import register_targets

__all__ = ["Device", "Kernel", "Launch", "MetalError", "launch_for", "register_targets", "source"]
