"""PReLU with one slope for all channels, through Apple's classes and the Metal device."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron.metal import Device
from support import apple
from support.arrays import assert_close, draw

SLOPE = 0.3
ALPHA = 1.25
SHAPES = pytest.mark.parametrize("shape", [(), (1,)], ids=["scalar", "one"])


def neurons(shape, channels=6):
    """One slope of that shape, and the same slope for each channel."""
    return jmn.Neuron.prelu(np.full(shape, SLOPE)), jmn.Neuron.prelu(np.full(channels, SLOPE))


def assert_shared(gradient, per_channel, shape):
    """Asserts that a slope gradient is the sum of those of the channels."""
    assert gradient.shape == shape
    assert_close(gradient, np.asarray(per_channel, np.float64).sum().reshape(shape), factor=8)


@SHAPES
@pytest.mark.parametrize("rows", [(30,), (2, 5)])
def test_device(shape, rows, fake_metal):
    one, each = neurons(shape)
    gradient, x = (np.asarray(draw(i, (*rows, 6))) for i in range(2))
    bias = np.asarray(draw(2, (6,)))
    for b in (None, bias):
        y = Device().neuron(x, one, b, alpha=ALPHA)
        assert_close(y, apple.neuron(x, each, b, ALPHA), factor=2)
        got = Device().neuron_gradient(gradient, x, one, b, alpha=ALPHA)
        want = apple.neuron_gradient(gradient, x, each, b, ALPHA)
        assert all(type(v) is np.ndarray for v in got if v is not None)
        assert_close(got.data, want.data, factor=2)
        assert_shared(got.a, want.a, shape)
        if b is not None:
            assert_close(got.bias, want.bias, factor=8)


@SHAPES
def test_device_on_a_scalar(shape, fake_metal):
    """A scalar x is one channel to a PReLU of one slope, as in `jax_mps_neuron.neuron`."""
    neuron, x = neurons(shape)[0], np.float32(-2.0)
    y = Device().neuron(x, neuron)
    assert y.shape == ()
    assert y == np.float32(-2 * SLOPE)
    got = Device().neuron_gradient(np.float32(0.5), x, neuron)
    assert got.data.shape == ()
    assert got.a.shape == shape
    np.testing.assert_array_equal(got.data, np.float32(0.5) * np.float32(SLOPE))
    np.testing.assert_array_equal(got.a, np.full(shape, -1.0))


@SHAPES
@pytest.mark.parametrize("batch", [(), (2,)], ids=["matrix", "batch"])
@pytest.mark.parametrize("vectors", ["none", "shared", "each"])
def test_matrix_neuron(shape, batch, vectors):
    one, each = neurons(shape)
    gradient, x = (draw(i, (*batch, 5, 6)) for i in range(2))
    bias = {"none": None, "shared": draw(2, (6,)), "each": draw(2, (*batch, 6))}[vectors]
    kernels = [jmn.MatrixNeuron(n, alpha=ALPHA) for n in (one, each)]
    got, want = (kernel.encode(x, bias) for kernel in kernels)
    np.testing.assert_array_equal(got, want)
    backward = [jmn.MatrixNeuronGradient(n, alpha=ALPHA) for n in (one, each)]
    got, want = (kernel.encode(gradient, x, bias) for kernel in backward)
    np.testing.assert_array_equal(got.data, want.data)
    assert_shared(got.a, want.a, shape)
    if bias is not None:
        np.testing.assert_array_equal(got.bias, want.bias)
    d_kernel = jax.grad(lambda kernel: (kernel.encode(x, bias) * gradient).sum())(kernels[0])
    assert_shared(d_kernel.neuron.a, want.a, shape)


@SHAPES
def test_matrix_neuron_gradient_of_a_half_slope(shape):
    """The sum over channels and matrices is rounded once, to the slope's dtype."""
    gradient, x = (draw(i, (4, 32, 6)) for i in range(2))
    neuron = jmn.Neuron.prelu(jnp.full(shape, SLOPE, jnp.float16))
    got = jmn.MatrixNeuronGradient(neuron).encode(gradient, x, jnp.zeros(6))
    wide = np.asarray(gradient, np.float64) * np.minimum(np.asarray(x, np.float64), 0)
    assert got.a.dtype == jnp.float16
    np.testing.assert_array_equal(got.a, wide.sum().astype(np.float16).reshape(shape))


@SHAPES
@pytest.mark.parametrize("batch", [(), (2,)], ids=["matrix", "batch"])
def test_matrix_fully_connected(shape, batch):
    one, each = neurons(shape, 3)
    x, bias = draw(0, (*batch, 5, 6)), draw(2, (3,))
    for w in (draw(1, (6, 3)), draw(1, (*batch, 6, 3))):
        got, want = (jmn.MatrixFullyConnected(n, alpha=ALPHA).encode(x, w, bias) for n in (one, each))
        np.testing.assert_allclose(got, want, rtol=1e-6)

        def loss(neuron, x=x, w=w):
            return (jmn.MatrixFullyConnected(neuron, alpha=ALPHA).encode(x, w, bias) ** 2).sum()

        assert_shared(jax.grad(loss)(one).a, jax.grad(loss)(each).a, shape)
