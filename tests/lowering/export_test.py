"""jax.export, and the persistent compilation cache, across processes."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest
from jax import export
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jax_mps_neuron as jmn
from support.arrays import draw
from support.devices import mesh_of
from support.programs import run_python

pytest.importorskip("flatbuffers", reason="jax.export serializes with flatbuffers, which is not installed")

CHECKS = [
    export.DisabledSafetyCheck.custom_call("jax_mps_neuron.neuron"),
    export.DisabledSafetyCheck.custom_call("jax_mps_neuron.neuron_gradient"),
]


def loss(x, bias):
    return jmn.neuron(x, jmn.Neuron.gelu(), bias).sum()


@pytest.mark.parametrize("platforms", [("cpu",), ("cpu", "cuda"), ("cpu", "METAL")])
def test_round_trip_through_another_process(platforms, tmp_path, native_library):
    x, bias = draw(0, (6, 4)), draw(1, (4,))
    exported = export.export(jax.jit(jax.grad(loss, (0, 1))), platforms=platforms, disabled_checks=CHECKS)(
        x, bias
    )
    assert "jax_mps_neuron.neuron_gradient" in exported.mlir_module()
    (tmp_path / "program").write_bytes(exported.serialize())
    np.savez(tmp_path / "operands", x=x, bias=bias)
    result = run_python(
        f"""
import numpy as np, jax_mps_neuron
from jax import export
from pathlib import Path
folder = Path({str(tmp_path)!r})
program = export.deserialize((folder / "program").read_bytes())
operands = np.load(folder / "operands.npz")
dx, dbias = program.call(operands["x"], operands["bias"])
np.savez(folder / "results", dx=dx, dbias=dbias)
"""
    )
    assert result.returncode == 0, result.stderr
    results = np.load(tmp_path / "results.npz")
    expected = jax.grad(loss, (0, 1))(x, bias)
    np.testing.assert_array_equal(results["dx"], expected[0])
    np.testing.assert_array_equal(results["dbias"], expected[1])


def test_a_derivative_of_an_exported_program(native_library):
    x, bias = draw(0, (6, 4)), draw(1, (4,))
    exported = export.export(jax.jit(loss), disabled_checks=CHECKS)(x, bias)
    again = export.deserialize(exported.serialize(vjp_order=1))
    np.testing.assert_allclose(jax.grad(again.call)(x, bias), jax.grad(loss)(x, bias), rtol=1e-6)


@pytest.mark.parametrize("lowering", ["inline", "auto"])
def test_symbolic_batch_size(lowering):
    def step(gradient, x, bias):
        return jmn.neuron_gradient(gradient, x, jmn.Neuron.gelu(), bias, lowering=lowering)[:2]

    batch, channels = export.symbolic_shape("b, c")
    array = jax.ShapeDtypeStruct((batch, channels), np.float32)
    vector = jax.ShapeDtypeStruct((channels,), np.float32)
    exported = export.export(jax.jit(step), disabled_checks=CHECKS)(array, array, vector)
    for shape in ((6, 4), (1, 300)):
        gradient, x, bias = draw(0, shape), draw(1, shape), draw(2, shape[-1:])
        for got, want in zip(exported.call(gradient, x, bias), step(gradient, x, bias), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


CACHED = """
import json, jax, numpy as np
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
import jax_mps_neuron as jmn
step = jax.jit(jax.grad(lambda x, b: jmn.neuron(x, jmn.Neuron.gelu(), b).sum(), (0, 1)))
x = np.linspace(-3, 3, 24, dtype=np.float32).reshape(6, 4)
dx, db = step(x, np.ones(4, np.float32))
print(json.dumps([sum(h.endswith("cache_hits") for h in hits), np.asarray(dx).tolist()]))
"""


def test_persistent_cache_hits_in_a_second_process(tmp_path):
    environment = {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    runs = [run_python(CACHED, **environment) for _ in range(2)]
    assert [r.returncode for r in runs] == [0, 0], runs[0].stderr
    (cold, first), (warm, second) = (json.loads(r.stdout) for r in runs)
    assert cold == 0
    assert warm >= 1
    assert first == second


def test_a_program_for_several_devices_is_exported_inline(native_library):
    """It runs where no partitioner can call back into this process."""
    mesh = mesh_of(4)
    rows, whole = NamedSharding(mesh, P("data")), NamedSharding(mesh, P())
    x, bias = draw(0, (16, 4)), draw(1, (4,))
    step = jax.jit(jax.grad(loss, (0, 1)), in_shardings=(rows, whole), out_shardings=(rows, whole))
    exported = export.export(step)(x, bias)
    assert "custom_call" not in exported.mlir_module().replace("custom_call @Sharding", "")
    results = export.deserialize(exported.serialize()).call(
        jax.device_put(x, rows), jax.device_put(bias, whole)
    )
    for got, want in zip(results, jax.grad(loss, (0, 1))(x, bias), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


CACHED_SHARDED = """
import json, jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
import jax_mps_neuron as jmn
mesh = Mesh(np.asarray(jax.devices()), ("data",))
neuron = getattr(jmn.Neuron, NEURON)()
step = jax.jit(jax.grad(lambda x, b: jmn.neuron(x, neuron, b).sum(), (0, 1)))
plain = jax.jit(jax.grad(lambda x, b: jmn.reference.neuron(x, neuron, b).sum(), (0, 1)))
x, b = np.linspace(-3, 3, 32, dtype=np.float32).reshape(8, 4), np.ones(4, np.float32)
got = step(jax.device_put(x, NamedSharding(mesh, P("data"))), jax.device_put(b, NamedSharding(mesh, P())))
assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(got, plain(x, b))), "the program of another type"
print(json.dumps(sum(h.endswith("cache_hits") for h in hits)))
"""


def test_persistent_cache_of_programs_for_several_devices(tmp_path, native_library):
    """With JAX's setting that keeps callbacks out of its key: who asks for another type gets that type."""
    environment = {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        "JAX_REMOVE_CUSTOM_PARTITIONING_PTR_FROM_CACHE_KEY": "1",
    }

    def hits(neuron: str) -> int:
        code = CACHED_SHARDED.replace("NEURON", repr(neuron))
        result = run_python(code, **environment)
        assert result.returncode == 0, result.stderr
        return json.loads(result.stdout)

    first, other, again = hits("sigmoid"), hits("softsign"), hits("sigmoid")
    assert again > other >= first
