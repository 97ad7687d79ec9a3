"""Metal plugins: whole programs on one whose platform is METAL, in its two forms, and registration on it.

The plugin is XLA's own for CPUs under another name (metal_plugin/plugin.cc). With the FFI extension, the
handlers run the Metal source on the host; without, no custom call compiles, as on jax-metal.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron import metal
from jax_mps_neuron._core.signature import NEURON, NEURON_GRADIENT
from jax_mps_neuron._lowering.routes import route
from jax_mps_neuron._plugins import targets as plugin
from support.metal_plugin import wrapper

STEPS = 22  # an epoch of the demo, which has two neuron layers


def run_on_metal(temporary: Path, *, custom_calls: bool) -> dict:
    """What on_metal.py saw in a process of its own, started once for all of pytest-xdist's workers."""
    form = "with" if custom_calls else "without"
    folder = (temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary) / f"metal_{form}"
    folder.mkdir(exist_ok=True)
    seen = folder / "seen.json"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not seen.exists():
            library = wrapper.build(folder, custom_calls=custom_calls)
            environment = {"PJRT_NAMES_AND_LIBRARY_PATHS": f"METAL:{library}", "JAX_PLATFORMS": ""}
            result = subprocess.run(
                [sys.executable, str(wrapper.HERE / "on_metal.py"), form, str(folder)],
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert result.returncode == 0, result.stderr
            seen.write_text(result.stdout)
    return json.loads(seen.read_text())


@pytest.fixture(scope="module")
def demo():
    """The demo, which is what trains."""
    for package in ("matplotlib", "optax", "sklearn", "tqdm"):
        pytest.importorskip(package, reason=f"the demo needs {package}, which is not installed")
    import train_digits

    return train_digits


@pytest.fixture(scope="module")
def with_custom_calls(demo, metal_cache, tmp_path_factory):
    if problem := wrapper.problem():
        pytest.skip(problem)
    return run_on_metal(tmp_path_factory.getbasetemp(), custom_calls=True)


@pytest.fixture(scope="module")
def without_custom_calls(demo, metal_cache, tmp_path_factory):
    if problem := wrapper.problem():
        pytest.skip(problem)
    return run_on_metal(tmp_path_factory.getbasetemp(), custom_calls=False)


# Training


@pytest.fixture(scope="module")
def losses_on_cpu(demo):
    return demo.train("cpu", jmn.neuron, demo.load(), epochs=1).losses


def test_training_runs_the_metal_kernels(with_custom_calls, losses_on_cpu):
    seen = with_custom_calls
    assert seen["platform"] == "METAL"
    np.testing.assert_allclose(seen["losses"], losses_on_cpu, rtol=0, atol=1e-4)
    assert len(seen["losses"]) == STEPS
    assert seen["custom_calls"] == 4  # two layers, forward and gradient
    # The accuracy after the epoch is one more pass forward.
    assert seen["calls"] == {NEURON: 2 * STEPS + 2, NEURON_GRADIENT: 2 * STEPS}


def test_training_without_custom_calls(without_custom_calls, losses_on_cpu):
    seen = without_custom_calls
    assert seen["platform"] == "METAL"
    np.testing.assert_allclose(seen["losses"], losses_on_cpu, rtol=0, atol=1e-4)
    assert len(seen["losses"]) == STEPS
    assert seen["custom_calls"] == 0


def test_training_by_metal_jit(without_custom_calls, losses_on_cpu):
    """The Metal kernels on a plugin that takes no custom calls: one launch a layer, each way."""
    seen = without_custom_calls["staged"]
    np.testing.assert_allclose(seen["losses"], losses_on_cpu, rtol=0, atol=1e-4)
    # Two more forward for the accuracy, and those of the gradients below.
    assert seen["command buffers"] == 4 * STEPS + 2 + 1
    assert seen["platforms"] == ["METAL"]
    assert seen["stages"] == ["kernel"]  # the cotangent of a sum is a constant
    assert seen["custom_call"] == "no error"  # the call is cut out before anything is compiled
    assert 0 < seen["difference"] < 1e-5


# A plugin that runs them


def test_auto_takes_the_custom_call_once_handlers_are_registered(with_custom_calls):
    seen = with_custom_calls
    assert seen["unregistered"] == ["inline", "no handlers of the neuron kernels are registered there"]
    assert seen["registered"] == []
    assert seen["route"] == ["custom_call", "handlers of the neuron kernels are registered there"]
    assert seen["calls of what was compiled before"] == 1
    assert seen["difference"] < 1e-5
    assert seen["again"] == "ValueError: platform must have no registered handlers yet, got 'METAL'"


def test_a_vmapped_gradient_is_one_call(with_custom_calls):
    assert with_custom_calls["calls of vmap"] == 1
    assert with_custom_calls["difference of vmap"] < 1e-5


def test_a_call_that_nobody_handles_is_warned_of(with_custom_calls):
    (message,) = with_custom_calls["emitted anyway"]
    assert "which cannot run here: no handlers of the neuron kernels are registered there" in message


def test_a_failing_launch_is_an_exception(with_custom_calls):
    assert f"{NEURON_GRADIENT}: the device is lost" in with_custom_calls["lost"]
    assert with_custom_calls["difference after the loss"] < 1e-5


def test_handlers_that_the_plugin_does_not_take(with_custom_calls):
    """Built for a newer FFI API, which XLA refuses without saying so."""
    seen = with_custom_calls
    (message,) = seen["refused"]
    assert message.startswith("the neuron kernels are not registered on METAL, where 'auto' stays inline: ")
    reason = message.split("stays inline: ")[1]
    assert "No FFI handler registered for jax_mps_neuron.neuron" in reason
    assert seen["route when refused"] == ["inline", reason]
    assert reason in seen["plugin when refused"]
    assert reason in seen["custom call when refused"]


def test_several_platforms(with_custom_calls):
    """cpu and another take each their route; others share one."""
    assert with_custom_calls["emitted"] == {
        "auto METAL": 1,
        "auto cpu METAL": 2,
        "auto METAL cuda": 0,
        "custom_call METAL": 1,
        "custom_call cpu METAL": 2,
        "custom_call METAL cuda": 1,
    }


# A plugin that does not

NO_EXTENSION = "the plugin has no FFI extension, so it does not run third-party custom calls"


def test_the_plugin_behaves_like_jax_metal(without_custom_calls):
    seen = without_custom_calls
    assert "failed to legalize operation 'mhlo.custom_call': someones" in seen["someone's custom call"]
    assert seen["Sharding"] == "no error"
    assert "`EmitPythonCallback` not supported on METAL backend" in seen["callback"]


@pytest.mark.parametrize("how", ["custom_call", "eager"])
def test_a_custom_call_asked_for_is_refused_with_what_works(how, without_custom_calls):
    message = without_custom_calls[how]
    assert message.startswith("ValueError: lowering 'custom_call' does not run on METAL: ")
    assert NO_EXTENSION in message
    for way in ("'auto'", "'inline'", "jmn.metal.jit"):
        assert way in message


def test_doctor_by_a_custom_call_that_is_refused(without_custom_calls):
    *_, error, _, status = without_custom_calls["doctor by custom call"].splitlines()
    assert error.startswith("  lowering 'custom_call' does not run on METAL: ")
    assert status == "status 1"


def test_a_program_for_elsewhere_is_not_refused(without_custom_calls):
    assert without_custom_calls["exported"] == 1
    assert without_custom_calls["emitted elsewhere"] == 1
    assert "stablehlo.custom_call @jax_mps_neuron.neuron_gradient(" in without_custom_calls["lower"]


def test_auto_is_inline_without_the_extension(without_custom_calls):
    seen = without_custom_calls
    assert seen["difference"] == 0  # from inline
    (message,) = seen["registered"]
    assert message.endswith(f"where 'auto' stays inline: {NO_EXTENSION}")
    lines = seen["doctor"].splitlines()
    assert any(line.startswith("METAL") and "inline" in line and NO_EXTENSION in line for line in lines)
    (line,) = (line for line in lines if line.startswith("METAL plugin: "))
    assert "PJRT C API 0.81" in line
    assert "no host callbacks" in line
    assert lines[-1] == "status 0"


# What needs no plugin


@pytest.mark.parametrize("platform", plugin.PLUGINS)
def test_a_plugin_that_is_not_here(platform):
    taken, why = route(platform)
    assert taken == "inline"
    known = plugin.PLUGINS[platform]
    assert why == (
        f"{known.packages[0]} {known.refuses}"
        if known.refuses
        else "no handlers of the neuron kernels are registered there"
    )
    assert plugin.is_metal(platform)


def test_other_platforms_are_not_metal():
    assert not any(map(plugin.is_metal, ("cpu", "cuda", "tpu")))


HANDLERS = {NEURON: 1, NEURON_GRADIENT: 1}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            ("cpu", HANDLERS),
            ValueError,
            "platform must be the platform of a plugin registered with JAX, got 'cpu'",
        ),
        (
            ("nowhere", HANDLERS),
            ValueError,
            "platform must be the platform of a plugin registered with JAX, got 'nowhere'",
        ),
        (
            ("mtl", {NEURON: 1}),
            ValueError,
            "handlers must have the keys ['jax_mps_neuron.neuron', 'jax_mps_neuron.neuron_gradient'], got",
        ),
        (
            ("mtl", {**HANDLERS, NEURON: "x"}),
            TypeError,
            f"handlers['{NEURON}'] must be an address or a capsule, got 'x'",
        ),
        (
            ("mtl", {**HANDLERS, NEURON: 0}),
            TypeError,
            f"handlers['{NEURON}'] must be an address or a capsule, got 0",
        ),
    ],
)
def test_bad_arguments(arguments, error, message, monkeypatch):
    monkeypatch.setattr(plugin, "has_plugin", lambda platform: platform in ("cpu", "mtl"))
    with pytest.raises(error) as raised:
        metal.register_targets(*arguments)
    assert message in str(raised.value)


def test_a_plugin_whose_table_is_not_known(monkeypatch):
    monkeypatch.setattr(plugin, "has_plugin", lambda platform: True)
    monkeypatch.setattr(plugin, "_outcomes", {})
    with pytest.warns(UserWarning, match="does not give access to the plugin's PJRT table") as caught:
        metal.register_targets("mtl", HANDLERS)
    assert len(caught) == 1
    taken, why = route("mtl")
    assert taken == "inline"
    assert why == f"JAX {jax.__version__} does not give access to the plugin's PJRT table"
    assert why in plugin.describe("mtl")
