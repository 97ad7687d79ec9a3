"""`metal.jit` does what `jax.jit` does: arguments, results, transformations, errors."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron._metal import device
from jax_mps_neuron.metal import MetalError
from support.arrays import assert_close, draw
from support.staged import TANH, B, W, X, assert_same, layer, loss

# What jit takes and returns


def test_outputs_of_every_sort(launches):
    """Literals, inputs, constants, copies, weak types, None; unused inputs; nests."""

    def function(x, unused, *, scale):
        y = layer(x)
        z = y * scale
        return {"y": (y, y), "z": z, "rest": [1.0, 2, x, B, None, scale, jnp.full((2,), 3.0), True]}

    got = assert_same(function, X, W, scale=2.0, launched=(launches, {"neuron": 1}))
    assert got["rest"][2] is not X
    assert got["y"][0] is not got["y"][1]
    assert_same(lambda x: (jmn.neuron(x, TANH), x, 0.5), X)
    assert_same(lambda x: (jmn.neuron(x, TANH),) * 2, np.asarray(X, np.float64))


@pytest.mark.parametrize(
    "options",
    [
        {"static_argnums": (1, 3)},
        {"static_argnums": (-3, -1)},
        {"static_argnames": ("kind", "scale")},
        {"static_argnums": 1, "static_argnames": "scale"},
        {"static_argnums": (1,), "static_argnames": ["scale"], "donate_argnames": "x"},
    ],
)
def test_static_arguments(options, launches):
    def function(x, kind, bias, scale=2):
        assert isinstance(scale, int)
        return layer(x, bias=bias, neuron=getattr(jmn.Neuron, kind)()) * scale

    staged = jmn.metal.jit(function, **options)
    plain = jax.jit(function, **options)

    def both(*args, **kwargs):
        results = [f(jnp.array(X), *args, **kwargs) for f in (staged, plain)]
        np.testing.assert_allclose(*results, rtol=1e-5, atol=1e-6)
        assert launches.pop() == "neuron"

    if len(options) == 1:  # else the one does not imply the other
        both("tanh", B, 3)
        both("gelu", B, 3)
    if "static_argnames" in options:
        both("gelu", B, scale=4)
        both("gelu", B)
    if "static_argnums" not in options:
        both(bias=B, kind="sigmoid")
    assert launches == []


def test_decorators_and_methods(launches):
    @jmn.metal.jit
    def function(x):
        """What it does."""
        return layer(x)

    @jmn.metal.jit(static_argnames="n")
    def power(x, n):
        return layer(x) ** n

    class Network:
        @partial(jmn.metal.jit, static_argnums=0)
        def __call__(self, x):
            return layer(x)

        @jmn.metal.jit(static_argnums=0)
        def named(self, x):
            return layer(x)

    assert function.__doc__ == "What it does."
    assert function.__name__ == "function"
    np.testing.assert_allclose(power(X, n=2), function(X) ** 2, rtol=1e-5)
    network = Network()
    np.testing.assert_array_equal(network(X), network.named(X))
    assert len(launches) == 4


def test_donation(launches):
    """Buffers go to the last stretch that reads them, if a result fits; others stay."""
    staged = jmn.metal.jit(lambda w, x: (w - layer(x, w), x * 2), donate_argnums=0)
    w, x = draw(5, (4, 4)), draw(6, (4, 4))
    kept = jmn.metal.jit(lambda x, w: (x, layer(x, w)), donate_argnums=0)(2 * x, w)
    np.testing.assert_allclose(kept[0], 2 * x)
    expected = w - layer(x, w)
    got, _ = staged(w, x)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
    assert w.is_deleted()
    assert not x.is_deleted()
    with pytest.raises((RuntimeError, ValueError), match=r"deleted|donated"):
        staged(w, x)


def test_effects_happen_in_order(launches):
    seen = []

    def function(x):
        jax.debug.callback(lambda v: seen.append("start"), x[0, 0], ordered=True)
        y = layer(x)
        jax.experimental.io_callback(lambda v: seen.append("middle"), None, y[0, 0], ordered=True)
        z = layer(y)
        jax.debug.callback(lambda v: seen.append("debug"), z[0, 0])
        jax.experimental.io_callback(lambda v: seen.append("end"), None, x[0, 0], ordered=True)
        return z

    staged = jmn.metal.jit(function)
    for _ in range(2):
        seen.clear()
        jax.block_until_ready(staged(X))
        jax.effects_barrier()
        assert [s for s in seen if s != "debug"] == ["start", "middle", "end"]
        assert seen.count("debug") == 1
    assert len(launches) == 4


def test_random_keys(launches):
    def function(key, x):
        key, sub = jax.random.split(key)
        y = layer(x)
        return jnp.where(jax.random.bernoulli(sub, 0.5, y.shape), y, 0.0), jax.random.key_data(key)

    assert_same(function, jax.random.key(0), X, launched=(launches, {"neuron": 1}))


def test_half_types(launches):
    for dtype in ("float16", "bfloat16"):
        launches.clear()
        weight, x = W.astype(dtype), X.astype(dtype)
        staged = jmn.metal.jit(jax.grad(lambda w, x: layer(x, w, B.astype(w.dtype)).sum()))
        got, want = staged(weight, x), jax.jit(staged.__wrapped__)(weight, x)
        assert got.dtype == dtype
        assert_close(got, np.asarray(want, np.float64), factor=4)
        assert launches == ["neuron_gradient"]  # nobody reads what the forward kernel would make


# Errors and what stays behind


def test_a_failing_kernel_raises_and_the_function_goes_on(launches, monkeypatch):
    execute = device.execute

    class DeviceError(RuntimeError):
        pass

    def fail(signature, operands):
        if not signature.forward:
            raise DeviceError("command buffer 7: out of memory")
        return execute(signature, operands)

    staged = jmn.metal.jit(jax.value_and_grad(loss))
    monkeypatch.setattr(device, "execute", fail)
    for _ in range(2):
        with pytest.raises(DeviceError, match="command buffer 7: out of memory"):
            staged(W, X)
    monkeypatch.setattr(device, "execute", execute)
    assert_same(staged, W, X)


def test_errors_are_those_of_jit(launches):
    def function(x, n):
        return layer(x) * n

    for args, options in (((X,), {}), ((X, "a"), {}), ((X, [1]), {"static_argnums": 1})):
        errors = []
        for jit in (jax.jit, jmn.metal.jit):
            with pytest.raises((TypeError, ValueError)) as caught:
                jit(function, **options)(*args)
            errors.append((caught.type, str(caught.value)[:60]))
        assert errors[0] == errors[1]
    with pytest.raises(ValueError, match="bias must have shape"):
        jmn.metal.jit(lambda x: layer(x, bias=B[:2]))(X)
    with pytest.raises(TypeError, match="in_shardings"):
        jmn.metal.jit(layer, in_shardings=None)


def test_plans_are_forgotten_with_their_function(launches):
    def make():
        staged = jmn.metal.jit(lambda x: layer(x))
        staged(X)
        return staged, weakref.ref(staged.trace(X).jaxpr)

    staged, program = make()
    assert len(staged._plans) == 1
    staged(X[:3])
    assert len(staged._plans) == 2
    staged.clear_cache()
    gc.collect()
    assert len(staged._plans) == 0
    staged(X)
    assert len(launches) == 3
    jax.clear_caches()
    gc.collect()
    assert len(staged._plans) == 0
    staged(X)
    function = weakref.ref(staged.__wrapped__)
    del staged
    jax.clear_caches()
    gc.collect()
    assert program() is None
    assert function() is None


def test_without_metal_the_call_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "Metal", None)
    device.default_device.cache_clear()
    with pytest.raises(MetalError, match="needs macOS with an Apple GPU"):
        jmn.metal.jit(loss)(W, X)


DEVICES = """
import warnings
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import jax_mps_neuron as jmn
from jax_mps_neuron._metal import device

