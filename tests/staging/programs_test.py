"""`metal.jit` beside `jax.jit`: the same results, or the same error, of many small programs, and how many
kernels ran."""

from __future__ import annotations

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import jax_mps_neuron as jmn
from support.arrays import draw, x64
from support.staged import GELU, TANH, B, W, X, assert_same, layer, loss

PRELU = jmn.Neuron.prelu(B)
save_names = jax.checkpoint_policies.save_only_these_names("h")


def total(x):
    return layer(x).sum()


@jax.custom_vjp
def with_rule(x):
    return layer(x)


with_rule.defvjp(lambda x: (layer(x), x), lambda x, g: (2 * g * layer(x),))


@jax.custom_jvp
def with_tangent(x):
    return layer(x)


with_tangent.defjvp(lambda primals, tangents: (layer(*primals), 3 * tangents[0]))


@jax.custom_batching.custom_vmap
def with_batching(x):
    return layer(x)


with_batching.def_vmap(lambda size, batched, x: (layer(x), True))


def indexed(x):
    y = layer(x)
    return x[jnp.argmax(y[:, 0])], jnp.sort(y), y.at[0].set(1.0)


def pulled_back(x):
    y, pull = jax.vjp(layer, x)
    return y, pull(y)


def called_back(x):
    y = layer(x)
    return layer(jax.pure_callback(lambda v: 2 * np.asarray(v), jax.ShapeDtypeStruct(y.shape, y.dtype), y))


def barriers(x):
    (a,) = jax.lax.optimization_barrier((layer(x),))
    (b,) = jax.lax.optimization_barrier((a,))
    return jmn.neuron(b, TANH), a


def fan(x):
    ys = [jmn.neuron(i * x, TANH) for i in range(4)]
    return sum(jmn.neuron(y, GELU) for y in ys), ys[2]


