"""The Metal kernels: their source for a neuron, how they are launched, and a launcher for Apple GPUs."""

from .bindings import MetalError
from .device import Device
from .kernel import Kernel, Launch, launch_for, source

__all__ = ["Device", "Kernel", "Launch", "MetalError", "launch_for", "source"]
