"""Bad input is refused before it is traced, with the argument's name, its value and what it may be."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn

X = np.zeros((5, 4), np.float32)
GELU = jmn.Neuron.gelu()


def forward(x=X, neuron=GELU, bias=None, **options):
    return jmn.neuron(x, neuron, bias, **options)


def gradient(x=X, neuron=GELU, bias=None, gradient=None, **options):
    gradient = x if gradient is None else gradient
    return jmn.neuron_gradient(gradient, x, neuron, bias, **options)


def reference(x=X, neuron=GELU, bias=None):
    return jmn.reference.neuron(x, neuron, bias)


def v(*shape, dtype=np.float32):
    return np.zeros(shape, dtype)


COMMON = [
    (ValueError, r"bias has shape \(3,\), but x has 4 channels \(its last axis\)", {"bias": v(3)}),
    (ValueError, r"bias has shape \(5, 4\)", {"bias": v(5, 4)}),
    (ValueError, r"bias has shape \(\)", {"bias": 0.5}),
    (ValueError, r"bias has shape \(1,\), but x has 4 channels", {"bias": v(1)}),
    (TypeError, r"bias has dtype int32; it may be float32", {"bias": v(4, dtype=np.int32)}),
    (TypeError, r"bias is 'b'", {"bias": "b"}),
    (ValueError, r"x is a scalar, which has no channels; bias may be None", {"x": 1.0, "bias": v(1)}),
    (TypeError, r"x has dtype int32; it may be float32, float16, bfloat16 or float64", {"x": 3}),
    (TypeError, r"x has dtype bool", {"x": v(4, dtype=bool)}),
    (TypeError, r"x has dtype complex64", {"x": v(4, dtype=np.complex64)}),
    (TypeError, r"x has dtype float8_e4m3fn", {"x": jnp.zeros(4, jnp.float8_e4m3fn)}),
    (TypeError, r"x is \[1\.0\]; it may be an array \(jnp\.asarray", {"x": [1.0]}),
    (TypeError, r"neuron is 'gelu'; it may be a jax_mps_neuron.Neuron", {"neuron": "gelu"}),
    (TypeError, r"neuron is <NeuronType.GELU: 15>", {"neuron": jmn.NeuronType.GELU}),
    (ValueError, r"PRELU without slopes; .*\[channels\]", {"neuron": jmn.Neuron(jmn.NeuronType.PRELU)}),
    (ValueError, r"a \(PRELU's slopes\) has shape \(3,\), but x has 4", {"neuron": jmn.Neuron.prelu(v(3))}),
    (ValueError, r"a \(PRELU's slopes\) has shape \(\)", {"neuron": jmn.Neuron.prelu(0.25)}),
    (TypeError, r"a \(PRELU's slopes\) has dtype int", {"neuron": jmn.Neuron.prelu(v(4, dtype=np.int32))}),
    (ValueError, r"x is a scalar", {"x": 1.0, "neuron": jmn.Neuron.prelu(v(1))}),
    (
        ValueError,
        r"a has shape \(4,\); it may be a scalar \(RELU has no",
        {"neuron": jmn.Neuron.relu(v(4))},
    ),
    (ValueError, r"b has shape \(1,\)", {"neuron": jmn.Neuron.tanh(1.0, v(1))}),
    (ValueError, r"c has shape \(2,\)", {"neuron": jmn.Neuron.power(1.0, 0.0, v(2))}),
    (TypeError, r"a is 'x'; it may be an array", {"neuron": jmn.Neuron.elu("x")}),
    (TypeError, r"a has dtype complex", {"neuron": jmn.Neuron.elu(1j)}),
    (TypeError, r"b has dtype bool", {"neuron": jmn.Neuron.tanh(1.0, np.bool_(True))}),
]


@pytest.mark.parametrize(("error", "message", "arguments"), COMMON)
@pytest.mark.parametrize("function", [forward, gradient, reference])
def test_refuses(function, error, message, arguments):
    with pytest.raises(error, match=message):
        function(**arguments)


@pytest.mark.parametrize("function", [forward, gradient])
def test_refuses_options(function):
    with pytest.raises(ValueError, match=r"alpha has shape \(2,\); it may be a scalar"):
        function(alpha=v(2))
    with pytest.raises(TypeError, match=r"alpha has dtype complex"):
        function(alpha=2j)
    with pytest.raises(
        ValueError, match="lowering is 'fast'; it may be one of 'auto', 'custom_call', 'inline'"
    ):
        function(lowering="fast")


def test_refuses_gradients():
    with pytest.raises(ValueError, match=r"gradient has shape \(4,\); it may be x's, \(5, 4\)"):
        gradient(gradient=v(4))
    with pytest.raises(TypeError, match=r"gradient has dtype int32"):
        gradient(gradient=v(5, 4, dtype=np.int32))
