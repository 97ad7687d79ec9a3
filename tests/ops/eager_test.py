"""Eager calls: constants do not trip a transfer guard, and gradients add no operations to the caller's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron import nn

X = jnp.linspace(-3, 3, 8).reshape(2, 4)
BIAS = jnp.linspace(-1, 1, 4)
CALLS = {
    # The approximate gelu is jax.nn's own, which transfers constants.
    **{name: (getattr(nn, name), X) for name in nn.__all__ if name != "gelu"},
    "exact gelu": (lambda x: nn.gelu(x, approximate=False), X),
    "neuron": (lambda x: jmn.neuron(x, jmn.Neuron.gelu()), X),
    "neuron with a bias": (
        lambda x, bias: jmn.neuron(x, jmn.Neuron.tanh(1.7, 0.6), bias, alpha=2),
        X,
        BIAS,
    ),
    "neuron_gradient": (lambda g, x: jmn.neuron_gradient(g, x, jmn.Neuron.elu(0.5), BIAS), X, X),
    "reference": (lambda x: jmn.reference.neuron(x, jmn.Neuron.gelu()), X),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_eager_call_passes_a_transfer_guard(name):
    function, *arrays = CALLS[name]
    jax.block_until_ready((X, BIAS))
    with jax.transfer_guard("disallow"):
        found = function(*arrays)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, found, function(*arrays)))


@pytest.mark.parametrize("name", ["neuron", "neuron with a bias", "neuron_gradient", "reference"])
def test_an_eager_gradient_converts_no_operand(name, monkeypatch):
    """A tracer has __jax_array__ too; each conversion would be one more operation of the gradient."""
    function, *arrays = CALLS[name]
    conversions, bind = [], jax.lax.convert_element_type_p.bind

    def counted(*operands, **parameters):
        conversions.append(parameters)
        return bind(*operands, **parameters)

    jax.vjp(function, *arrays)  # traces what is jitted
    monkeypatch.setattr(jax.lax.convert_element_type_p, "bind", counted)
    jax.vjp(function, *arrays)
    assert not conversions


@pytest.mark.parametrize(
    "neuron", [jmn.Neuron.gelu(), jmn.Neuron.tanh(1.5, 0.5), jmn.Neuron.elu()], ids=repr
)
def test_an_eager_gradient_passes_a_transfer_guard(neuron):
    def backward(gradient, x, bias):
        return jax.vjp(lambda x, bias: jmn.neuron(x, neuron, bias), x, bias)[1](gradient)

    expected = backward(X, X, BIAS)
    with jax.transfer_guard("disallow"):
        found = backward(X, X, BIAS)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, found, expected))


S = jnp.float32(0.3)
ON_DEVICE = {
    "elu": lambda x: jmn.neuron(x, jmn.Neuron.elu(S)),
    "alpha": lambda x: jmn.neuron(x, jmn.Neuron.tanh(1.5, 0.5), alpha=S),
    "nn.elu": lambda x: nn.elu(x, S),
    "nn.leaky_relu": lambda x: nn.leaky_relu(x, S),
    **{f"nn.{name}, default": getattr(nn, name) for name in ("elu", "leaky_relu", "hard_sigmoid", "selu")},
}


@pytest.mark.parametrize("name", ON_DEVICE)
def test_arrays_on_the_device_pass_a_transfer_guard_both_ways(name):
    def both(x):
        y, vjp = jax.vjp(ON_DEVICE[name], x)
        return y, vjp(x)

    expected = both(X)
    with jax.transfer_guard("disallow"):
        found = both(X)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, found, expected))


@pytest.mark.parametrize("name", ["x", "bias", "slopes", "gradient"])
def test_an_array_on_the_host_does_not_pass(name):
    arrays = {"x": X, "bias": BIAS, "slopes": BIAS, "gradient": X}
    arrays[name] = np.asarray(arrays[name])
    neuron = jmn.Neuron.prelu(arrays["slopes"])
    with jax.transfer_guard("disallow"), pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed"):
        jmn.neuron_gradient(arrays["gradient"], arrays["x"], neuron, arrays["bias"], alpha=0.5)
