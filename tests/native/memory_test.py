"""Peak memory of a training step, by XLA's analysis, against the same step with jax.nn."""

from __future__ import annotations

import jax.numpy as jnp
import pytest

from jax_mps_neuron import Neuron, NeuronType, neuron, nn
from jax_mps_neuron._lowering import native
from jax_mps_neuron._tools.bench import peers, training

T = NeuronType
ROWS, CHANNELS = 1024, 256

# With jax.nn's parameters.
NEURONS = {
    T.RELU: Neuron.relu(),
    T.SIGMOID: Neuron.sigmoid(),
    T.HARD_SIGMOID: Neuron.hard_sigmoid(1 / 6, 0.5),
    T.TANH: Neuron.tanh(),
    T.SOFTPLUS: Neuron.softplus(),
    T.SOFTSIGN: Neuron.softsign(),
    T.ELU: Neuron.elu(),
    T.PRELU: Neuron.prelu(jnp.full(CHANNELS, 0.25)),
    T.RELUN: Neuron.relun(0.0, 6.0),
    T.GELU: Neuron.gelu(),
}


def allowed(name: str, kind: NeuronType, dtype: str) -> int:
    """How many activations of x's dtype a layer may keep more than with jax.nn: docs/performance.md."""
    if dtype == "float32":
        # The gradient of these is had from y, which the next product keeps anyway; ours reads x by default.
        if kind in (T.SIGMOID, T.TANH):
            return 1
        return 1 if (name, kind) == (peers.INLINE, T.GELU) else 0
    if name == peers.CUSTOM_CALL:
        return 0
    # XLA's CPU backend keeps the float32 result of a product instead of x, since that is what is read.
    return 3 if kind in (T.GELU, T.PRELU) else 1


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", list(NEURONS), ids=lambda kind: kind.name.lower())
def test_step(kind, dtype):
    activation = ROWS * CHANNELS * jnp.dtype(dtype).itemsize
    theirs = peak(peers.JAX_NN, kind, dtype)
    for name in (peers.INLINE, *(() if native.unavailable_reason() else (peers.CUSTOM_CALL,))):
        more = (peak(name, kind, dtype) - theirs) / activation
        # Sums and scalars, which have no rows, are arrays too.
        assert more <= allowed(name, kind, dtype) * training.BLOCKS + 0.125, name


@pytest.mark.parametrize("kind", [T.SIGMOID, T.TANH], ids=lambda kind: kind.name.lower())
def test_step_that_keeps_y(kind):
    """No higher than with jax.nn."""
    theirs = peak(peers.JAX_NN, kind, "float32")
    for lowering in ("inline", *(() if native.unavailable_reason() else ("custom_call",))):

        def keeping_y(x, n, bias, lowering=lowering):
            return neuron(x, n, bias, lowering=lowering, residual="y")

        twin = {T.SIGMOID: nn.sigmoid, T.TANH: nn.tanh}[kind]
        for activation in (keeping_y, lambda x, n, bias, twin=twin: twin(x + bias)):
            more = peak(activation, kind, "float32") - theirs
            assert more <= 0.125 * ROWS * CHANNELS * 4, lowering


def peak(activation, kind, dtype):
    """That of a step, of an activation or the peer of that name."""
    n = NEURONS[kind]
    x = jnp.zeros((ROWS, CHANNELS // 16), dtype)
    step = training.step(peers.activations(kind, "cpu").get(activation, activation), n)
    return training.peak_memory(step.lower(training.weights(n, CHANNELS, dtype), x).compile())
