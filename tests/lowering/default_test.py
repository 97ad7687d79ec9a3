"""The process-wide default lowering, and the programs that JAX keeps for each."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron._lowering import native
from support.arrays import draw
from support.programs import lowered, run_python

GELU = jmn.Neuron.gelu()
X = draw(0, (6, 4))


def layer(x, bias, lowering=None, neuron=GELU):
    return jmn.neuron(x, neuron, bias, lowering=lowering)


@pytest.fixture
def default_lowering():
    yield
    jmn.set_default_lowering("auto")


def test_unknown_default():
    with pytest.raises(
        ValueError, match=r"^lowering must be one of 'auto', 'custom_call', 'inline', 'metal', got 'metal!'"
    ):
        jmn.set_default_lowering("metal!")


def is_custom_call(jaxpr_or_text) -> bool:
    return "custom_call" in str(jaxpr_or_text)


def _scan(x):
    return jax.lax.scan(lambda carry, _: (layer(carry, None), None), x, None, length=2)[0]


FUNCTIONS = {
    "jit": jax.jit(lambda x: layer(x, None)),
    "nested jit": jax.jit(lambda x: jax.jit(lambda x: layer(x, None))(x)),
    "grad of jit": jax.grad(jax.jit(lambda x: layer(x, None).sum())),
    "jit of grad": jax.jit(jax.grad(lambda x: layer(x, None).sum())),
    "scan": jax.jit(_scan),
    "checkpoint": jax.jit(jax.grad(jax.checkpoint(lambda x: layer(x, None).sum()))),
    "vmap": jax.jit(jax.vmap(lambda x: layer(x, None))),
    "cond": jax.jit(lambda x: jax.lax.cond(x.sum() > 0, lambda x: layer(x, None), lambda x: x, x)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_program_of_another_default_is_never_served(name, default_lowering):
    function = FUNCTIONS[name]
    results = []
    for default in ("inline", "custom_call", "inline", "custom_call", "auto", "inline"):
        jmn.set_default_lowering(default)
        wanted = default == "custom_call"  # for METAL, where auto is inline
        traced = jax.jit(function).trace(X)
        assert is_custom_call(traced.lower(lowering_platforms=("METAL",)).as_text()) is wanted
        assert f"lowering={default}" in str(jax.make_jaxpr(function)(X))
        results.append(
            np.asarray(function(X)) if default != "custom_call" or not native.unavailable_reason() else None
        )
    for result in results[1:]:
        if result is not None:
            np.testing.assert_allclose(result, results[0], rtol=1e-5, atol=1e-6)


def test_eager_calls_follow_the_default(default_lowering, native_library):
    """Outside of jit too, where JAX caches scans by their function and shapes.

    The kernel keeps subnormal numbers and XLA's own code flushes them, so the result tells which ran.
    """
    x = np.full((3, 5), 1e-39, np.float32)

    def body(carry, _):
        return jmn.neuron(carry, jmn.Neuron.linear(0.5)), None

    for default in ("inline", "auto", "inline", "custom_call", "inline"):
        jmn.set_default_lowering(default)
        kept = default != "inline"
        for y in (
            jmn.neuron(x, jmn.Neuron.linear(0.5)),
            jax.lax.scan(body, x, None, length=1)[0],
            jax.lax.cond(True, lambda x: body(x, None)[0], lambda x: x, x),
            jax.vmap(lambda x: body(x, None)[0])(x),
        ):
            assert (np.asarray(y).max() > 0) is np.bool_(kept), default


def test_an_explicit_lowering_beats_the_default(default_lowering):
    jmn.set_default_lowering("custom_call")
    assert "custom_call" not in lowered(lambda x: layer(x, None, "inline"), X)


def test_environment_variable():
    code = "from jax_mps_neuron._lowering import routes; print(routes.resolve(None))"
    assert run_python(code).stdout.strip() == "auto"
    assert run_python(code, JAX_MPS_NEURON_LOWERING="inline").stdout.strip() == "inline"
    wrong = run_python(code, JAX_MPS_NEURON_LOWERING="metl")
    assert wrong.returncode == 1
    assert re.search(
        "JAX_MPS_NEURON_LOWERING must be one of 'auto', 'custom_call', .*, got 'metl'", wrong.stderr
    )
