"""Our kernels against Apple's MPSMatrixNeuron and MPSMatrixNeuronGradient: on a Mac (`pytest -m metal`).

The comparison itself is tested on the stand-ins of metal_fake/.
"""

from __future__ import annotations

import re
import sys

import pytest

from jax_mps_neuron import NeuronType
from jax_mps_neuron._metal.device import default_device, unavailable_reason
from jax_mps_neuron._tools import compare
from jax_mps_neuron._tools.cli import main
from jax_mps_neuron.metal import Device

# Of the largest result: Apple's exp, log, pow and tanh are of its own precision.
TOLERANCE = {"float32": 1e-4, "float16": 5e-3}


@pytest.fixture
def mac():
    if unavailable_reason():
        pytest.skip(f"no Apple GPU to compare with: {unavailable_reason()}")
    return default_device()


def check(device, kind, dtype):
    d = compare.difference(device, kind, dtype)
    assert all(difference < TOLERANCE[dtype] for difference in (d.y, d.data, d.bias)), d  # NaN is not


@pytest.mark.metal
@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("kind", NeuronType)
def test_as_apple_has_it(kind, dtype, mac):
    check(mac, kind, dtype)


@pytest.mark.metal
def test_the_table(mac, capsys):
    """Prints all differences, those at the kinks among them: what our reading of the tables is worth."""
    with capsys.disabled():
        print("\n" + compare.report(mac))


@pytest.mark.parametrize("kind", [NeuronType.GELU, NeuronType.PRELU])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_the_comparison_on_a_stand_in(kind, dtype, fake_metal):
    check(Device(), kind, dtype)


def test_a_difference_is_seen(fake_metal, monkeypatch):
    import MetalPerformanceShaders

    class Wrong(MetalPerformanceShaders.MPSMatrixNeuronGradient):
        def setAlpha_(self, alpha):  # noqa: N802
            self.alpha = 1.5 * alpha

    monkeypatch.setattr(MetalPerformanceShaders, "MPSMatrixNeuronGradient", Wrong)
    d = compare.difference(Device(), NeuronType.GELU, "float32")
    assert d.y < 1e-5 < 0.1 < d.data


@pytest.mark.parametrize("error", ["objc.error", "ValueError"])  # an NSInvalidArgumentException is that
def test_what_apple_refuses_is_a_line_of_the_report(error, fake_metal, monkeypatch):
    import MetalPerformanceShaders
    import objc

    class Picky(MetalPerformanceShaders.MPSMatrixNeuronGradient):
        def setNeuronType_parameterA_parameterB_parameterC_(self, kind, *parameters):  # noqa: N802
            if kind == NeuronType.TANH:
                raise (objc.error if error == "objc.error" else ValueError)("no such type")
            super().setNeuronType_parameterA_parameterB_parameterC_(kind, *parameters)

    monkeypatch.setattr(MetalPerformanceShaders, "MPSMatrixNeuronGradient", Picky)
    monkeypatch.setattr(compare, "TYPES", [NeuronType.TANH, NeuronType.GELU])
    monkeypatch.setattr(compare, "edges", lambda device: [])
    tanh, _, gelu, *_ = compare.report(Device()).splitlines()[1:]
    assert tanh.split(maxsplit=2) == ["tanh", "float32", "MPSMatrixNeuronGradient failed: no such type"]
    assert all(float(number) < 1e-5 for number in gelu.split()[2:])


def test_the_kinks_on_a_stand_in(fake_metal):
    found = compare.edges(Device())
    assert {e.type for e in found} == set(compare.EDGES)
    assert all(e.apples == pytest.approx(e.ours) for e in found)
    relun = {e.z: e.ours for e in found if e.type is NeuronType.RELUN}
    assert relun == {-1.0: 0.25, 0.0: 1.0, 1.0: 1.0, 5.5: 1.0, 6.0: 0.0, 7.0: 0.0}


@pytest.mark.slow  # compiles every kernel
def test_doctor_prints_the_comparison(fake_metal, monkeypatch, capsys):
    monkeypatch.setattr(compare, "TYPES", [NeuronType.GELU])
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "Metal: a host that runs Metal source" in text
    assert re.search(r"^gelu +float16 +\d\.\de", text, re.MULTILINE)
    assert re.search(r"^relun +6.0 +0 +0$", text, re.MULTILINE)


def test_doctor_without_apples_kernels(fake_metal, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "MetalPerformanceShaders", None)
    fake_metal.counts.clear()
    assert main(["doctor"]) == 0
    assert "not available: Apple's kernels need macOS and the extra 'metal'" in capsys.readouterr().out
    assert fake_metal.counts["libraries"] == 0  # nothing is compiled for a comparison with nothing
