"""Bad input is refused before it is traced, with the argument's name, its value and what it must be."""

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
    (ValueError, r"^bias must have shape \(4,\) to match x's channels, got \(3,\)", {"bias": v(3)}),
    (ValueError, r"^bias must have shape \(4,\) .* got \(5, 4\)", {"bias": v(5, 4)}),
    (ValueError, r"^bias must have shape \(4,\) .* got \(\)", {"bias": 0.5}),
    (ValueError, r"^bias must have shape \(4,\) .* got \(1,\)", {"bias": v(1)}),
    (TypeError, r"^bias must have dtype float32, .* got int32", {"bias": v(4, dtype=np.int32)}),
    (TypeError, r"^bias must be an array or a number, got 'b'", {"bias": "b"}),
    (
        ValueError,
        r"^x must have shape \[\.\.\., channels\] with bias, got a scalar",
        {"x": 1.0, "bias": v(1)},
    ),
    (
        TypeError,
        r"^(x|gradient) must have dtype float32, float16, bfloat16 or float64, got int32",
        {"x": 3},
    ),
    (TypeError, r"^(x|gradient) must have dtype .* got bool", {"x": v(4, dtype=bool)}),
    (TypeError, r"^(x|gradient) must have dtype .* got complex64", {"x": v(4, dtype=np.complex64)}),
    (
        TypeError,
        r"^(x|gradient) must have dtype .* got float8_e4m3fn",
        {"x": jnp.zeros(4, jnp.float8_e4m3fn)},
    ),
    (
        TypeError,
        r"^(x|gradient) must be an array or a number, got \[1\.0\]\. jnp\.asarray makes an array\.",
        {"x": [1.0]},
    ),
    (
        TypeError,
        r"^neuron must be a jax_mps_neuron\.Neuron, got 'gelu'\. Write Neuron\.gelu\(\)\.",
        {"neuron": "gelu"},
    ),
    (TypeError, r"^neuron must be .* got <NeuronType\.GELU: 15>", {"neuron": jmn.NeuronType.GELU}),
    (ValueError, r"^a must be PReLU's slopes, .* got None", {"neuron": jmn.Neuron(jmn.NeuronType.PRELU)}),
    (
        ValueError,
        r"^a \(PReLU's slopes\) must be a scalar or have shape \(4,\) .* got shape \(3,\)",
        {"neuron": jmn.Neuron.prelu(v(3))},
    ),
    (
        ValueError,
        r"^a \(PReLU's slopes\) must .* got shape \(5, 4\)",
        {"neuron": jmn.Neuron.prelu(v(5, 4))},
    ),
    (ValueError, r"^a \(PReLU's slopes\) must .* got shape \(0,\)", {"neuron": jmn.Neuron.prelu(v(0))}),
    (TypeError, r"^a must have dtype .* got int32", {"neuron": jmn.Neuron.prelu(v(4, dtype=np.int32))}),
    (
        ValueError,
        r"^x must have shape .* with PReLU's slopes",
        {"x": 1.0, "neuron": jmn.Neuron.prelu(v(2))},
    ),
    (
        ValueError,
        r"^a must be a scalar, got shape \(4,\): RELU has no parameter for each channel",
        {"neuron": jmn.Neuron.relu(v(4))},
    ),
    (ValueError, r"^b must be a scalar, got shape \(1,\)", {"neuron": jmn.Neuron.tanh(1.0, v(1))}),
    (ValueError, r"^c must be a scalar, got shape \(2,\)", {"neuron": jmn.Neuron.power(1.0, 0.0, v(2))}),
    (TypeError, r"^a must be an array or a number, got 'x'", {"neuron": jmn.Neuron.elu("x")}),
    (TypeError, r"^a must be a real number, got dtype complex", {"neuron": jmn.Neuron.elu(1j)}),
    (
        TypeError,
        r"^b must be a real number, got dtype bool",
        {"neuron": jmn.Neuron.tanh(1.0, np.bool_(True))},
    ),
]


@pytest.mark.parametrize(("error", "message", "arguments"), COMMON)
@pytest.mark.parametrize("function", [forward, gradient, reference])
def test_refuses(function, error, message, arguments):
    with pytest.raises(error, match=message):
        function(**arguments)


@pytest.mark.parametrize("function", [forward, gradient])
def test_refuses_options(function):
    with pytest.raises(ValueError, match=r"^alpha must be a scalar, got shape \(2,\)"):
        function(alpha=v(2))
    with pytest.raises(TypeError, match=r"^alpha must be a real number, got dtype complex"):
        function(alpha=2j)
    with pytest.raises(
        ValueError, match=r"^lowering must be one of 'auto', 'custom_call', 'inline', .*got 'fast'"
    ):
        function(lowering="fast")


def test_refuses_gradients():
    with pytest.raises(ValueError, match=r"^gradient must have x's shape \(5, 4\), got \(4,\)"):
        gradient(gradient=v(4))
    with pytest.raises(TypeError, match=r"^gradient must have dtype .* got int32"):
        gradient(gradient=v(5, 4, dtype=np.int32))
