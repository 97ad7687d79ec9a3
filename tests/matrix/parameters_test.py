"""`set_neuron_type` and the neuron's parameters of Apple's classes."""

from __future__ import annotations

import pytest

from jax_mps_neuron import MatrixFullyConnected, MatrixNeuron, MatrixNeuronGradient, Neuron, NeuronType

CLASSES = pytest.mark.parametrize("cls", [MatrixNeuron, MatrixNeuronGradient, MatrixFullyConnected])


@CLASSES
@pytest.mark.parametrize(
    ("neuron_type", "a", "b", "c"),
    [
        (NeuronType.GELU, None, None, None),
        (NeuronType.RELU, 0.1, None, None),
        (NeuronType.TANH, 0.1, 0.2, None),
        (NeuronType.POWER, 0.1, 0.2, 0.3),
    ],
)
def test_unused_parameters_are_ignored(cls, neuron_type, a, b, c):
    """As in Apple's setNeuronType:parameterA:parameterB:parameterC:, which takes three numbers."""
    kernel = cls().set_neuron_type(neuron_type, 0.1, 0.2, 0.3)
    assert kernel.neuron_type is neuron_type
    assert (kernel.neuron_parameter_a, kernel.neuron_parameter_b, kernel.neuron_parameter_c) == (a, b, c)


@CLASSES
def test_used_parameters_default_to_apples(cls):
    kernel = cls(alpha=2.0).set_neuron_type(int(NeuronType.RELUN), parameter_b=3.0)
    assert kernel == cls(Neuron.relun(1.0, 3.0), alpha=2.0)


@CLASSES
@pytest.mark.parametrize(
    ("neuron_type", "message"),
    [
        (99, r"type must be a NeuronType \(NONE \(0\), .*GELU \(15\)\), got 99"),
        ("gelu", r"type must be a NeuronType .* got 'gelu'"),
        (NeuronType.PRELU, "neuron_type must not be PRELU.* Use set_neuron_to_prelu_with_parameters_a"),
        (10, "neuron_type must not be PRELU"),
    ],
)
def test_types_that_it_refuses(cls, neuron_type, message):
    with pytest.raises(ValueError, match=message):
        cls().set_neuron_type(neuron_type)
