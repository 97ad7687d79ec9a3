"""`metal.jit`: how a program is cut."""

from __future__ import annotations

import warnings

import jax
import jax.numpy as jnp
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron._metal import device
from jax_mps_neuron._staging.cut import cut
from support.arrays import draw, x64
from support.staged import TANH, B, W, X, assert_same, layer, loss


def test_calls_in_calls_are_cut(launches):
    inner = jax.jit(layer)
    twice = jax.jit(lambda x: jax.nn.relu(inner(inner(x))))
    assert_same(lambda x: twice(x) + 1, X, launched=(launches, {"neuron": 2}))


def test_derivatives_in_the_function(launches):
    both = {"neuron": 2, "neuron_gradient": 2}
    assert_same(jax.value_and_grad(loss), W, X, launched=(launches, both))


def test_a_checkpoint_computes_again(launches):
    function = jax.value_and_grad(jax.checkpoint(loss))
    assert_same(function, W, X, launched=(launches, {"neuron": 4, "neuron_gradient": 2}))


def test_a_checkpoint_keeps_its_barrier():
    """What is computed again must wait for the cotangents, and copies nothing on its way to a kernel."""
    function = jax.grad(lambda w, x: jax.checkpoint(loss)(w, jax.checkpoint(layer)(x, w)))
    stages = cut(jax.jit(function).trace(W, X).jaxpr).stages
    barriers = {v for s in stages for e in s.equations if "barrier" in str(e.primitive) for v in e.outvars}
    assert barriers
    assert not any(barriers.intersection(stage.inputs) for stage in stages)


def test_vmap_inside_is_one_call(launches):
    x = draw(3, (5, 6, 4))
    function = jax.vmap(jax.value_and_grad(loss), in_axes=(None, 0))
    assert_same(function, W, x, launched=(launches, {"neuron": 2, "neuron_gradient": 2}))


def test_neighbours_share_a_stage(launches):
    def branches(x):
        return layer(x) + layer(x, -W, None) + jmn.neuron(x, TANH)

    staged = jmn.metal.jit(branches)
    assert_same(staged, X, launched=(launches, {"neuron": 3}))
    kernels = [stage for stage in staged.stages(X) if stage.kind == "kernel"]
    assert [stage.equations for stage in kernels] == [3]


def test_a_neuron_alone_is_one_stage(launches):
    """Its parameters are known, and need no program."""
    staged = jmn.metal.jit(lambda x: jmn.neuron(x, TANH, 2 * B))
    assert_same(staged, X, launched=(launches, {"neuron": 1}))
    assert [stage.kind for stage in staged.stages(X)] == ["kernel"]


def test_traced_parameters(launches):
    staged = jmn.metal.jit(lambda x, neuron, alpha: jmn.neuron(x, neuron, alpha=alpha))
    for alpha in (0.5, 1.5):
        assert_same(staged, X, jmn.Neuron.tanh(alpha, 0.5), alpha)
    assert launches == ["neuron"] * 2
    assert_same(staged, 0.5, TANH, 1.0)


@pytest.mark.parametrize("lowering", [None, "custom_call", "inline"])
def test_control_flow_stays_inline_and_says_so_once(lowering, launches):
    def loops(lowering, x):
        x = jax.lax.scan(lambda c, _: (layer(c, lowering=lowering), None), x, None, length=2)[0]
        x = jax.lax.cond(x.sum() > 0, lambda x: layer(x, lowering=lowering), lambda x: x, x)
        return jax.lax.while_loop(lambda x: x.sum() < -99, lambda x: layer(x, lowering=lowering), x)

    staged = jmn.metal.jit(lambda x: loops(lowering, layer(x)))
    plain = lambda x: loops("inline", layer(x))  # noqa: E731
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        staged(X)
        launches.clear()
        assert_same(staged, X, launched=(launches, {"neuron": 1}), like=plain)
        staged(X[:3])
    said = [str(w.message) for w in caught if "metal.jit" in str(w.message)]
    expected = (
        "metal.jit(<lambda>): neuron calls inside scan, while, cond and similar operations run inline"
    )
    assert said == ([] if lowering == "inline" else [expected])
    assert caught == [] or caught[0].filename == __file__
    # Nothing is left that a plugin without custom calls would refuse.
    stages = cut(jax.jit(staged.__wrapped__).trace(X).jaxpr).stages
    assert "lowering=custom_call" not in str([s.equations for s in stages if not s.is_kernel])


@pytest.mark.filterwarnings("ignore:metal.jit")
def test_only_control_flow(launches):
    def function(x, lowering="custom_call"):
        return jax.lax.map(lambda x: jmn.neuron(x, TANH, lowering=lowering), x)

    assert_same(function, X, like=lambda x: function(x, "inline"))
    assert not launches
    assert len(jmn.metal.jit(function).stages(X)) == 1


def test_what_no_kernel_can_run_stays_inline(launches):
    empty = X[:0]
    assert_same(jax.value_and_grad(loss), W, empty)
    assert_same(lambda x: layer(x, lowering="inline"), X)
    with x64(True):
        assert_same(jax.value_and_grad(loss), W.astype("float64"), X.astype("float64"))
    assert not launches
    traced = jax.jit(lambda x: layer(x, lowering="custom_call")).trace(empty)
    assert "lowering=custom_call" in str(traced.jaxpr)
    assert "lowering=custom_call" not in str([s.equations for s in cut(traced.jaxpr).stages])


def test_nothing_to_cut(launches):
    staged = jmn.metal.jit(lambda x: jnp.sin(x) + 1)
    assert_same(staged, X)
    assert staged.stages(X) == ()
    assert jmn.metal.jit(lambda: None)() is None


def test_dead_kernels_do_not_run(launches):
    def function(x):
        layer(x)
        gradient = jmn.neuron_gradient(x, x, jmn.Neuron.prelu(B), B)
        return gradient.bias

    staged = jmn.metal.jit(function)
    assert_same(staged, X, launched=(launches, {"neuron_gradient": 1}))
    (call,) = next(s for s in cut(staged.trace(X).jaxpr).stages if s.is_kernel).equations
    assert call.params["signature"].bias_gradient
    assert not call.params["signature"].slope_gradient


def test_intermediates_are_let_go(launches, monkeypatch):
    """While a chain of layers runs, no more activations live than one layer needs."""
    execute, alive = device.execute, []

    def watched(signature, operands):
        alive.append(sum(a.shape == (512, 4) for a in jax.live_arrays()))
        return execute(signature, operands)

    monkeypatch.setattr(device, "execute", watched)

    def chain(x):
        for _ in range(8):
            x = layer(x)
        return x

    x = draw(7, (512, 4))
    before = sum(a.shape == (512, 4) for a in jax.live_arrays())
    jmn.metal.jit(chain)(x)
    assert len(alive) == 8
    assert max(alive) - before <= 1


def test_stages_show_the_cut(launches):
    staged = jmn.metal.jit(jax.value_and_grad(lambda w, x: (layer(x, w) ** 2).sum()))
    stages = staged.stages(W, X)
    assert not launches
    assert [stage.kind for stage in stages] == ["jit", "kernel", "jit", "kernel", "jit"]
    assert stages[1].kernels == ("neuron GELU",)
    assert stages[1].shapes == ("float32[6,4]",)
    assert stages[0].equations == 1
    lines = str(stages).splitlines()
    assert lines[0].split() == ["stage", "kind", "equations", "kernels", "results"]
    assert lines[2].split() == ["1", "kernel", "1", "neuron", "GELU", "float32[6,4]"]
    assert len(lines) == 6
