"""The Metal kernels: their source for a neuron, and how they are launched; and Metal plugins."""

from .kernel import Kernel, Launch, launch_for, source
from .plugin import register_targets

__all__ = ["Kernel", "Launch", "launch_for", "register_targets", "source"]
