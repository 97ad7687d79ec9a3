"""The fixtures of all tests."""

from __future__ import annotations

import gc
import importlib
import os
import sys
from functools import partial
from pathlib import Path

import pytest

pytest.register_assert_rewrite("support")

# isort: off
from support import programs_cache  # noqa: F401, before JAX
from support import devices  # noqa: F401, before anything asks for a device
# isort: on

import jax
import numpy as np

from jax_mps_neuron._core.evaluation import evaluate
from jax_mps_neuron._lowering import native
from jax_mps_neuron._metal import device as metal_device
from support.arrays import DTYPES, x64
from support.metal_host import build


def pytest_sessionstart():
    """JAX_MPS_NEURON_REQUIRE_NATIVE makes what would skip half of the tests a failure."""
    if os.environ.get("JAX_MPS_NEURON_REQUIRE_NATIVE") and native.unavailable_reason():
        pytest.exit(f"the native library is required, but {native.unavailable_reason()}", returncode=1)


@pytest.fixture(params=DTYPES)
def dtype(request):
    """Each dtype, with float64 enabled for it alone."""
    if request.param == "float64":
        with x64(True):
            yield request.param
    else:
        yield request.param


@pytest.fixture(params=["custom_call", "inline"])
def lowering(request):
    if request.param == "custom_call" and native.unavailable_reason():
        pytest.skip(f"no custom call: {native.unavailable_reason()}")
    return request.param


@pytest.fixture
def native_library():
    """The loaded library; the tests that need it are skipped without it."""
    if native.unavailable_reason():
        pytest.skip(f"no native library: {native.unavailable_reason()}")
    return native.library()


def shared(tmp_path_factory) -> Path:
    """The temporary folder of this run of the tests, which pytest-xdist's workers share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


FAKE_METAL = Path(__file__).parent / "support" / "metal_fake"


@pytest.fixture(scope="session")
def metal_cache(tmp_path_factory):
    """Where compiled Metal source is kept; what executes it is skipped, with the reason, where no compiler
    takes it."""
    folder = shared(tmp_path_factory) / "metal"
    folder.mkdir(exist_ok=True)
    if problem := build.problem(folder):
        if os.environ.get("JAX_MPS_NEURON_REQUIRE_NATIVE"):
            pytest.fail(problem)
        pytest.skip(problem)
    return folder


@pytest.fixture
def fake_metal(metal_cache, monkeypatch):
    """The module `Metal` of metal_fake/, in place of PyObjC's; `default_device` is on it."""
    names = ("Metal", "MetalPerformanceShaders", "objc")
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.syspath_prepend(str(FAKE_METAL))
    monkeypatch.setenv("JMN_FAKE_METAL_CACHE", str(metal_cache))
    metal_device.default_device.cache_clear()
    metal = importlib.import_module("Metal")
    yield metal
    gc.collect()
    assert not metal.counts["encoders not ended"]
    metal_device.default_device.cache_clear()
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels that `metal.jit` ran, in order. They are the primitives' reference, so that
    everything between them is what is tested."""
    names: list[str] = []
    compiled = {}

    def execute(signature, operands):
        assert all(type(operand) is np.ndarray for operand in operands)
        assert all(operand.dtype in ("float32", "float16", "bfloat16") for operand in operands)
        kernel = compiled.setdefault(signature, jax.jit(partial(evaluate, signature)))
        names.append(signature.target.removeprefix("jax_mps_neuron."))
        return [np.array(result) for result in kernel(*operands)]

    monkeypatch.setattr(metal_device, "execute", execute)
    return names