# name: (function, arguments, kernels that run)
PROGRAMS = {
    "integers and booleans": (lambda x: (layer(x).argmax(-1), layer(x) > 0, x.shape[0]), (X,), 2),
    "literals": (lambda x: (layer(x), 3, 2.5, True, 1j, np.float16(2), np.arange(3)), (X,), 1),
    "None": (lambda x, n: (None, {"a": n, "b": [layer(x), None]}), (X, None), 1),
    "weak types": (lambda x, s: (layer(x) * s, s, 2 * s, jnp.asarray(2.0) * 1), (X, 2.0), 1),
    "a weak scalar": (lambda s: (jmn.neuron(s, TANH), s), (2.0,), 1),
    "no arguments": (lambda: (layer(X), jmn.neuron(jnp.float32(1), TANH)), (), 2),
    "an array of NumPy": (lambda x: (layer(x), x), (np.asarray(X),), 1),
    "a wide array of NumPy": (lambda x: (jmn.neuron(x, TANH, B), x), (np.asarray(X, np.float64),), 1),
    "integers in": (lambda n: (layer(n.astype("float32")), n), (np.arange(24).reshape(6, 4),), 1),
    "a tree": (lambda t: {"y": layer(t["x"], *t["w"]), "t": t}, ({"x": X, "w": [W, B], "n": ()},), 1),
    "a neuron in and out": (lambda x, n: (jmn.neuron(x, n), n), (X, PRELU), 1),
    "a neuron made": (lambda x: jmn.Neuron.tanh(total(x), 2.0), (X,), 1),
    "the same twice": (lambda x: (layer(x),) * 2 + (x, x), (X,), 1),
    "a scalar": (lambda x: jmn.neuron_gradient(x.sum(), x.sum(), TANH), (X,), 1),
    "a vector": (lambda x: jmn.neuron_gradient(x[0], x[1], PRELU, B), (X,), 1),
    "mixed dtypes": (lambda g, x: jmn.neuron_gradient(g, x, GELU, B), (X, X.astype("float16")), 1),
    "an empty array": (lambda x: (layer(x), layer(x[:0])), (X,), 1),
    "a random key": (lambda k: layer(jax.random.normal(k, (6, 4))), (jax.random.key(0),), 1),
    "NaN": (lambda x: jmn.neuron(x * jnp.nan, TANH), (X,), 1),
    "a constant": (lambda x: (jmn.neuron(jnp.ones((6, 4)), TANH, B) + x, x), (X,), 1),
    "an iota": (lambda x: jmn.neuron(jnp.arange(12.0).reshape(3, 4), TANH, B) + x[:3], (X,), 1),
    "indices from a neuron": (indexed, (X,), 1),
    "a Fourier transform": (lambda x: jnp.fft.fft(layer(x)).real, (X,), 1),
    "a linear solve": (lambda x: jnp.linalg.solve(jnp.eye(4) + layer(x)[:4] / 9, layer(x)[:4]), (X,), 2),
    "an associative scan": (lambda x: jax.lax.associative_scan(jnp.add, layer(x)), (X,), 1),
    "a callback": (called_back, (X,), 2),
    "a branch for the platform": (
        lambda x: jax.lax.platform_dependent(layer(x), cpu=lambda y: y + 1, default=lambda y: y),
        (X,),
        1,
    ),
    "barriers": (barriers, (X,), 2),
    "a fan": (fan, (X,), 8),
    "a custom VJP": (lambda x: (with_rule(x), jax.grad(lambda x: with_rule(x).sum())(x)), (X,), 2),
    "a custom JVP": (lambda x: (with_tangent(x), jax.grad(lambda x: with_tangent(x).sum())(x)), (X,), 1),
    "a VJP": (pulled_back, (X,), 2),
    "stop_gradient": (jax.grad(lambda x: (jax.lax.stop_gradient(layer(x)) * layer(x)).sum()), (X,), 2),
    "auxiliary results": (jax.value_and_grad(lambda x: (total(x), layer(x)), has_aux=True), (X,), 3),
    "slopes and bias": (
        jax.grad(lambda s, b: jmn.neuron(X, jmn.Neuron.prelu(s), b).sum(), (0, 1)),
        (B, B),
        1,
    ),
    "checkpoint": (jax.grad(lambda x: jax.checkpoint(lambda x: layer(layer(x)))(x).sum()), (X,), 3),
    "a checkpoint's policy": (
        jax.grad(jax.checkpoint(lambda x: layer(checkpoint_name(layer(x), "h")).sum(), policy=save_names)),
        (X,),
        3,
    ),
    "calls in calls": (jax.jit(jax.checkpoint(jax.jit(lambda x: jax.jit(layer)(x)))), (X,), 1),
    "donation inside": (lambda x: jax.jit(lambda x: layer(x) * 2, donate_argnums=0)(2 * x), (X,), 1),
    "itself inside": (lambda x: jmn.metal.jit(lambda x: layer(x) * 2)(x), (X,), 1),
    "nested vmap": (
        jax.vmap(jax.vmap(lambda x, b: jmn.neuron_gradient(x, x, jmn.Neuron.prelu(b), b)), (0, None)),
        (draw(3, (3, 2, 6, 4)), draw(4, (2, 4))),
        1,
    ),
    "vmap over other axes": (
        jax.vmap(jax.vmap(layer, out_axes=1), in_axes=1, out_axes=2),
        (draw(3, (2, 3, 6, 4)),),
        1,
    ),
    "a named axis": (
        jax.vmap(lambda x: layer(x) - jax.lax.pmean(layer(x), "i"), axis_name="i"),
        (draw(3, (3, 6, 4)),),
        2,
    ),
    "vmap of itself": (jax.vmap(jmn.metal.jit(layer)), (draw(3, (3, 6, 4)),), 1),
    "jacrev": (jax.jacrev(lambda v: jmn.neuron(v, TANH, B)), (X[0],), 1),
    "hessian": (jax.hessian(lambda v: jmn.neuron(v, TANH, B).sum()), (X[0],), 0),  # the reference's
    "scan": (lambda x: jax.lax.scan(lambda c, _: (layer(c), c.sum()), layer(x), None, length=3), (X,), 1),
    "the gradient of a scan": (
        jax.grad(lambda x: jax.lax.scan(lambda c, _: (layer(c), None), x, None, length=2)[0].sum()),
        (X,),
        0,
    ),
    "fori_loop": (lambda x: jax.lax.fori_loop(0, 3, lambda i, c: layer(c), layer(x)), (X,), 1),
    "switch": (lambda x, i: jax.lax.switch(i, [layer, lambda x: 2 * x], layer(x)), (X, 0), 1),
    "a rule of batching": (lambda x: jax.vmap(with_batching)(layer(x)), (X,), 2),
    "a rule of batching that is not used": (lambda x: with_batching(layer(x)), (X,), 1),
    "a dead neuron": (lambda x: (layer(x), 2 * x)[1], (X,), 0),
}


