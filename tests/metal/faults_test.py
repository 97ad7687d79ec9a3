"""Errors of an Apple GPU, on a module `Metal` whose GPU is the host (metal_fake/)."""

from __future__ import annotations

import platform
import sys

import jax
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron import NeuronType
from jax_mps_neuron._core.signature import Signature
from jax_mps_neuron._metal import pipelines
from jax_mps_neuron._metal.device import unavailable_reason
from jax_mps_neuron.metal import Device, Kernel, MetalError
from support import apple
from support.arrays import assert_close, draw


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ("Linux", r"Metal is not available: it needs macOS with an Apple GPU, got Linux on \w+\.$"),
        (
            "Darwin",
            r"Metal is not available: .*not installed.* run pip install '\.\[metal\]' in a checkout",
        ),
    ],
)
def test_without_metal(system, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "Metal", None)
    monkeypatch.setattr(platform, "system", lambda: system)
    with pytest.raises(MetalError, match=message):
        Device()


def test_without_a_gpu(fake_metal):
    fake_metal.faults["device"] = "none"
    with pytest.raises(MetalError, match="Metal finds no GPU"):
        Device()
    fake_metal.faults["newCommandQueue"] = "none"
    with pytest.raises(MetalError, match="makes no command queue"):
        Device()
    fake_metal.faults["device"] = "none"
    assert "Metal finds no GPU" in unavailable_reason()
    assert unavailable_reason() == ""  # and is found again


def test_a_compile_error_shows_the_log_and_the_line(fake_metal, monkeypatch):
    good = pipelines.source(Kernel(NeuronType.TANH, forward=True))
    broken = good.replace("return p.a * tanh(p.b * z);", "return p.a * tanh(p.b * zz);")
    monkeypatch.setattr(pipelines, "source", lambda kernel: broken)
    device = Device()
    with pytest.raises(MetalError) as error:
        device.neuron(np.ones(3, np.float32), jmn.Neuron.tanh())
    assert "neuron_forward_tanh_float does not compile on a host that runs Metal source" in str(error.value)
    line = next(i for i, line in enumerate(broken.splitlines(), 1) if "zz" in line)
    assert f"program_source:{line}:" in str(error.value)
    assert (
        f"{line} |   NEURON_INLINE T value(T z, Parameters<T> p) {{ return p.a * tanh(p.b * zz); }}"
        in str(error.value)
    )
    monkeypatch.undo()
    assert device.neuron(np.zeros(3, np.float32), jmn.Neuron.tanh()).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("fault", "how", "message"),
    [
        ("newLibrary", "broken", "does not compile on .*:\nbroken"),
        (
            "newFunction",
            "broken",
            "the library of neuron_gradient_gelu_float_bias_bias_gradient has no function",
        ),
        ("newPipeline", "broken", "makes no pipeline of neuron_.*: broken"),
        ("newBuffer", "0", r"has no memory for the result \(3600 bytes\)"),
        ("newBuffer", "1", r"has no memory for the partial sums \(48 bytes\)"),
        ("newBuffer", "2", r"has no memory for the sums \(24 bytes\)"),
        ("execution", "broken", "neuron_gradient_gelu_float_bias_bias_gradient failed on .*: broken"),
    ],
)
def test_a_fault_says_what_and_passes(fault, how, message, fake_metal):
    device = Device()
    gradient, x, bias = (np.asarray(draw(i, shape)) for i, shape in enumerate([(150, 6), (150, 6), (6,)]))
    fake_metal.faults[fault] = how
    with pytest.raises(MetalError, match=message):
        device.neuron_gradient(gradient, x, jmn.Neuron.gelu(), bias)
    data = device.neuron_gradient(gradient, x, jmn.Neuron.gelu(), bias).data
    assert_close(data, apple.neuron_gradient(gradient, x, jmn.Neuron.gelu(), bias, 1.0).data, factor=2)


def test_an_encoder_is_ended_whatever_happens(fake_metal, monkeypatch):
    """PyObjC may raise, and so may a key press; the fixture looks for encoders that are not ended."""
    device = Device()
    x = np.ones((3, 4), np.float32)

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(fake_metal._Encoder, "setBytes_length_atIndex_", interrupted)
    with pytest.raises(KeyboardInterrupt):
        device.neuron(x, jmn.Neuron.relu())
    monkeypatch.undo()
    assert (device.neuron(x, jmn.Neuron.relu()) == x).all()


def test_too_long_for_a_buffer(fake_metal, monkeypatch):
    monkeypatch.setattr(fake_metal._Device, "maxBufferLength", lambda self: 64)
    with pytest.raises(MetalError, match=r"x must have at most 64 bytes on .*, got 68"):
        Device().neuron(np.zeros(17, np.float32), jmn.Neuron.gelu())


def test_arguments_are_checked_as_in_jax(fake_metal):
    device = Device()
    x = np.zeros((3, 4), np.float32)
    with pytest.raises(ValueError, match=r"bias must have shape \(4,\) to match x's channels, got \(3,\)"):
        device.neuron(x, jmn.Neuron.gelu(), np.zeros(3))
    with pytest.raises(TypeError, match=r"x must be an array or a number, got \[\[1.0\]\]"):
        device.neuron([[1.0]], jmn.Neuron.gelu())
    with pytest.raises(TypeError, match=r"gradient must be an array or a number, got \[1.0\]"):
        device.neuron_gradient([1.0], x, jmn.Neuron.gelu())
    with pytest.raises(TypeError, match=r"x must have dtype .*, got int32"):
        device.neuron(np.zeros(3, np.int32), jmn.Neuron.gelu())
    with pytest.raises(ValueError, match=r"gradient must have x's shape \(3, 4\), got \(4,\)"):
        device.neuron_gradient(x[0], x, jmn.Neuron.gelu())
    with pytest.raises(
        TypeError, match="x must have dtype float32, float16 or bfloat16 on Metal, got float64"
    ):
        device.execute(Signature(NeuronType.GELU, forward=True), [np.zeros(3), np.zeros(4)])


def test_a_failing_launch_under_metal_jit(fake_metal):
    """The device's words, wherever in the step it fails; what was not yet given away is still there."""

    def step(x, bias):
        return x - jax.grad(lambda x: (jmn.neuron(x, jmn.Neuron.gelu(), bias) ** 2).sum())(x)

    x, bias = 2 * draw(0, (40, 6)), draw(1, (6,))
    staged = jmn.metal.jit(step, donate_argnums=0)
    expected = jax.jit(step)(x, bias)
    for _ in range(2):
        fake_metal.faults["execution"] = "the device is lost"
        with pytest.raises(
            MetalError, match=r"neuron_forward_gelu_float_bias failed on .*: the device is lost"
        ):
            staged(x, bias)
        assert not x.is_deleted()
    assert_close(staged(x, bias), expected, factor=4)
