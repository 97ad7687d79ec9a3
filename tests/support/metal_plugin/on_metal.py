"""Runs in a process of its own, on the METAL plugin, and prints as JSON what it saw.

A process has one plugin of a name, and started backends cannot be changed. JAX finds the plugin by
PJRT_NAMES_AND_LIBRARY_PATHS.

  python on_metal.py with FOLDER      on the plugin with the FFI extension, built in the folder
  python on_metal.py without FOLDER   on the one like jax-metal
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from pathlib import Path

import jax
import numpy as np

import jax_mps_neuron as jmn
from jax_mps_neuron import metal
from jax_mps_neuron._lowering.routes import route
from jax_mps_neuron._plugins.targets import describe
from jax_mps_neuron._tools import doctor
from jax_mps_neuron._tools.cli import main

TESTS = Path(__file__).parents[2]
sys.path[:0] = [str(TESTS), str(TESTS.parent / "examples")]
from support.metal_host import build  # noqa: E402
from support.metal_plugin import handlers, wrapper  # noqa: E402

GELU = jmn.Neuron.gelu()
X = np.linspace(-3, 3, 720, dtype=np.float32).reshape(60, 12)
BIAS = np.linspace(-1, 1, 12, dtype=np.float32)


def gradients(x, bias, lowering=None):
    return jax.grad(lambda x, b: jmn.neuron(x, GELU, b, lowering=lowering).sum(), (0, 1))(x, bias)


def gradients_by_custom_call(x, bias):
    return gradients(x, bias, "custom_call")


def difference(function) -> float:
    """Of a function's results from the inline route's, with rows of whole vectors and ragged ones."""
    differences = []
    for x, bias in ((X, BIAS), (X[:, :-1], BIAS[:-1])):
        expected = jax.jit(gradients, static_argnums=2)(x, bias, "inline")
        for got, want in zip(function(x, bias), expected, strict=True):
            differences.append(float(np.abs(np.asarray(got) - np.asarray(want)).max()))
    return max(differences)


def error_of(function, *arguments) -> str:
    try:
        jax.block_until_ready(function(*arguments))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def warnings_of(function, *arguments, **keywords) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            function(*arguments, **keywords)
    return [str(w.message) for w in caught if "neuron" in str(w.message)]


def printed(*arguments: str) -> str:
    """What a command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = main(list(arguments))
    return f"{out.getvalue()}\nstatus {status}"


def emitted(lowering: str, *platforms: str) -> int:
    """How many custom calls are in the gradient lowered for these platforms."""
    traced = jax.jit(gradients, static_argnums=2).trace(X, BIAS, lowering)
    return traced.lower(lowering_platforms=platforms).as_text().count("@jax_mps_neuron.")


def train(jit=jax.jit) -> dict:
    import train_digits

    run = train_digits.train("METAL", jmn.neuron, train_digits.load(), 1, jit)
    return {"losses": run.losses.tolist(), "custom_calls": run.custom_calls}


def train_staged() -> dict:
    """By metal.jit, whose GPU is that of metal_fake/."""
    sys.path.insert(0, str(TESTS / "support" / "metal_fake"))
    import Metal

    losses = train(metal.jit)["losses"]
    staged = metal.jit(gradients)
    results = staged(X, BIAS)
    return {
        "losses": losses,
        "command buffers": Metal.counts["command buffers"],
        "platforms": sorted({d.platform for r in results for d in r.devices()}),
        "stages": [stage.kind for stage in staged.stages(X, BIAS)],
        "custom_call": error_of(metal.jit(gradients_by_custom_call), X, BIAS),
        "difference": difference(staged),
    }