@pytest.mark.filterwarnings("ignore:metal.jit")
@pytest.mark.parametrize("name", PROGRAMS)
def test_as_jit(name, launches):
    function, args, kernels = PROGRAMS[name]
    staged = jmn.metal.jit(function)
    assert_same(staged, *args)
    assert len(launches) == kernels
    assert_same(staged, *args)  # by the plan that there is now
    assert len(launches) == 2 * kernels


@pytest.mark.parametrize(
    "program",
    [
        lambda x: jax.lax.cond(x.sum() > 0, lambda x: x, lambda x: -x, x),
        lambda x: jnp.linalg.solve(x[:4], x[:4]),
        lambda x: jax.lax.map(jnp.sin, x),
    ],
)
def test_control_flow_without_neurons_is_nothing_to_cut(program):
    assert jmn.metal.jit(program).stages(X) == ()


def test_with_x64(launches):
    """Both settings of it through one function; what is in float64 stays inline."""
    staged = jmn.metal.jit(lambda x, y: (layer(x), jmn.neuron(y, TANH), y.sum()))
    wide = np.asarray(X, np.float64)
    assert_same(staged, X, wide)
    assert len(launches) == 2
    with x64(True):
        assert assert_same(staged, X, wide)[1].dtype == np.float64
    assert len(launches) == 3


class Network:
    def __call__(self, x):
        return looped(x)


def looped(x, n=2):
    return jax.lax.fori_loop(0, n, lambda _, c: layer(c), layer(x))


@pytest.mark.parametrize(
    ("function", "name"),
    [(jax.tree_util.Partial(looped, n=3), ""), (Network(), ""), (Network().__call__, "__call__")],
)
def test_functions_without_a_name(function, name, launches):
    """Which the warning about loops would name."""
    with pytest.warns(UserWarning, match=rf"metal\.jit\(.*{name}.*\): neuron calls inside scan"):
        assert_same(jmn.metal.jit(function), X)


@pytest.mark.parametrize(
    ("options", "args"),
    [
        ({"static_argnums": np.int64(1)}, (X, 3)),
        ({"static_argnums": -1}, (X, 3)),
        ({"static_argnums": -1}, (X,)),  # of the parameters, on every version of JAX
        ({"static_argnums": (1,)}, (X,)),
    ],
)
def test_static_positions(options, args, launches):
    def function(x, n=2):
        assert isinstance(n, int)
        return layer(x) * n

    np.testing.assert_allclose(jmn.metal.jit(function, **options)(*args), function(*args), rtol=1e-5)
    assert len(launches) == 1


@pytest.mark.parametrize("position", [1, -2])
def test_static_positions_of_any_number_of_arguments(position, launches):
    def function(*args):
        assert isinstance(args[1], int)
        return layer(args[0]) * args[1] + args[2]

    staged = jmn.metal.jit(function, static_argnums=position)
    np.testing.assert_allclose(staged(X, 2, X), function(X, 2, X), rtol=1e-5)
    assert len(launches) == 1


def test_threads(launches):
    staged = jmn.metal.jit(jax.value_and_grad(loss))
    results: list = [None] * 8

    def run(i):
        results[i] = staged((i + 1) * W, X[: 3 + i % 2])

    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, got in enumerate(results):
        want = jax.value_and_grad(loss)((i + 1) * W, X[: 3 + i % 2])
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    assert len(launches) == 8 * 4


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (lambda x: layer(x) if x.sum() > 0 else x, (X,)),
        (lambda x: (layer(x), "a string"), (X,)),
        (lambda x: layer(x), ("a string",)),
        (lambda x, *, scale: layer(x) * scale, (X,)),
        (lambda x: {}["boo"], (X,)),
        (lambda x: layer(x[:, :3]), (X,)),
        (3, (X,)),
    ],
)
def test_errors_as_of_jit(function, args, launches):
    raised = []
    for jit in (jax.jit, jmn.metal.jit):
        with pytest.raises(Exception) as caught:  # noqa: PT011
            jit(function)(*args)
        raised.append((caught.type, str(caught.value).partition("\n")[0]))
    assert raised[0] == raised[1]
    assert not launches
