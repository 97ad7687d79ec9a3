"""`metal.jit`: how a program is cut, and that it does what `jax.jit` does.

The kernels are the primitives' reference here, so that everything between them is what is tested.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
import weakref
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import assert_close, draw, x64

import jax_mps_neuron as jmn
from jax_mps_neuron import primitives
from jax_mps_neuron.metal import MetalError, device
from jax_mps_neuron.metal.cut import cut

GELU, TANH = jmn.Neuron.gelu(), jmn.Neuron.tanh(1.5, 0.5)
X, W, B = draw(0, (6, 4)), draw(1, (4, 4)), draw(2, (4,))

COMPILED: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: COMPILED.append(event) if event.endswith("backend_compile_duration") else None
)

FUNCTIONS = {"neuron": primitives._forward, "neuron_gradient": primitives._backward}


@pytest.fixture
def launches(monkeypatch):
    """The names of the kernels that ran, in order."""
    names: list[str] = []
    compiled = {}

    def execute(name, operands, **params):
        assert all(type(operand) is np.ndarray for operand in operands)
        assert all(operand.dtype in ("float32", "float16", "bfloat16") for operand in operands)
        key = (name, *sorted(params.items()))
        kernel = compiled.setdefault(key, jax.jit(partial(FUNCTIONS[name], **params)))
        names.append(name)
        return [np.array(result) for result in kernel(*operands)]

    monkeypatch.setattr(device, "execute", execute)
    return names


def assert_same(function, *args, launched=None, like=None, **kwargs):
    """Asserts that a staged function returns what `jax.jit` does, down to dtypes and weak types."""
    launches, expected_launches = launched if launched else (None, None)
    staged = function if hasattr(function, "stages") else jmn.metal.jit(function)
    got = staged(*args, **kwargs)
    if launches is not None:
        assert dict(Counter(launches)) == expected_launches
    want = jax.jit(like or staged.__wrapped__)(*args, **kwargs)
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert isinstance(a, jax.Array)
        assert (a.shape, a.dtype, a.weak_type) == (b.shape, b.dtype, b.weak_type)
        np.testing.assert_allclose(
            np.asarray(a, np.float64), np.asarray(b, np.float64), rtol=1e-5, atol=1e-6
        )
    return got


def layer(x, weight=W, bias=B, neuron=GELU, lowering=None):
    return jmn.neuron(x @ weight, neuron, bias, lowering=lowering)


def loss(weight, x):
    return (layer(layer(x, weight), weight, None, TANH) ** 2).sum()


# Training


def mlp(parameters, x):
    for i, (weight, bias, slopes) in enumerate(parameters):
        neuron = jmn.Neuron.prelu(slopes) if i % 2 else GELU
        x = jmn.neuron(x @ weight, neuron, bias)
    return x


def conv(parameters, x):
    x = x.reshape(-1, 4, 4, 1)
    for i, (weight, bias, slopes) in enumerate(parameters):
        x = jax.lax.conv_general_dilated(
            x, weight, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        x = jmn.neuron(x, GELU if i % 2 else jmn.Neuron.prelu(slopes), bias)
    return x.mean((1, 2))


SHAPES = {mlp: [(16, 16)] * 3, conv: [(3, 3, 1, 4), (3, 3, 4, 8), (3, 3, 8, 16)]}


@pytest.mark.filterwarnings("error:Some donated buffers")
@pytest.mark.parametrize("network", [mlp, conv])
def test_training(network, launches):
    """The losses of plain jit; one forward and one backward kernel a layer and step; compiled once."""
    optax = pytest.importorskip(
        "optax", reason="the optimizer's state is optax's, which the demo extra has"
    )
    optimizer = optax.adam(1e-2)
    x, y = draw(3, (8, 16)), draw(4, (8, 16))
    traces = []

    def step(parameters, state, x, y):
        traces.append(x)

        def error(parameters):
            return ((network(parameters, x) - y) ** 2).mean()

        value, gradients = jax.value_and_grad(error)(parameters)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(parameters, updates), state, value

    def run(jit):
        parameters = [
            (draw(i, shape, scale=0.3), draw(i, shape[-1:]), jnp.full(shape[-1:], 0.25, "float32"))
            for i, shape in enumerate(SHAPES[network])
        ]
        state = optimizer.init(parameters)
        function = jit(step, donate_argnums=(0, 1))
        losses = []
        for i in range(5):
            old = parameters[0][0]
            parameters, state, value = function(parameters, state, x, y)
            assert old.is_deleted()
            losses.append(float(value))
            if i == 0:
                compiled = len(COMPILED)
        assert len(COMPILED) == compiled
        return losses

    losses = run(jmn.metal.jit)
    assert Counter(launches) == {"neuron": 15, "neuron_gradient": 15}
    assert len(traces) == 1
    np.testing.assert_allclose(losses, run(jax.jit), rtol=1e-5)
    assert losses[-1] < losses[0]


def test_stages_compile_once_each(launches):
    staged = jmn.metal.jit(jax.value_and_grad(loss))
    staged(W, X)
    kinds = [stage.kind for stage in staged.stages(W, X)]
    jitted = jmn.metal.jit(jax.value_and_grad(loss))
    before = len(COMPILED)
    jitted(W, X)
    # Some versions make the kernels' parameters by an equation, which is one program more.
    assert kinds.count("jit") == 5
    assert len(COMPILED) - before in (5, 6)
    before = len(COMPILED)
    jitted(2 * np.asarray(W), np.asarray(X))
    assert len(COMPILED) == before
    jitted(W, X[:3])
    assert len(COMPILED) > before


def test_half_types(launches):
    for dtype in ("float16", "bfloat16"):
        launches.clear()
        weight, x = W.astype(dtype), X.astype(dtype)
        staged = jmn.metal.jit(jax.grad(lambda w, x: layer(x, w, B.astype(w.dtype)).sum()))
        got, want = staged(weight, x), jax.jit(staged.__wrapped__)(weight, x)
        assert got.dtype == dtype
        assert_close(got, np.asarray(want, np.float64), factor=4)
        assert launches == ["neuron_gradient"]  # nobody reads what the forward kernel would make


# What is cut


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
        assert_same(staged, X, launched=(launches, {"neuron": 1}), like=plain)
        staged(X)
        staged(X[:3])
    said = [str(w.message) for w in caught if "metal.jit" in str(w.message)]
    expected = "metal.jit(<lambda>): neuron calls inside of scan, while, cond or the like run inline"
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
    assert call.params["bias_gradient"]
    assert not call.params["slope_gradient"]


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


def test_intermediates_are_let_go(launches, monkeypatch):
    """While a chain of layers runs, no more activations live than one layer needs."""
    execute, alive = device.execute, []

    def watched(name, operands, **params):
        alive.append(sum(a.shape == (512, 4) for a in jax.live_arrays()))
        return execute(name, operands, **params)

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


# Under transformations


def test_transformations_of_it_are_those_of_jit(launches):
    staged = jmn.metal.jit(loss)
    x = draw(3, (5, 6, 4))
    pairs = [
        (jax.grad(staged)(W, X), jax.grad(loss)(W, X)),
        (jax.vmap(staged, (None, 0))(W, x), jax.vmap(loss, (None, 0))(W, x)),
        (jax.jit(staged)(W, X), loss(W, X)),
        (jax.jit(lambda x: jmn.metal.jit(lambda w: loss(w, x))(np.asarray(W)))(X), loss(W, X)),
        (jax.grad(lambda x: jmn.metal.jit(lambda w: loss(w, x))(W))(X), jax.grad(loss, 1)(W, X)),
        (jax.jit(lambda: staged(W, X))(), loss(W, X)),
    ]
    pairs.append((jax.lax.map(lambda _: staged(W, X), X), jnp.full(6, loss(W, X))))
    with jax.disable_jit():
        pairs.append((staged(W, X), loss(W, X)))
    assert not launches
    # With nothing to map or differentiate, the call is its own.
    pairs.append((jax.grad(lambda x: x * staged(W, X))(2.0), loss(W, X)))
    pairs.append((jax.vmap(lambda x: x[0, 0] * staged(W, X))(x), x[:, 0, 0] * loss(W, X)))
    assert launches == ["neuron"] * 4
    for got, want in pairs:
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_the_default_lowering_is_part_of_the_signature(launches):
    staged = jmn.metal.jit(layer)
    try:
        for default, count in (("auto", 1), ("inline", 1), ("custom_call", 2), ("inline", 2)):
            jmn.set_default_lowering(default)
            staged(X)
            assert len(launches) == count
    finally:
        jmn.set_default_lowering("auto")


def test_references_fall_back(launches):
    if not hasattr(jax, "new_ref"):
        pytest.skip(f"jax {jax.__version__} has no mutable references")

    def function(x):
        ref = jax.new_ref(x)
        ref[...] = layer(x)
        return ref[...]

    staged = jmn.metal.jit(function)
    with pytest.warns(UserWarning, match="mutable references"):
        assert_same(staged, X)
    assert staged.stages(X) == ()
    assert not launches


# Errors and what stays behind


def test_a_failing_kernel_raises_and_the_function_goes_on(launches, monkeypatch):
    execute = device.execute

    class DeviceError(RuntimeError):
        pass

    def fail(name, operands, **params):
        if name == "neuron_gradient":
            raise DeviceError("command buffer 7: out of memory")
        return execute(name, operands, **params)

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
    with pytest.raises(ValueError, match="bias has shape"):
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


# The kernels themselves


@pytest.mark.parametrize("network", [mlp, conv])
def test_training_by_the_metal_kernels(network, fake_metal):
    """On the module `Metal` whose GPU is the host: two launches a layer and step."""
    x, y = draw(3, (8, 16)), draw(4, (8, 16))
    parameters = [
        (draw(i, shape, scale=0.3), draw(i, shape[-1:]), jnp.full(shape[-1:], 0.25, "float32"))
        for i, shape in enumerate(SHAPES[network])
    ]

    def step(parameters):
        def error(parameters):
            return ((network(parameters, x) - y) ** 2).mean()

        value, gradients = jax.value_and_grad(error)(parameters)
        return jax.tree.map(lambda p, g: p - 0.05 * g, parameters, gradients), value

    def losses(jit):
        now, values = parameters, []
        for _ in range(4):
            now, value = jit(step)(now)
            values.append(float(value))
        return values

    plain = losses(jax.jit)
    staged = jmn.metal.jit(step)
    assert_close(np.float32(losses(lambda _: staged)), plain, factor=10)
    assert fake_metal.counts["command buffers"] == 2 * 3 * 4
    assert fake_metal.counts["libraries"] == 4  # forward and backward of two types


def test_without_metal_the_call_says_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "Metal", None)
    device.default_device.cache_clear()
    with pytest.raises(MetalError, match=r"needs macOS .* pip install 'jax-mps-neuron\[metal\]'"):
        jmn.metal.jit(loss)(W, X)


DEVICES = """
import warnings
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import jax_mps_neuron as jmn
from jax_mps_neuron.metal import device

launches = []
def execute(name, operands, **params):
    launches.append(name)
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
