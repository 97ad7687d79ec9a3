"""python -m jax_mps_neuron."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from jax_mps_neuron import NeuronType
from jax_mps_neuron._lowering import native
from jax_mps_neuron._metal import device as metal_device
from jax_mps_neuron._tools import plot
from jax_mps_neuron._tools.cli import main
from support import apple
from support.arrays import assert_close


def test_doctor(capsys):
    assert main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "16 neuron types agree" in text
    assert "default lowering: auto" in text
    routes = dict(line.split()[:2] for line in text.splitlines() if len(line.split()) > 2)
    assert routes["cpu"] == ("inline" if native.unavailable_reason() else "custom_call")
    assert routes["METAL"] == routes["cuda"] == routes["tpu"] == "inline"
    assert (native.unavailable_reason() or native.isa()) in text


def test_doctor_sees_a_wrong_kernel(capsys, monkeypatch):
    from jax_mps_neuron._tools import doctor

    monkeypatch.setattr(doctor, "neuron", lambda x, n, bias: doctor.reference.neuron(x, n, bias) + 1e-3)
    assert main(["doctor"]) == 1
    assert "gelu: differs by" in capsys.readouterr().out


def test_lower(capsys):
    assert main(["lower", "--platform", "METAL", "--neuron", "gelu", "--shape", "8x3"]) == 0
    text = capsys.readouterr().out
    assert text.count("stablehlo.custom_call @jax_mps_neuron.neuron_gradient(") == 1
    assert "tensor<8x3xf32>" in text
    assert text.startswith("// METAL, lowering=custom_call; auto is inline here")
    assert (
        text.count("INSTANTIATE(9, neuron_gradient_gelu_float_bias_bias_gradient, neuron::gradient<") == 1
    )
    assert main(["lower", "--platform", "cuda", "--lowering", "auto", "--no-bias"]) == 0
    assert "stablehlo.custom_call" not in capsys.readouterr().out


def test_lower_what_cannot_be(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "Metal", None)
    metal_device.default_device.cache_clear()
    assert main(["lower", "--lowering", "metal"]) == 1
    assert "lowering 'metal' does not run here" in capsys.readouterr().err


@pytest.mark.parametrize("kind", list(NeuronType), ids=lambda kind: kind.name)
def test_plotted_curves(kind):
    """What is drawn are f and f' of Apple's table, but where f' jumps."""
    z, value, slope = plot.curves(kind)
    a, b, c = (np.asarray(getattr(plot.shown(kind), name), np.float64) for name in "abc")
    drawn = ~np.isnan(slope)
    assert drawn.sum() >= len(z) - 2  # the most bends of any type
    z = z.astype(np.float64)
    assert_close(value, apple.f(kind, z, a, b, c))
    assert_close(slope[drawn], apple.df(kind, z, a, b, c)[drawn])


def test_plot(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "figures"
    assert main(["plot", "--types", "relun", "gelu", "--output", str(folder)]) == 0
    assert capsys.readouterr().out == f"4 figures drawn in {folder}\n"
    figure = (folder / "relun-dark.svg").read_text()
    for words in ("RELUN, a = 0.1, b = 2", "f(z)", "f'(z)", "z = alpha x + bias"):
        assert f">{words}<" in figure
    assert (folder / "relun-light.svg").read_text() != figure
    again = ["plot", "--types", "gelu", "--themes", "light", "--output", str(tmp_path / "again")]
    assert main(again) == 0
    assert (tmp_path / "again" / "gelu-light.svg").read_bytes() == (folder / "gelu-light.svg").read_bytes()
    assert main([*again, "--format", "png"]) == 0
    assert (tmp_path / "again" / "gelu-light.png").read_bytes().startswith(b"\x89PNG")


def test_plot_where_it_cannot(capsys, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    assert main(["plot", "--types", "gelu", "--output", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.startswith(f"cannot write {tmp_path / 'file'}: ")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["plot", "--output", str(tmp_path)]) == 1
    assert "plot needs matplotlib: pip install" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lower", "--neuron", "swish"], "argument --neuron: must be one of none, relu"),
        (["lower", "--shape", "12"], "must be ROWSxCHANNELS, such as 4096x2048, got '12'"),
        (["bench", "--shapes=-1x4"], "must be positive lengths separated by x"),
        (
            ["bench", "--modes", "backward"],
            "argument --modes: must be one of 'forward', 'dx', 'dx + dbias'",
        ),
        (["bench", "--peers", "numpy"], "argument --peers: must be one of 'custom call', 'inline'"),
        (["bench", "--dtypes", "float64"], "invalid choice: 'float64'"),
        (["bench", "--sweep", "1GiB-1KiB"], "must be FIRST-LAST with FIRST at least 4B"),
        (["bench", "--sweep", "1XB-1GiB"], "such as 1KiB-1GiB, got '1XB-1GiB'"),
        (["bench", "--plot", "bars.jpg"], "must end in .png, .svg or .pdf, got 'bars.jpg'"),
        (["bench", "--repeats", "0"], "must be a positive integer, got '0'"),
        (
            ["bench", "--json", "/nonexistent/figures.json"],
            "must be a writable file, got '/nonexistent/figures.json'",
        ),
        (["plot", "--types", "swish"], "argument --types: must be one of none, relu"),
        (["plot", "--format", "gif"], "invalid choice: 'gif'"),
        (["lower", "--lowering", "fast"], "invalid choice: 'fast'"),
        ([], "required"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    assert message in capsys.readouterr().err


def test_doctor_without_a_backend():
    result = subprocess.run(
        [sys.executable, "-m", "jax_mps_neuron", "doctor"],
        env={**os.environ, "JAX_PLATFORMS": "cuda"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert "not run, because JAX has no backend" in result.stdout
    assert "Traceback" not in result.stderr


def test_module_runs():
    result = subprocess.run(
        [sys.executable, "-m", "jax_mps_neuron", "--help"], capture_output=True, text=True, check=True
    )
    assert "doctor" in result.stdout
