"""Measures the neuron against what one would use without it, and against the memory's speed.

For each type, dtype, shape and mode, all peers take turns in one process: the table has medians of
milliseconds a call, and how many times as long the peers take.
"""

from .arguments import add_arguments, shape_argument, type_argument
from .command import run
from .peers import PLAIN, neuron_for

__all__ = ["PLAIN", "add_arguments", "neuron_for", "run", "shape_argument", "type_argument"]
