"""The Metal kernels: their source for a neuron, and how they are launched."""

from .kernel import Kernel, Launch, launch_for, source

__all__ = ["Kernel", "Launch", "launch_for", "source"]
