"""The Metal kernels: their source for a neuron, how they are launched, and `jit` around them."""

from .kernel import Kernel, Launch, launch_for, source
from .staging import jit

__all__ = ["Kernel", "Launch", "jit", "launch_for", "source"]
