"""A source tree without a library, which Python imports in place of an installed package."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import jax_mps_neuron as jmn
from support.programs import run_python

# The finder of an editable installation precedes sys.path.
IMPORT = """
import sys, warnings
sys.meta_path = [f for f in sys.meta_path if "Redirecting" not in type(f).__name__]
sys.path.insert(0, {folder!r})
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import jax_mps_neuron as jmn
assert jmn.__file__.startswith({folder!r}), jmn.__file__
jmn.neuron(1.0, jmn.Neuron.gelu())
print([str(w.message) for w in caught if "jax_mps_neuron" in str(w.message)])
"""


@pytest.mark.parametrize("is_checkout", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_one_warning_in_a_checkout(is_checkout, tmp_path):
    for source in map(Path, jmn.__path__):
        ignore = shutil.ignore_patterns("*.so", "*.dylib", "__pycache__", "kernels")
        shutil.copytree(source, tmp_path / "jax_mps_neuron", ignore=ignore, dirs_exist_ok=True)
    if is_checkout:
        (tmp_path / "CMakeLists.txt").touch()
    found = run_python(IMPORT.format(folder=str(tmp_path)))
    assert found.returncode == 0, found.stderr
    warned = f"jax_mps_neuron runs inline: the native library was not built for the source tree {tmp_path}"
    assert found.stdout.count(warned) == is_checkout
    assert found.stdout.count("jax_mps_neuron") == is_checkout
