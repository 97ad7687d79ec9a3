"""Loading the library: another version, a newer FFI, none at all, and the choice of instructions."""

from __future__ import annotations

import shutil
import types

import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron._lowering import native
from support import apple
from support.programs import run_python

pytestmark = pytest.mark.usefixtures("native_library")


def test_a_library_of_a_newer_ffi_is_not_registered():
    newer = types.SimpleNamespace(jmn_ffi_api_major=lambda: 0, jmn_ffi_api_minor=lambda: 99)
    message = r"newer jaxlib \(FFI API 0\.99\) than this one \(0\.\d+\)"
    with pytest.raises(native._UnusableError, match=message):
        native._check_version(newer)
    other = types.SimpleNamespace(jmn_ffi_api_major=lambda: 1, jmn_ffi_api_minor=lambda: 0)
    with pytest.raises(native._UnusableError):
        native._check_version(other)
    native._check_version(native.library())


def test_a_library_of_another_version_is_not_used(monkeypatch, native_library):
    monkeypatch.setattr(native, "_ABI", native._ABI + 1)
    with pytest.raises(
        native._UnusableError, match=r"libjax_mps_neuron\S+ belongs to another version of this package"
    ):
        native._open()


WITHOUT_LIBRARY = """
import sys, shutil, pathlib
folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path({folder!r})
sys.meta_path = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
sys.path.insert(0, str(folder))
import numpy as np, jax, jax_mps_neuron as jmn
from jax_mps_neuron._lowering import native
assert pathlib.Path(jmn.__file__).parent.parent == folder, jmn.__file__
print(native.unavailable_reason())
x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
grad = jax.jit(jax.grad(lambda x, b: jmn.neuron(x, jmn.Neuron.gelu(), b).sum(), (0, 1)))
assert "custom_call" not in grad.lower(x, x[0]).as_text()
print(np.asarray(grad(x, x[0])[1]).tolist())
import warnings
call = jax.jit(lambda x: jmn.neuron(x, jmn.Neuron.gelu(), lowering="custom_call"))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert "jax_mps_neuron.neuron" in call.lower(x).as_text()
print(caught[0].message)
try:
    call(x)
except Exception as error:
    print(str(error).splitlines()[0])
"""


@pytest.mark.parametrize("library", ["absent", "broken"])
def test_everything_works_without_a_library(library, tmp_path):
    from pathlib import Path

    package = tmp_path / "jax_mps_neuron"
    shutil.copytree(
        Path(jmn.__file__).parent, package, ignore=shutil.ignore_patterns("*.so", "*.dylib", "__pycache__")
    )
    if library == "broken":
        for ending in (".so", ".dylib"):
            (package / f"libjax_mps_neuron{ending}").write_bytes(b"not a library")
    result = run_python(WITHOUT_LIBRARY.format(folder=str(tmp_path)))
    assert result.returncode == 0, result.stderr
    problem, gradient, warning, error = result.stdout.splitlines()
    assert problem in warning
    assert "contains the custom call jax_mps_neuron.neuron, which cannot run here" in warning
    assert "jax_mps_neuron.neuron" in error
    assert ("was not built" if library == "absent" else "does not load") in problem
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    expected = apple.neuron_gradient(np.ones((3, 4)), x, jmn.Neuron.gelu(), x[0])
    np.testing.assert_allclose(eval(gradient), expected.bias, rtol=1e-5)


def test_isa_environment_variable():
    code = "from jax_mps_neuron._lowering import native; print(native.isa())"
    assert run_python(code, JAX_MPS_NEURON_ISA="baseline").stdout.strip() == "baseline"
    wrong = run_python(code, JAX_MPS_NEURON_ISA="sse9")
    assert wrong.returncode == 1
    expected = f"JAX_MPS_NEURON_ISA must be one of {native.isas()} on this machine, got 'sse9'"
    assert expected in wrong.stderr
