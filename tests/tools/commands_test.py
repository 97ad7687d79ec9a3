"""The commands: their usage, where plot writes, and what doctor says about Metal."""

from __future__ import annotations

import subprocess

import pytest

from jax_mps_neuron import NeuronType
from jax_mps_neuron._tools import doctor
from jax_mps_neuron._tools.cli import main

PROGRAM = "usage: python -m jax_mps_neuron"


@pytest.mark.parametrize("command", ["doctor", "lower", "bench", "plot"])
def test_an_error_shows_the_usage_of_its_command(command, capsys):
    for arguments in (["nope"], ["--nope"], ["--nope", "gelu"]):
        with pytest.raises(SystemExit):
            main([command, *arguments])
        error = capsys.readouterr().err
        assert error.startswith(f"{PROGRAM} {command} ")
        assert "nope" in error.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments", [["plot", "nope"], ["plot", "--types", "nope"], ["lower", "--neuron", "nope"]]
)
def test_an_unknown_type_names_the_types(arguments, capsys):
    with pytest.raises(SystemExit):
        main(arguments)
    names = ", ".join(neuron_type.name.lower() for neuron_type in NeuronType)
    assert capsys.readouterr().err.endswith(f": must be one of {names}, got 'nope'\n")


def test_git_ignores_what_plot_draws_by_default(capsys, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    assert main(["plot", "relu", "--types", "gelu"]) == 0
    assert capsys.readouterr().out == "4 figures drawn in neurons\n"
    assert len(list((tmp_path / "neurons").glob("*.svg"))) == 4
    subprocess.run(["git", "init", "--quiet"], check=True)
    status = ["git", "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(status, capture_output=True, check=True).stdout == b""
    assert main(["plot", "relu", "--output", "mine"]) == 0
    assert b"mine/relu-light.svg" in subprocess.run(status, capture_output=True, check=True).stdout


@pytest.mark.parametrize(
    ("system", "expected"), [("Linux", "(needs macOS)"), ("Darwin", "(doctor --verbose prints the error)")]
)
def test_doctor_is_brief_about_metal(system, expected, capsys, monkeypatch):
    reason = "Metal is not available: the whole error, with a remedy"
    monkeypatch.setattr(doctor.metal_device, "unavailable_reason", lambda: reason)
    monkeypatch.setattr(doctor.platform, "system", lambda: system)
    assert main(["doctor"]) == 0
    assert f"\nMetal: not available {expected}\n" in capsys.readouterr().out
    assert main(["doctor", "--verbose"]) == 0
    assert "\nMetal: not available: the whole error, with a remedy\n" in capsys.readouterr().out
