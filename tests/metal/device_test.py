"""The launcher for Apple GPUs, all of its code, on a module `Metal` whose GPU is the host (metal_fake/)."""

from __future__ import annotations

import mmap
import threading

import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron import NeuronType
from jax_mps_neuron._core.signature import Signature
from jax_mps_neuron._metal import pipelines
from jax_mps_neuron._ops import primitives
from jax_mps_neuron.metal import Device
from support import apple, zoo
from support.arrays import assert_close, draw

ALPHA = 1.25


def arrays(shape, dtype="float32"):
    """gradient, x and bias."""
    gradient, x = (np.asarray(draw(i, shape, dtype, 1 + i)) for i in range(2))
    return gradient, x, np.asarray(draw(2, shape[-1:], scale=0.5))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [("gelu", "float32"), ("prelu", "float32"), ("prelu", "float16"), ("hard_sigmoid", "bfloat16")],
)
def test_a_neuron_and_its_gradient(name, dtype, fake_metal):
    device = Device()
    neuron = zoo.neurons(6)[name]
    for shape in ((300, 6), (2, 3, 6)):
        gradient, x, bias = arrays(shape, dtype)
        y = device.neuron(x, neuron, bias, alpha=ALPHA)
        result = device.neuron_gradient(gradient, x, neuron, bias, alpha=ALPHA)
        assert y.dtype == result.data.dtype == x.dtype
        assert result.bias.dtype == np.float32
        assert_close(y, apple.neuron(x, neuron, bias, ALPHA), factor=2)
        expected = apple.neuron_gradient(gradient, x, neuron, bias, ALPHA)
        assert_close(result.data, expected.data, factor=2)
        assert_close(result.bias, expected.bias, factor=8)
        if name == "prelu":
            assert_close(result.a, expected.a, factor=8)
        else:
            assert result.a is None


@pytest.mark.parametrize("shape", [(), (1,), (0, 4), (4, 0)])
def test_without_a_bias_and_of_any_shape(shape, fake_metal):
    x = np.asarray(draw(0, shape))
    device = Device()
    result = device.neuron_gradient(x, x, jmn.Neuron.gelu())
    assert result.bias is None
    assert_close(device.neuron(x, jmn.Neuron.gelu()), apple.neuron(x, jmn.Neuron.gelu(), None, 1.0))
    assert_close(result.data, apple.neuron_gradient(x, x, jmn.Neuron.gelu(), None, 1.0).data)


def test_empty_sums_are_zero(fake_metal):
    x = np.zeros((0, 4), np.float32)
    result = Device().neuron_gradient(x, x, jmn.Neuron.prelu(np.ones(4)), np.ones(4, np.float16))
    np.testing.assert_array_equal(result.bias, np.zeros(4, np.float16))
    assert result.bias.dtype == np.float16
    np.testing.assert_array_equal(result.a, np.zeros(4))
    assert fake_metal.counts["dispatches"] == 0


def test_one_launch_and_one_more_for_strips(fake_metal):
    device = Device()
    gradient, x, bias = arrays((1000, 6))
    for n, dispatches in ((100, 1), (1000, 2)):
        fake_metal.counts.clear()
        device.neuron_gradient(gradient[:n], x[:n], jmn.Neuron.gelu(), bias)
        assert fake_metal.counts["dispatches"] == dispatches
        assert fake_metal.counts["command buffers"] == 1


def test_a_kernel_is_compiled_once(fake_metal):
    device = Device()
    for shape in ((3, 4), (5, 6), (2, 3, 4)):
        x = np.asarray(draw(0, shape))
        for alpha in (1.0, 2.0):
            device.neuron(x, jmn.Neuron.tanh(alpha, 0.6), alpha=alpha)
    assert fake_metal.counts["libraries"] == 1


def test_mixed_dtypes(fake_metal):
    gradient, x, bias = arrays((30, 6))
    half = x.astype(np.float16)
    result = Device().neuron_gradient(gradient, half, jmn.Neuron.gelu(), bias.astype(np.float16))
    expected = apple.neuron_gradient(gradient, half, jmn.Neuron.gelu(), bias.astype(np.float16), 1.0)
    assert result.data.dtype == result.bias.dtype == np.float16
    assert_close(result.data, expected.data)
    assert_close(result.bias, expected.bias)
    wide = Device().neuron_gradient(gradient.astype(np.float64), x, jmn.Neuron.gelu())  # JAX's float32
    assert_close(wide.data, apple.neuron_gradient(gradient, x, jmn.Neuron.gelu(), None, 1.0).data)


def pages(shape):
    """A float32 array that begins at a page."""
    size = int(np.prod(shape)) * 4
    return np.frombuffer(mmap.mmap(-1, size), np.float32).reshape(shape)


