"""Measures neurons against XLA's autodiff, jax.nn and PyTorch, and against memory bandwidth.

For each neuron type, dtype, shape and mode, all peers take turns in one process. A table has the median
milliseconds per call of our default route, and each peer's time as a multiple of it.
"""

from .arguments import add_arguments, shape_argument, type_argument
from .command import run
from .peers import PLAIN, neuron_for

__all__ = ["PLAIN", "add_arguments", "neuron_for", "run", "shape_argument", "type_argument"]
