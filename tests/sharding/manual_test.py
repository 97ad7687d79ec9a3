"""Inside of shard_map, pmap and on meshes with explicit axes."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jax_mps_neuron as jmn
from collectives import collectives
from support import zoo
from support.arrays import draw
from support.devices import DEVICES
from support.meshes import CHECKS, MESH, call_shapes, equals, is_sharded, put, shard_map

OPERANDS = draw(0, (16, 6)), draw(1, (6,)), zoo.slopes(6), np.float32(1.25)
SPECS = P("data"), P(), P(), P()


def loss(x, bias, slopes, alpha):
    return (jmn.neuron(x, jmn.Neuron.prelu(slopes), bias, alpha=alpha) ** 2).sum()


gradients = jax.grad(loss, (0, 1, 2, 3))


@pytest.fixture(scope="module")
def expected():
    return gradients(*OPERANDS)


def mapped(function, check, in_specs, out_specs, manual=None):
    """shard_map over the axes of MESH, or over those in `manual`."""
    if CHECKS:
        options = {"check_vma": check, **({"axis_names": manual} if manual else {})}
    else:
        options = {"check_rep": check, **({"auto": frozenset(MESH.axis_names) - manual} if manual else {})}
    return jax.jit(shard_map(function, mesh=MESH, in_specs=in_specs, out_specs=out_specs, **options))


def summed(*operands):
    """What one writes where nothing checks what varies: the sums over devices."""
    of_x, *rest = gradients(*operands)
    return of_x, *(lax.psum(g, "data") for g in rest)


checked = pytest.param(
    True, marks=pytest.mark.skipif(not CHECKS, reason="check_rep takes no custom_vjp with symbolic zeros")
)


@pytest.mark.parametrize("check", [checked, False])
def test_a_gradient_inside(check, expected, native_library):
    """With checks, the gradient of what does not vary is summed by itself, and once."""
    function = mapped(gradients if check else summed, check, SPECS, SPECS)
    compiled = function.lower(*OPERANDS).compile()
    equals(compiled(*OPERANDS), expected)
    assert call_shapes(compiled, "neuron_gradient") == ["(f32[4,6],f32[6],f32[6])"]
    found = collectives(compiled, MESH)
    assert {(c.kind, c.axes) for c in found} == {("all-reduce", ("data",))}
    assert sorted(s for c in found for s in c.shapes) == [(), (6,), (6,)]


@pytest.mark.parametrize("check", [checked, False])
def test_the_gradient_of_a_shard_map(check, expected):
    def local(*operands):
        value = loss(*operands)
        return lax.psum(value, "data") if check else value[None]

    function = mapped(local, check, SPECS, P() if check else P("data"))
    equals(jax.jit(jax.grad(lambda *o: function(*o).sum(), (0, 1, 2, 3)))(*OPERANDS), expected)


@pytest.mark.skipif(not CHECKS, reason="check_rep takes no custom_vjp with symbolic zeros")
def test_sums_go_over_the_axes_that_do_not_vary_alone(expected):
    specs = P("data", "model"), P("model"), P("model"), P()
    function = mapped(gradients, True, specs, specs)
    equals(function(*OPERANDS), expected)


@pytest.mark.skipif(not CHECKS, reason="check_rep takes no custom_vjp with symbolic zeros")
@pytest.mark.parametrize("lowering", ["auto", "inline"])
def test_transformations_inside(lowering):
    def f(x, bias):
        def layer(x):
            return jmn.neuron(x, jmn.Neuron.gelu(), bias, lowering=lowering)

        x = jax.vmap(layer)(x)
        x = lax.scan(lambda c, _: (layer(c), None), x, None, length=2)[0]
        return jax.checkpoint(layer)(x).sum()

    specs = P("data"), P()
    x, bias = OPERANDS[:2]
    function = jax.grad(f, (0, 1))
    equals(mapped(function, True, specs, specs)(x, bias), jax.jit(function)(x, bias), 12)


@pytest.mark.skipif(not CHECKS, reason="before 0.6, an eager shard_map takes no symbolic zeros")
def test_outside_of_jit(expected):
    eager = shard_map(gradients, mesh=MESH, in_specs=SPECS, out_specs=SPECS)
    equals(eager(*OPERANDS), expected)


@pytest.mark.parametrize("check", [checked, False])
def test_meshes_of_which_some_axes_are_manual(check, expected, partitioner):
    """A custom partitioning there would end the process, on older JAX in the middle of the tests."""
    function = mapped(gradients if check else summed, check, SPECS, SPECS, manual={"data"})
    operands = put(OPERANDS[0], "data", "model"), *map(put, OPERANDS[1:])
    compiled = function.lower(*operands).compile()
    equals(compiled(*operands), expected)
    assert not call_shapes(compiled, "neuron_gradient")


def test_a_collective_does_not_change_what_a_call_writes(native_library):
    """A gather of columns suits a layout of columns, which a handler does not write."""

    def f(gradient, x):
        data = jmn.neuron_gradient(2 * gradient, x, jmn.Neuron.linear(2.0), jnp.zeros(6)).data
        return lax.all_gather(data, "model", axis=1, tiled=True)

    x = np.tile(OPERANDS[0], (1, 2))
    function = mapped(f, False, (P("data", "model"),) * 2, P("data"))
    np.testing.assert_array_equal(function(x, x), 4 * x)


def test_pmap(expected):
    x, *rest = OPERANDS
    of_x, *sums = jax.pmap(summed, "data", in_axes=(0, None, None, None), devices=DEVICES[:4])(
        x.reshape(4, 4, 6), *rest
    )
    equals((of_x.reshape(16, 6), *(s[0] for s in sums)), expected)


# Meshes with explicit axes, whose shardings are part of types


@pytest.fixture
def explicit():
    if not hasattr(jax, "set_mesh"):
        pytest.skip(f"jax {jax.__version__} has no meshes with explicit axes that can be set")
    mesh = jax.make_mesh((4, 2), ("data", "model"), devices=DEVICES)
    with jax.set_mesh(mesh):
        yield mesh


def explicitly(mesh, operands, specs):
    return [jax.device_put(v, NamedSharding(mesh, P(*of))) for v, of in zip(operands, specs, strict=True)]


EXPLICIT = {  # specs of x, bias and slopes
    "rows": (("data",), (), ()),
    "rows and channels": (("data", "model"), ("model",), ("model",)),
    "vectors replicated": (("data", "model"), (), ()),
    "bias of other channels": (("data",), ("model",), ()),
}


@pytest.mark.parametrize("lowering", ["auto", "inline"])
@pytest.mark.parametrize("name", EXPLICIT)
def test_explicit_axes(name, lowering, explicit, expected, partitioner):
    """Results have the shardings of what they are gradients of, and no activation is gathered for that."""
    specs = *EXPLICIT[name], ()

    def loss(x, bias, slopes, alpha):
        y = jmn.neuron(x, jmn.Neuron.prelu(slopes), bias, alpha=alpha, lowering=lowering)
        return (y**2).sum()

    operands = explicitly(explicit, OPERANDS, specs)
    compiled = jax.jit(jax.grad(loss, (0, 1, 2, 3))).lower(*operands).compile()
    results = compiled(*operands)
    equals(results, expected)
    assert all(is_sharded(r, *of, mesh=explicit) for r, of in zip(results, specs, strict=True))
    if name != "bias of other channels":  # there y is sharded as the bias, and x's gradient as x
        moved = [shape for c in collectives(compiled, MESH) if c.kind != "all-reduce" for shape in c.shapes]
        assert all(len(shape) == 1 for shape in moved)


def test_explicit_channels_beside_plain_vectors(explicit, expected):
    """Bias and slopes that are on no mesh, as those of a model that is not sharded."""
    x = jax.device_put(OPERANDS[0], NamedSharding(explicit, P("data", "model")))
    results = jax.jit(gradients)(x, *map(jnp.asarray, OPERANDS[1:]))
    equals(results, expected)


def test_explicit_axes_outside_of_jit(explicit, expected):
    results = gradients(*explicitly(explicit, OPERANDS, (*EXPLICIT["rows"], ())))
    equals(results, expected)
    assert is_sharded(results[0], "data", mesh=explicit)


def test_transformations_on_explicit_axes(explicit):
    x, bias = OPERANDS[:2]

    def f(x, bias):
        def layer(x, _=None):
            return jmn.neuron(x, jmn.Neuron.gelu(), bias), None

        x, _ = jax.vmap(layer)(x)
        return lax.scan(layer, x, None, length=2)[0].sum()

    def second(x, bias):
        return jax.hessian(lambda b: jmn.neuron(x, jmn.Neuron.gelu(), b).sum())(bias)

    operands = explicitly(explicit, (x, bias), (("data", "model"), ("model",)))
    for function in (jax.jit(jax.grad(f, (0, 1))), jax.jit(second)):
        equals(function(*operands), function(np.asarray(x), np.asarray(bias)), 12)
