"""The gradient of a neuron activation, as Apple's MPSMatrixNeuronGradient defines it, for JAX."""

from . import metal, nn, reference
from .activation import neuron, neuron_gradient
from .dense import fully_connected
from .descriptor import Neuron, NeuronType
from .lowering import set_default_lowering
from .matrix import (
    MatrixFullyConnected,
    MatrixFullyConnectedGradient,
    MatrixNeuron,
    MatrixNeuronGradient,
)
from .reference import NeuronGradient

__version__ = "0.1.0"

__all__ = [
    "MatrixFullyConnected",
    "MatrixFullyConnectedGradient",
    "MatrixNeuron",
    "MatrixNeuronGradient",
    "Neuron",
    "NeuronGradient",
    "NeuronType",
    "fully_connected",
    "metal",
    "neuron",
    "neuron_gradient",
    "nn",
    "reference",
    "set_default_lowering",
]
