"""`lowering="metal"`: the Metal kernel as a host callback inside of plain jax.jit, on metal_fake/'s GPU."""

from __future__ import annotations

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron._metal import device
from jax_mps_neuron.metal import MetalError
from support import zoo
from support.arrays import assert_close, draw, x64

GELU = jmn.Neuron.gelu()


def loss(x, bias, neuron=GELU, lowering="metal", alpha=1.25):
    return (jmn.neuron(x, neuron, bias, alpha=alpha, lowering=lowering) ** 2).sum()


def test_forward_and_backward_are_one_launch_each(fake_metal):
    x, bias = draw(0, (40, 6)), draw(1, (6,))
    step = jax.jit(jax.value_and_grad(loss, (0, 1)))
    step(x, bias)
    fake_metal.counts.clear()
    value, gradients = jax.block_until_ready(step(x, bias))
    assert fake_metal.counts["dispatches"] == 2
    expected = jax.value_and_grad(lambda x, b: loss(x, b, lowering="inline"), (0, 1))(x, bias)
    assert_close(value, expected[0], factor=8)
    for got, want in zip(gradients, expected[1], strict=True):
        assert_close(got, want, factor=8)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_vmap_is_one_launch(dtype, fake_metal):
    x, bias = draw(0, (3, 5, 6), dtype), draw(1, (3, 6))
    neuron = zoo.neurons(6)["prelu"]

    def gradient(x, bias, lowering):
        return jmn.neuron_gradient(x, x, neuron, bias, lowering=lowering)

    mapped = jax.jit(jax.vmap(lambda x, b: gradient(x, b, "metal")))
    mapped(x, bias)
    fake_metal.counts.clear()
    results = jax.block_until_ready(mapped(x, bias))
    assert fake_metal.counts["dispatches"] == 1
    for got, want in zip(results, jax.vmap(lambda x, b: gradient(x, b, "inline"))(x, bias), strict=True):
        assert_close(got, want, factor=8)


def test_other_transformations(fake_metal):
    x, bias = draw(0, (5, 6)), draw(1, (6,))

    def all_of(lowering):
        f = lambda x, b: loss(x, b, lowering=lowering)  # noqa: E731
        looped = jax.lax.scan(lambda b, row: (b + jax.grad(f)(row, b), None), bias, x)[0]
        return jax.grad(f)(x, bias), jax.hessian(f)(x[0], bias), jax.checkpoint(f)(x, bias), looped

    for got, want in zip(all_of("metal"), all_of("inline"), strict=True):
        assert_close(got, want, factor=20)


def test_as_the_default_and_outside_of_jit(fake_metal):
    x = draw(0, (5, 6))
    jmn.set_default_lowering("metal")
    try:
        y = jmn.neuron(x, GELU)
        assert fake_metal.counts["dispatches"] == 1
    finally:
        jmn.set_default_lowering("auto")
    assert_close(y, jmn.neuron(x, GELU, lowering="inline"))


def test_large_operands(fake_metal):
    """More than a callback could be handed without waiting for its operands."""
    x = draw(0, (2000, 500))

    @jax.jit
    def f(x):
        for _ in range(3):
            x = jmn.neuron(x * 1.5, jmn.Neuron.relu(0.1), lowering="metal") @ jnp.eye(500)
        return x

    expected = x
    for _ in range(3):
        expected = jmn.reference.neuron(expected * 1.5, jmn.Neuron.relu(0.1))
    assert_close(f(x), expected, factor=4)


def test_a_failing_launch_is_an_exception(fake_metal):
    x, bias = draw(0, (40, 6)), draw(1, (6,))
    step = jax.jit(jax.grad(loss))
    good = step(x, bias)
    fake_metal.faults["execution"] = "the device is lost"
    with pytest.raises(Exception, match="the device is lost"):
        jax.block_until_ready(step(x, bias))
    np.testing.assert_array_equal(step(x, bias), good)


def test_without_metal(monkeypatch):
    monkeypatch.setitem(sys.modules, "Metal", None)
    device.default_device.cache_clear()
    with pytest.raises(
        MetalError, match=r"^lowering 'metal' does not run here. Metal is not available: it needs macOS"
    ):
        jax.jit(loss)(draw(0, (5, 6)), draw(1, (6,)))


def test_float64(fake_metal):
    with (
        x64(True),
        pytest.raises(TypeError, match=r"^x must have dtype float32.* with lowering 'metal', got float64"),
    ):
        jmn.neuron(draw(0, (5, 6), "float64"), GELU, lowering="metal")


def test_where_there_are_no_callbacks(fake_metal):
    traced = jax.jit(jax.grad(loss)).trace(draw(0, (5, 6)), draw(1, (6,)))
    with pytest.raises(
        ValueError, match=r"needs host callbacks, which METAL does not have.*jmn\.metal\.jit"
    ):
        traced.lower(lowering_platforms=("METAL",))
