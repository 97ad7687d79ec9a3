"""The gradient of a neuron activation, as Apple's MPSMatrixNeuronGradient defines it, for JAX."""

from . import metal, nn, reference
from ._core.descriptor import Neuron, NeuronType
from ._core.results import NeuronGradient
from ._lowering.routes import set_default_lowering
from ._ops.activation import neuron, neuron_gradient
from ._ops.dense import fully_connected
from .matrix import (
    MatrixFullyConnected,
    MatrixFullyConnectedGradient,
    MatrixNeuron,
    MatrixNeuronGradient,
)

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
