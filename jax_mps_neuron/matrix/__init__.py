"""Apple's four classes of matrix kernels with neurons, in functional form."""

from ._fully_connected import MatrixFullyConnected, MatrixFullyConnectedGradient, WeightsAndBiasGradient
from ._neuron import MatrixNeuron, MatrixNeuronGradient

__all__ = [
    "MatrixFullyConnected",
    "MatrixFullyConnectedGradient",
    "MatrixNeuron",
    "MatrixNeuronGradient",
    "WeightsAndBiasGradient",
]
