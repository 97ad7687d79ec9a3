"""Buffers as callers may hand them in: misaligned, odd-sized, shared by operands and results."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from support import apple
from support.arrays import assert_close, draw

pytestmark = pytest.mark.usefixtures("native_library")

GELU = jmn.Neuron.gelu()


def misaligned(values: np.ndarray, offset: int) -> np.ndarray:
    """A copy of float32 values that begins `offset` elements behind a multiple of 64 bytes."""
    memory = np.empty(values.size + 16 + offset, np.float32)
    start = -memory.ctypes.data % 64 // 4 + offset
    view = memory[start : start + values.size].reshape(values.shape)
    view[...] = values
    assert view.ctypes.data % 64 == 4 * offset % 64
    return view


@pytest.mark.parametrize("offset", [0, 1, 3, 5, 8])
@pytest.mark.parametrize("shape", [(1,), (7, 3), (33, 17), (101, 129)], ids=str)
def test_misaligned_arrays(shape, offset):
    """NumPy's memory at any element. JAX copies what it does not take over as it is, by its version what is
    not aligned to 64 bytes; cpu_kernels_test.py hands misaligned memory to the kernels themselves."""
    x, gradient, bias = (
        misaligned(np.asarray(draw(i, s)), offset) for i, s in enumerate((shape, shape, shape[-1:]))
    )
    expected = apple.neuron_gradient(gradient, x, GELU, bias)
    for take in (jnp.asarray, jax.device_put):
        operands = [take(v) for v in (x, gradient, bias)]
        actual = jmn.neuron_gradient(operands[1], operands[0], GELU, operands[2], lowering="custom_call")
        assert_close(actual.data, expected.data)
        assert_close(actual.bias, expected.bias, factor=8)


def test_slices_of_one_buffer():
    """Operands that XLA may take from inside of another array."""
    packed = draw(0, (3 * 35 + 7,))

    @jax.jit
    def step(packed):
        x, gradient, bias = packed[1:36], packed[37:72], packed[73:80]
        shaped = gradient.reshape(5, 7), x.reshape(5, 7)
        return jmn.neuron_gradient(*shaped, GELU, bias, lowering="custom_call")

    p = np.asarray(packed)
    expected = apple.neuron_gradient(p[37:72].reshape(5, 7), p[1:36].reshape(5, 7), GELU, p[73:80])
    actual = step(packed)
    assert_close(actual.data, expected.data)
    assert_close(actual.bias, expected.bias, factor=4)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(5,), (31, 33), (700, 1001)], ids=str)
def test_gradient_that_is_x_and_is_donated(shape, dtype):
    """One buffer for both operands and, if that were allowed, the result: x must not be overwritten."""
    x = draw(0, shape, dtype)
    expected = apple.neuron_gradient(x, x, GELU)
    call = jax.jit(lambda v: jmn.neuron_gradient(v, v, GELU, lowering="custom_call").data, donate_argnums=0)
    assert_close(call(x + 0), expected.data)


@pytest.mark.parametrize("shape", [(5,), (31, 33), (700, 1001)], ids=str)
def test_gradient_that_is_used_again(shape):
    """The data gradient takes a buffer that others read later, or that is donated: the same results."""
    x, gradient = draw(0, shape), draw(1, shape)

    def step(gradient, x):
        data = jmn.neuron_gradient(gradient, x, GELU, lowering="custom_call").data
        return data, data + gradient

    data, total = jax.jit(step)(gradient, x)
    expected = apple.neuron_gradient(gradient, x, GELU).data
    assert_close(data, expected)
    np.testing.assert_array_equal(total, np.asarray(data) + np.asarray(gradient))
    donated = jax.jit(step, donate_argnums=0)(gradient + 0, x)
    np.testing.assert_array_equal(donated[0], data)
    np.testing.assert_array_equal(donated[1], total)
