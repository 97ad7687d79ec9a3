"""`metal.jit`: whole training steps, and what is compiled for them."""

from __future__ import annotations

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from support.arrays import assert_close, draw
from support.staged import GELU, W, X, loss

COMPILED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: COMPILED.append(event) if event.endswith("backend_compile_duration") else None
)


def mlp(parameters, x):
    for i, (weight, bias, slopes) in enumerate(parameters):
        neuron = jmn.Neuron.prelu(slopes) if i % 2 else GELU
        x = jmn.neuron(x @ weight, neuron, bias)
    return x


def conv(parameters, x):
    x = x.reshape(-1, 4, 4, 1)
    for i, (weight, bias, slopes) in enumerate(parameters):
        x = jax.lax.conv_general_dilated(
            x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jmn.neuron(x, GELU if i % 2 else jmn.Neuron.prelu(slopes), bias)
    return x.mean((1, 2))


SHAPES = {mlp: [(16, 16)] * 3, conv: [(3, 3, 1, 4), (3, 3, 4, 8), (3, 3, 8, 16)]}


@pytest.mark.filterwarnings("error:Some donated buffers")
@pytest.mark.parametrize("network", [mlp, conv])
def test_training(network, launches):
    """The losses of plain jit; one forward and one backward kernel a layer and step; compiled once."""
    optax = pytest.importorskip(
        "optax", reason="the optimizer's state is optax's, which the demo extra has"
    )
    optimizer = optax.adam(1e-2)
    x, y = draw(3, (8, 16)), draw(4, (8, 16))
    traces = []

    def step(parameters, state, x, y):
        traces.append(x)

        def error(parameters):
            return ((network(parameters, x) - y) ** 2).mean()

        value, gradients = jax.value_and_grad(error)(parameters)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(parameters, updates), state, value

    def run(jit):
        parameters = [
            (draw(i, shape, scale=0.3), draw(i, shape[-1:]), jnp.full(shape[-1:], 0.25, "float32"))
            for i, shape in enumerate(SHAPES[network])
        ]
        state = optimizer.init(parameters)
        function = jit(step, donate_argnums=(0, 1))
        losses = []
        for i in range(5):
            old = parameters[0][0]
            parameters, state, value = function(parameters, state, x, y)
            assert old.is_deleted()
            losses.append(float(value))
            if i == 0:
                compiled = len(COMPILED)
        assert len(COMPILED) == compiled
        return losses

    losses = run(jmn.metal.jit)
    assert Counter(launches) == {"neuron": 15, "neuron_gradient": 15}
    assert len(traces) == 1
    np.testing.assert_allclose(losses, run(jax.jit), rtol=1e-5)
    assert losses[-1] < losses[0]


def test_stages_compile_once_each(launches):
    staged = jmn.metal.jit(jax.value_and_grad(loss))
    staged(W, X)
    kinds = [stage.kind for stage in staged.stages(W, X)]
    jitted = jmn.metal.jit(jax.value_and_grad(loss))
    before = len(COMPILED)
    jitted(W, X)
    # Some versions make the kernels' parameters by an equation, which is one program more.
    assert kinds.count("jit") == 5
    assert len(COMPILED) - before in (5, 6)
    before = len(COMPILED)
    jitted(2 * np.asarray(W), np.asarray(X))
    assert len(COMPILED) == before
    jitted(W, X[:3])
    assert len(COMPILED) > before


@pytest.mark.parametrize("network", [mlp, conv])
def test_training_by_the_metal_kernels(network, fake_metal):
    """On the module `Metal` whose GPU is the host: two launches a layer and step."""
    x, y = draw(3, (8, 16)), draw(4, (8, 16))
    parameters = [
        (draw(i, shape, scale=0.3), draw(i, shape[-1:]), jnp.full(shape[-1:], 0.25, "float32"))
        for i, shape in enumerate(SHAPES[network])
    ]

    def step(parameters):
        def error(parameters):
            return ((network(parameters, x) - y) ** 2).mean()

        value, gradients = jax.value_and_grad(error)(parameters)
        return jax.tree.map(lambda p, g: p - 0.05 * g, parameters, gradients), value

    def losses(jit):
        now, values = parameters, []
        for _ in range(4):
            now, value = jit(step)(now)
            values.append(float(value))
        return values

    plain = losses(jax.jit)
    staged = jmn.metal.jit(step)
    assert_close(np.float32(losses(lambda _: staged)), plain, factor=10)
    assert fake_metal.counts["command buffers"] == 2 * 3 * 4
    assert fake_metal.counts["libraries"] == 4  # forward and backward of two types
