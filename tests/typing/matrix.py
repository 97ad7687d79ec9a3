"""What a strict type checker says of Apple's classes and `fully_connected`: mypy reads it, nobody runs it.

Under --strict an ignored error that is none is an error, so that each misuse here is one that is caught.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import Array

import jax_mps_neuron as jmn

x, weights, bias = jnp.ones((4, 3)), jnp.ones((3, 5)), jnp.ones(5)
gelu = jmn.Neuron.gelu()


def uses() -> None:
    kernel: jmn.MatrixNeuron = jmn.MatrixNeuron(gelu, alpha=2.0).set_batch_start(0).set_label("layer")
    kernel = kernel.set_neuron_type(jmn.NeuronType.TANH, 1.5, 0.5).set_source_matrix_origin((1, 2)).copy()
    y: Array = kernel.encode(x, None, x)
    kind: jmn.NeuronType = kernel.neuron_type
    rows: int | None = kernel.source_number_of_feature_vectors
    origin: tuple[int, int] = kernel.result_matrix_origin
    gradient: jmn.NeuronGradient = jmn.MatrixNeuronGradient(gelu).encode(x, x, None)
    layer: jmn.MatrixFullyConnected = jmn.MatrixFullyConnected(gelu).set_source_output_feature_channels(2)
    y = layer.encode(x, weights, bias)
    backward = jmn.MatrixFullyConnectedGradient(alpha=jnp.float32(2))
    y = backward.encode_for_data(x, weights)
    y = backward.encode_for_weights_and_bias(x, x).weights
    y = jmn.fully_connected(x, weights, gelu, bias, 0.5, lowering="inline")
    print(y, kind, rows, origin, gradient)


def misuses() -> None:
    jmn.MatrixNeuron("gelu")  # type: ignore[arg-type]
    jmn.MatrixNeuron(gelu, alpha="two")  # type: ignore[arg-type]
    jmn.MatrixNeuron(batch_start=1.5)  # type: ignore[arg-type]
    jmn.MatrixNeuron(primary_source_matrix_origin=(0, 0))  # type: ignore[call-arg]
    jmn.MatrixFullyConnectedGradient(gelu)  # type: ignore[call-arg, arg-type]
    kernel = jmn.MatrixNeuron()
    kernel.alpha = 2.0  # type: ignore[misc]
    kernel.set_source_matrix_origin((1, 2, 0))  # type: ignore[arg-type]
    kernel.set_neuron_type("tanh")  # type: ignore[arg-type]
    kernel.set_source_output_feature_channels(3)  # type: ignore[attr-defined]
    kernel.encode([[1.0]])  # type: ignore[arg-type]
    kernel.encode()  # type: ignore[call-arg]
    wrong: jax.Array = jmn.MatrixNeuronGradient().encode(x, x)  # type: ignore[assignment]
    jmn.fully_connected(x, weights, jmn.NeuronType.GELU)  # type: ignore[arg-type]
    jmn.fully_connected(x, weights, gelu, lowering=1)  # type: ignore[arg-type]
    print(wrong)