def test_whole_pages_are_not_copied(fake_metal):
    x = pages((mmap.PAGESIZE // 16, 4))
    x[:] = np.asarray(draw(0, x.shape))
    fake_metal.counts.clear()
    y = Device().neuron(x, jmn.Neuron.gelu())
    assert fake_metal.counts["copies"] == 1  # the scalars
    assert_close(y, apple.neuron(x, jmn.Neuron.gelu(), None, 1.0))


@pytest.mark.parametrize("begin", [0, 1])
def test_other_arrays_are_copied(begin, fake_metal):
    """Part of a page, and pages that Metal does not take."""
    x = pages((mmap.PAGESIZE // 16 * 2, 4))[begin : mmap.PAGESIZE // 16 + begin]
    fake_metal.counts.clear()
    fake_metal.faults["noCopy"] = "refused"
    y = Device().neuron(x, jmn.Neuron.gelu())
    assert fake_metal.counts["copies"] == 2
    assert_close(y, apple.neuron(x, jmn.Neuron.gelu(), None, 1.0))


def test_whole_pages_of_what_is_not_contiguous(fake_metal):
    """The copy that makes them so must live until the GPU is done with it."""
    rows = mmap.PAGESIZE // 16
    x = np.asarray(draw(0, (rows, 8)))[:, ::2]
    y = Device().neuron(x, jmn.Neuron.gelu())
    assert_close(y, apple.neuron(x, jmn.Neuron.gelu(), None, 1.0))
    operands = [np.asarray(draw(1, (8, rows // 4, 4)))[::2], np.asarray(draw(2, (8, 4)))[::2]]
    signature = Signature(NeuronType.TANH, forward=True, batch_axes=1)
    (y,) = Device().execute(signature, operands)
    (want,) = primitives.bind(
        signature, signature.named(list(map(jnp.asarray, operands))), lowering="inline"
    )
    assert_close(y, want, factor=2)


def test_arguments_are_bound_by_the_indices_of_the_source(fake_metal, monkeypatch):
    """Which the host and CUDA, that take buffers by position, do not see."""
    good = pipelines.source
    monkeypatch.setattr(
        pipelines,
        "source",
        lambda kernel: (
            good(kernel)
            .replace("x_all [[buffer(1)]]", "x_all [[buffer(0)]]")
            .replace("gradient_all [[buffer(0)]]", "gradient_all [[buffer(1)]]")
        ),
    )
    gradient, x, bias = arrays((30, 6))
    data = Device().neuron_gradient(gradient, x, jmn.Neuron.gelu(), bias).data
    monkeypatch.undo()
    swapped = apple.neuron_gradient(x, gradient, jmn.Neuron.gelu(), bias, 1.0)
    assert_close(data, swapped.data, factor=2)


def test_before_macos_15(fake_metal):
    fake_metal.faults["before macOS 15"] = "no math modes"
    assert Device().neuron(np.zeros(3, np.float32), jmn.Neuron.gelu()).tolist() == [0, 0, 0]


def test_results_outlive_their_device(fake_metal):
    x = np.asarray(draw(0, (40, 6)))
    results = [Device().neuron(x, jmn.Neuron.gelu()) for _ in range(20)]
    assert all((r == results[0]).all() for r in results)
    results[0][:] = 0  # and are the caller's
    assert (results[1] != 0).all()


def test_threads_share_a_device(fake_metal):
    device = Device()
    x = np.asarray(draw(0, (40, 6)))
    results = [None] * 8

    def run(i):
        results[i] = device.neuron(x + i, jmn.Neuron.gelu())

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for i, y in enumerate(results):
        assert_close(y, apple.neuron(x + i, jmn.Neuron.gelu(), None, 1.0))
    assert fake_metal.counts["libraries"] == 1


# What a primitive asks for

MATRICES = [
    # of gradient, x, scalars, bias, slope
    [(3,), (3,), (3,), (3,), (3,)],
    [(3,), (3,), (1,), (1,), (1,)],
    [(3,), (1,), (1,), (1,), (3,)],
    [(1,), (1,), (1,), (1,), (1,)],
    [(2, 3), (2, 1), (1, 1), (1, 3), (2, 3)],
    [(2, 1), (1, 3), (1, 1), (1, 1), (1, 1)],
    [(0,), (0,), (1,), (1,), (1,)],
]


@pytest.mark.parametrize("leading", MATRICES)
def test_matrices(leading, fake_metal):
    """As the primitive itself has it, operands shared along any matrix axis."""
    axes = len(leading[0])
    tails = [(2, 5, 4), (2, 5, 4), (4,), (4,), (4,)]
    operands = [np.asarray(draw(i, m + t)) for i, (m, t) in enumerate(zip(leading, tails, strict=True))]
    signature = Signature(
        NeuronType.PRELU, bias=True, bias_gradient=True, slope_gradient=True, batch_axes=axes
    )
    results = Device().execute(signature, operands)
    expected = primitives.bind(
        signature, signature.named(list(map(jnp.asarray, operands))), lowering="inline"
    )
    for got, want in zip(results, expected, strict=True):
        assert got.shape == want.shape
        assert_close(got, want, factor=8)
    signature = Signature(NeuronType.PRELU, forward=True, bias=True, batch_axes=axes)
    (y,) = Device().execute(signature, operands[1:])
    (want,) = primitives.bind(
        signature, signature.named(list(map(jnp.asarray, operands[1:]))), lowering="inline"
    )
    assert_close(y, want, factor=2)
