"""Shared fixtures and the one assertion the numerical tests use."""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import sys
from functools import partial
from pathlib import Path

import devices  # noqa: F401, before anything asks for a device
import jax
import jax.numpy as jnp
import numpy as np
import pytest

try:
    x64 = jax.enable_x64
except AttributeError:  # before 0.8
    from jax.experimental import enable_x64 as x64

from metal_host import build

from jax_mps_neuron._compat.ffi import ffi
from jax_mps_neuron._lowering import native
from jax_mps_neuron._metal import device as metal_device
from jax_mps_neuron._ops import primitives

DTYPES = ["float32", "float16", "bfloat16", "float64"]

# Relative to the result, and to the largest magnitude beside it: arithmetic in float32 (float64) with a
# rounding to the result's dtype.
_TOLERANCE = {"float32": 2e-6, "float16": 6e-4, "bfloat16": 4.5e-3, "float64": 1e-14}


def assert_close(actual, expected, dtype: str | None = None, factor: float = 1.0) -> None:
    """Asserts that `actual` is `expected` (float64), within `factor` times the tolerance of a dtype: its
    own unless another is named."""
    tolerance = factor * _TOLERANCE[dtype or str(actual.dtype)]
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    finite = np.abs(expected[np.isfinite(expected)])
    scale = 0.1 * finite.max() if finite.size else 0.0
    np.testing.assert_allclose(actual, expected, rtol=4 * tolerance, atol=tolerance * scale)


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


FAKE_METAL = Path(__file__).parent / "metal_fake"


@pytest.fixture(scope="session")
def metal_cache(tmp_path_factory):
    """Where compiled Metal source is kept; what executes it is skipped, with the reason, where no compiler
    takes it."""
    folder = tmp_path_factory.mktemp("metal")
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
    functions = {"neuron": primitives._forward, "neuron_gradient": primitives._backward}
    compiled = {}

    def execute(name, operands, **params):
        assert all(type(operand) is np.ndarray for operand in operands)
        assert all(operand.dtype in ("float32", "float16", "bfloat16") for operand in operands)
        key = (name, *sorted(params.items()))
        kernel = compiled.setdefault(key, jax.jit(partial(functions[name], **params)))
        names.append(name)
        return [np.array(result) for result in kernel(*operands)]

    monkeypatch.setattr(metal_device, "execute", execute)
    return names


def draw(seed: int, shape, dtype: str = "float32", scale: float = 1.0):
    """Normal numbers, rounded to dtype."""
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return jnp.asarray(np.asarray(values), dtype)


def ffi_call(target, results, *operands, **attributes):
    """Calls a target on cpu with int32 attributes."""
    attributes = {name: np.int32(value) for name, value in attributes.items()}
    if "args" in inspect.signature(ffi.ffi_call).parameters:  # before 0.4.36
        return ffi.ffi_call(target, results, *operands, **attributes)
    return ffi.ffi_call(target, results)(*operands, **attributes)