launches = []
def execute(signature, operands):
    launches.append(signature)
    return [np.tanh(operands[0])]
device.execute = execute

first, second = jax.devices()
f = jmn.metal.jit(lambda x: (jmn.neuron(x * 1, jmn.Neuron.tanh()) + 0, jmn.neuron(x, jmn.Neuron.tanh())))
x = np.ones((4, 2), np.float32)
for y in f(x):
    assert y.devices() == {first}
    jax.device_put(x, second) + y  # not bound to its device, as under jit
for y in f(jax.device_put(x, second)):
    assert y.devices() == {second}
with jax.default_device(second):
    for y in f(x):
        assert y.devices() == {second}
assert len(launches) == 6
spread = jax.device_put(x, NamedSharding(Mesh(jax.devices(), "i"), PartitionSpec("i")))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        for y in f(spread):
            assert len(y.devices()) == 2
            np.testing.assert_allclose(y, np.tanh(x), rtol=1e-6)
    jmn.metal.jit(lambda: jmn.neuron(spread, jmn.Neuron.tanh()))()
assert len(launches) == 6
assert ["several devices" in str(w.message) for w in caught] == [True, True], caught
print("done")
"""


def test_devices():
    """Results are where the arguments are; arrays spread over several devices take the plain jit."""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    code = f"import os; os.environ.update({flags!r})\n{DEVICES}"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False
    )
    assert result.stdout.strip() == "done", result.stderr
