"""examples/train_sharded.py, as a user runs it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_sharded.py"

for module in ("matplotlib", "optax", "sklearn", "tqdm"):
    pytest.importorskip(module, reason=f"the demo needs {module}, which is not installed")


pytestmark = pytest.mark.slow  # each test starts a process that trains


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments],
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_losses_are_those_of_one_device(native_library):
    result = run("--epochs", "2", "--mesh", "2x1", "4x1", "8x1", "4x2")
    assert result.returncode == 0, result.stderr
    rows = re.findall(r"^ *(\d+x\d+) .* ([\d.]+e[+-]\d+)$", result.stdout, re.MULTILINE)
    assert [mesh for mesh, _ in rows] == ["1x1", "2x1", "4x1", "8x1", "4x2"]
    assert all(float(difference) < 1e-5 for _, difference in rows)
    # XLA of some old versions gathers each row's label, and its score and gradient at that. No channels.
    gathered = set(re.findall(r"all-gather .*: (.*)$", result.stdout, re.MULTILINE))
    assert gathered <= ({"64x1", "64x1x2", "32x1", "32x1x2"} if jax.__version_info__ < (0, 5) else set())
    assert "all-reduce over model: 16x128" in result.stdout


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ("3x1", "must be DATAxMODEL, such as 4x2"),
        ("4", "got '4'"),
        ("64x1", "--mesh is 64x1, but there are 8"),
    ],
)
def test_a_mesh_that_cannot_be(mesh, message):
    result = run("--mesh", mesh)
    assert result.returncode == 2
    assert message in result.stderr