def with_custom_calls(folder: Path) -> dict:
    types = (jmn.NeuronType.GELU, jmn.NeuronType.PRELU)
    kernels = [k for neuron_type in types for k in build.kernels_of(neuron_type, "float32")]
    host = build.Host(build.compile_kernels(metal.source(*kernels), folder, "kernels"))
    works, newer = handlers.Handlers(host), handlers.Handlers(host, version=(0, 999))
    jitted = jax.jit(gradients)
    jitted(X, BIAS)

    def register(handlers):
        metal.register_targets("METAL", handlers.addresses, ffi_platform="Host")
        jitted(X, BIAS)

    seen = {
        "unregistered": route("METAL"),
        "emitted anyway": warnings_of(jax.jit(gradients_by_custom_call), X, BIAS),
        "refused": warnings_of(register, newer),
        "route when refused": route("METAL"),
        "plugin when refused": describe("METAL"),
        "custom call when refused": error_of(jax.jit(gradients_by_custom_call), X, BIAS),
        "registered": warnings_of(register, works),
        "again": error_of(register, works),
    }
    seen["calls of what was compiled before"] = works.calls.total()
    seen["route"] = route("METAL")
    seen["difference"] = difference(jax.jit(gradients))
    works.calls.clear()
    mapped = jax.jit(jax.vmap(gradients, (0, None)))(X.reshape(3, 20, 12), BIAS)
    seen["calls of vmap"] = works.calls.total()
    seen["difference of vmap"] = float(np.abs(mapped[1].sum(0) - jitted(X, BIAS)[1]).max())
    works.failure = RuntimeError("the device is lost")
    seen["lost"] = error_of(jitted, X, BIAS)
    works.failure = None
    seen["difference after the loss"] = difference(jax.jit(gradients))
    seen["emitted"] = {
        " ".join([lowering, *platforms]): emitted(lowering, *platforms)
        for lowering in ("auto", "custom_call")
        for platforms in (("METAL",), ("cpu", "METAL"), ("METAL", "cuda"))
    }
    works.calls.clear()
    return {**seen, **train(), "calls": dict(works.calls)}


def without_custom_calls(folder: Path) -> dict:
    wrapper.read_programs_of(wrapper.library_in(folder))
    import jax.export

    def exported():
        return jax.export.export(
            jax.jit(gradients_by_custom_call),
            platforms=["METAL"],
            disabled_checks=[jax.export.DisabledSafetyCheck.custom_call("jax_mps_neuron.neuron_gradient")],
        )(X, BIAS).mlir_module()

    targets = "jax_mps_neuron.neuron", "jax_mps_neuron.neuron_gradient"
    jmn.set_default_lowering("custom_call")
    asked_for = printed("doctor")
    jmn.set_default_lowering("auto")
    doctor._self_test = lambda neuron_type: ""  # which compiles for long
    someones, sharding = (
        jax.ffi.ffi_call(target, jax.ShapeDtypeStruct(X.shape, X.dtype))
        for target in ("someones", "Sharding")
    )
    return {
        "route": route("METAL"),
        "custom_call": error_of(jax.jit(gradients_by_custom_call), X, BIAS),
        "eager": error_of(gradients_by_custom_call, X, BIAS),
        "emitted elsewhere": emitted("custom_call", "mtl"),
        "someone's custom call": error_of(jax.jit(someones), X),
        "Sharding": error_of(jax.jit(sharding), X),
        "callback": error_of(jax.jit(lambda x: jax.pure_callback(np.sin, x, x)), X),
        "exported": exported().count("@jax_mps_neuron.neuron_gradient("),
        "lower": printed("lower", "--platform", "METAL"),
        "doctor": printed("doctor"),
        "doctor by custom call": asked_for,
        "registered": warnings_of(metal.register_targets, "METAL", dict.fromkeys(targets, 1)),
        "difference": difference(jax.jit(gradients)),
        **train(),
        "staged": train_staged(),
    }


if __name__ == "__main__":
    form, folder = sys.argv[1:]
    seen = {"with": with_custom_calls, "without": without_custom_calls}[form](Path(folder))
    print(json.dumps({"platform": jax.default_backend(), **seen}))
