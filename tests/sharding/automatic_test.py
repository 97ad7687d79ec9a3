"""Under jit, on arrays that are sharded: what is communicated, where the custom call runs, and the results.

They are compared with those of one device, which other tests compare with Apple's formulas.
"""

from __future__ import annotations

import re

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import jax_mps_neuron as jmn
from collectives import collectives
from jax_mps_neuron._lowering import partition
from support import zoo
from support.arrays import draw
from support.devices import DEVICES, mesh_of
from support.meshes import MESH, call_shapes, equals, is_sharded, put

pytestmark = pytest.mark.usefixtures("native_library")


def layer(gradient, x, bias, slopes, alpha=1.25):
    """y, and the gradients of x, bias and slopes."""

    def forward(x, bias, slopes):
        return jmn.neuron(x, jmn.Neuron.prelu(slopes), bias, alpha=alpha)

    y, pull = jax.vjp(forward, x, bias, slopes)
    return y, *pull(gradient)


CASES = {  # x's spec, and the axes over which sums go
    "rows": (("data",), ("data",)),
    "second rows": ((None, "data"), ("data",)),
    "channels": ((None, None, "model"), ()),
    "rows and channels": (("data", None, "model"), ("data",)),
    "both rows": (("model", "data"), ("data", "model")),
    "rows over two axes": ((("data", "model"),), ("data", "model")),
    "rows over two axes, the other way": ((("model", "data"),), ("data", "model")),
    "nothing": ((), ()),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_and_backward(name, partitioner):
    """Nothing is gathered, each sum is reduced once over the axes of rows, and the handler sees a part."""
    spec, row_axes = CASES[name]
    of_channels = spec[2:3]
    gradient, x, bias = draw(0, (16, 12, 6)), draw(1, (16, 12, 6)), draw(2, (6,))
    slopes = zoo.slopes(6)
    expected = jax.jit(layer)(gradient, x, bias, slopes)
    operands = [put(gradient, *spec), put(x, *spec), put(bias, *of_channels), put(slopes, *of_channels)]
    compiled = jax.jit(layer).lower(*operands).compile()
    results = compiled(*operands)
    equals(results, expected)
    for result, of in zip(results, (spec, spec, of_channels, of_channels), strict=True):
        assert is_sharded(result, *of)
    found = collectives(compiled, MESH)
    part = results[0].addressable_shards[0].data.shape
    assert [(c.kind, c.axes) for c in found] == [("all-reduce", row_axes)] * len(found)
    assert [shape for c in found for shape in c.shapes] == [part[2:]] * (2 if row_axes else 0)
    array, vector = (f"f32[{','.join(map(str, shape))}]" for shape in (part, part[2:]))
    assert call_shapes(compiled, "neuron") == [array]
    assert call_shapes(compiled, "neuron_gradient") == [f"({array},{vector},{vector})"]


VMAPPED = {  # specs of gradient and x, and the axes of gradient, x and bias that are mapped
    "batch": (("data",), ("data",), (0, 0, None)),
    "batch over two axes": ((("data", "model"),), (("data", "model"),), (0, 0, None)),
    "rows": ((None, "data"), (None, "data"), (0, 0, None)),
    "channels, x shared": ((None, None, "model"), (None, "model"), (0, None, None)),
    "batch, x shared": (("data",), (), (0, None, None)),
    "rows, batched bias": ((None, "data"), (None, "data"), (0, 0, 0)),
    "batch, second": ((None, "data"), (None, "data"), (1, 1, None)),
}


@pytest.mark.parametrize("name", VMAPPED)
def test_vmapped(name, partitioner):
    """One call, whatever is shared, and no array is moved."""
    of_gradient, of_x, in_axes = VMAPPED[name]

    def example(gradient, x, bias):
        return jmn.neuron_gradient(gradient, x, jmn.Neuron.gelu(), bias)[:2]

    gradient = draw(0, (8, 16, 6))
    x = draw(1, (8, 16, 6) if in_axes[1] is not None else (16, 6))
    bias = draw(2, (6,) if in_axes[2] is None else (8, 6))
    mapped = jax.jit(jax.vmap(example, in_axes))
    operands = put(gradient, *of_gradient), put(x, *of_x), put(bias)
    compiled = mapped.lower(*operands).compile()
    results = compiled(*operands)
    equals(results, mapped(gradient, x, bias))
    assert {c.kind for c in collectives(compiled, MESH)} <= {"all-reduce"}
    assert len(call_shapes(compiled, "neuron_gradient")) == 1
    if in_axes[0] == 0:
        assert is_sharded(results[0], *of_gradient)


@pytest.mark.parametrize("parameter", ["uneven rows", "empty parts", "both uneven", "uneven channels"])
def test_uneven(parameter, partitioner):
    """What fills up a part may hold anything, here 1 / 0, and must not get into a sum."""
    shape, spec = {
        "uneven rows": ((61, 5, 6), ("data",)),
        "empty parts": ((5, 3, 6), ("data",)),  # of 2, 2, 1 and 0
        "both uneven": ((9, 5, 6), ("data", "model")),
        "uneven channels": ((8, 3, 7), ("data", None, "model")),
    }[parameter]

    def sharded(gradient, x, bias, slopes):
        held = NamedSharding(MESH, P(*spec))
        gradient, x = (lax.with_sharding_constraint(v, held) for v in (gradient, x))
        gradient, x = (1 / v for v in lax.optimization_barrier((gradient, x)))
        log = jmn.neuron_gradient(gradient, jnp.abs(x), jmn.Neuron.logarithm(), jnp.abs(bias))
        return layer(gradient, x, bias, slopes), log[:2]

    def plain(gradient, x, bias, slopes):
        log = jmn.neuron_gradient(1 / gradient, jnp.abs(1 / x), jmn.Neuron.logarithm(), jnp.abs(bias))
        return layer(1 / gradient, 1 / x, bias, slopes), log[:2]

    gradient, x = (v + jnp.sign(v) for v in (draw(0, shape), draw(1, shape)))
    operands = gradient, x, draw(2, shape[-1:]), zoo.slopes(shape[-1])
    compiled = jax.jit(sharded).lower(*(put(v) for v in operands)).compile()
    equals(compiled(*(put(v) for v in operands)), jax.jit(plain)(*operands))
    assert len(call_shapes(compiled, "neuron_gradient")) == 2


def test_a_shape_that_jax_does_not_shard_is_its_own_error():
    with pytest.raises(ValueError, match="divi"):
        jax.jit(jmn.neuron, static_argnums=1)(put(draw(0, (61, 6)), "data"), jmn.Neuron.gelu())


@pytest.mark.parametrize("where", ["before", "after", "result"])
def test_a_sharding_that_is_propagated(where, partitioner):
    """The operands come on every device, and something else says how they are divided."""
    held = NamedSharding(MESH, P("data", None, "model"))

    def hold(value, here):
        return lax.with_sharding_constraint(value, held) if here == where else value

    def step(gradient, x, bias, slopes):
        y, dx, *rest = layer(gradient, hold(2 * x, "before"), bias, slopes)
        return hold(y, "after"), hold(dx, "after"), *rest

    operands = draw(0, (16, 12, 6)), draw(1, (16, 12, 6)), draw(2, (6,)), zoo.slopes(6)
    shardings = (held, held, None, None) if where == "result" else None
    kwargs = {"out_shardings": shardings} if shardings else {}
    compiled = jax.jit(step, **kwargs).lower(*map(put, operands)).compile()
    equals(compiled(*map(put, operands)), jax.jit(layer)(operands[0], 2 * operands[1], *operands[2:]))
    assert call_shapes(compiled, "neuron") == ["f32[4,12,3]"]
    assert call_shapes(compiled, "neuron_gradient") == ["(f32[4,12,3],f32[3],f32[3])"]
    assert {(c.kind, c.axes) for c in collectives(compiled, MESH)} == {("all-reduce", ("data",))}


MESHES = {
    "one device": mesh_of(1, 1),
    "an axis of size 1": mesh_of(8, 1),
    "the other of size 1": mesh_of(1, 8),
    "three by two": mesh_of(3, 2),
    "two by three": mesh_of(2, 3),
    "devices in another order": mesh_of(2, 2, devices=[DEVICES[i] for i in (5, 0, 3, 6)]),
    "three axes": mesh_of(2, 2, 2, names=("model", "other", "data")),
}


@pytest.mark.parametrize("name", MESHES)
def test_meshes(name, partitioner):
    mesh = MESHES[name]
    operands = draw(0, (24, 24)), draw(1, (24, 24)), draw(2, (24,)), zoo.slopes(24)
    for spec in (("data", "model"), ("model", "data")):
        specs = spec, spec, spec[1:], spec[1:]
        sharded = [put(v, *of, mesh=mesh) for v, of in zip(operands, specs, strict=True)]
        compiled = jax.jit(layer).lower(*sharded).compile()
        results = compiled(*sharded)
        equals(results, jax.jit(layer)(*operands))
        assert all(is_sharded(r, *of, mesh=mesh) for r, of in zip(results, specs, strict=True))
        expected = {("all-reduce", spec[:1])} if mesh.shape[spec[0]] > 1 else set()
        assert {(c.kind, c.axes) for c in collectives(compiled, mesh)} == expected
        assert len(call_shapes(compiled, "neuron_gradient")) == 1


def test_other_devices(partitioner):
    """A program that JAX lowers once runs on other devices."""
    step = jax.jit(lambda x, bias: jax.grad(lambda b: jmn.neuron(x, jmn.Neuron.gelu(), b).sum())(bias))
    x, bias = draw(0, (16, 6)), draw(1, (6,))
    expected = step(x, bias)
    for devices in (DEVICES[:4], DEVICES[4:], DEVICES[6:2:-1]):
        mesh = mesh_of(4, devices=devices)
        result = step(put(x, "data", mesh=mesh), put(bias, mesh=mesh))
        equals(result, expected)
        assert {shard.device for shard in result.addressable_shards} == set(devices)


def test_several_meshes_in_one_program(partitioner):
    step = jax.jit(lambda x, bias: jax.grad(lambda b: jmn.neuron(x, jmn.Neuron.gelu(), b).sum())(bias))
    x, bias = draw(0, (16, 6)), draw(1, (6,))
    equals(step(put(x, "data"), put(bias, "data", mesh=mesh_of(2, 4))), step(x, bias))


@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16"])
def test_every_type(x_dtype, partitioner):
    operands = draw(0, (16, 6), x_dtype), draw(1, (16, 6), x_dtype), draw(2, (6,), x_dtype)

    def every(gradient, x, bias):
        return [jmn.neuron_gradient(gradient, x, neuron, bias) for neuron in zoo.neurons(6).values()]

    specs = ("data", "model"), ("data", "model"), ("model",)
    results = jax.jit(every)(*(put(v, *spec) for v, spec in zip(operands, specs, strict=True)))
    equals(results, jax.jit(every)(*operands))


def squares(f):
    return lambda x: (f(x) ** 2).sum()


TRANSFORMED = {
    "scan": lambda x, b, f: lax.scan(lambda c, _: (f(c, b), None), x, None, length=2)[0],
    "checkpoint": lambda x, b, f: jax.grad(lambda b: jax.checkpoint(f)(x, b).sum())(b),
    "cond": lambda x, b, f: jax.grad(lambda x: lax.cond(b[0] > 0, f, lambda x, b: x, x, b).sum())(x),
    "hessian": lambda x, b, f: jax.hessian(lambda b: f(x, b).sum())(b),
    "grad of grad": lambda x, b, f: jax.grad(lambda x: (jax.grad(lambda x: f(x, b).sum())(x) ** 2).sum())(
        x
    ),
    "alpha": lambda x, b, f: jax.grad(lambda a: jmn.neuron(x, jmn.Neuron.tanh(a, 0.5), b, alpha=a).sum())(
        1.5
    ),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_transformations(name, partitioner):
    def transformed(x, bias):
        return TRANSFORMED[name](x, bias, lambda x, b: jmn.neuron(x, jmn.Neuron.gelu(), b))

    x, bias = draw(0, (16, 6)), draw(1, (6,))
    operands = put(x, "data"), put(bias)
    compiled = jax.jit(transformed).lower(*operands).compile()
    equals(compiled(*operands), jax.jit(transformed)(x, bias), 12)
    assert {(c.kind, c.axes) for c in collectives(compiled, MESH)} <= {("all-reduce", ("data",))}


def test_a_chain_of_backward_calls_needs_no_activation_of_its_own(partitioner):
    def chain(gradient, x, bias):
        sums = []
        for _ in range(8):
            gradient, x = lax.optimization_barrier((gradient, x))
            gradient, sum_, _ = jmn.neuron_gradient(gradient, x, jmn.Neuron.gelu(), bias)
            sums.append(sum_)
        return gradient, sums

    x = put(draw(0, (4096, 16)), "data", "model")
    compiled = jax.jit(chain).lower(x, x, put(draw(1, (16,)), "model")).compile()
    assert call_shapes(compiled, "neuron_gradient") == ["(f32[1024,8],f32[8])"] * 8
    assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * x.nbytes / 8


def test_a_training_step(partitioner):
    """Each gradient is summed once, and XLA puts the sums of the neurons together with its own."""

    def loss(parameters, x):
        for weight, bias, slopes in parameters:
            x = jmn.neuron(x @ weight, jmn.Neuron.prelu(slopes), bias)
        return (x * x).mean()

    parameters = [(draw(i, (64, 64)), draw(i, (64,)), zoo.slopes(64)) for i in range(3)]
    x = draw(9, (4096, 64))
    operands = jax.tree.map(put, parameters), put(x, ("data", "model"))
    compiled = jax.jit(jax.value_and_grad(loss)).lower(*operands).compile()
    equals(compiled(*operands), jax.jit(jax.value_and_grad(loss))(parameters, x), 12)
    found = collectives(compiled, MESH)
    assert {(c.kind, c.axes) for c in found} == {("all-reduce", ("data", "model"))}
    shapes = [v.shape for v in jax.tree.leaves(parameters)] + [()]
    assert sorted(s for c in found for s in c.shapes) == sorted(shapes)
    if jax.__version_info__ >= (0, 10):  # before, XLA combines none on CPUs
        assert len(found) == 1
    assert call_shapes(compiled, "neuron_gradient") == ["(f32[512,64],f32[64],f32[64])"] * 3
    assert not re.search(r"= f32\[512,64\]\S* copy\(", compiled.as_text())


# Where there is nothing to divide, or no way to.


def test_on_one_device_the_call_is_plain():
    x = draw(0, (16, 6))
    for operand in (x, put(x, mesh=mesh_of(1, 1)), put(x, "data", mesh=mesh_of(1, 1))):
        text = jax.jit(lambda x: jmn.neuron(x, jmn.Neuron.gelu())).lower(operand).as_text()
        assert "jax_mps_neuron.neuron" in text
        assert "CustomSPMDPartitioning" not in text


@pytest.mark.parametrize("lowering", ["auto", "custom_call"])
def test_without_custom_partitioning(lowering, monkeypatch, partitioner):
    """As in a JAX that has none: "auto" is inline, and the custom call, asked for, gets gathered arrays."""
    monkeypatch.setattr(partition, "custom_partitioning", None)

    def step(gradient, x, bias):
        return jmn.neuron_gradient(gradient, x, jmn.Neuron.gelu(), bias, lowering=lowering)[:2]

    operands = draw(0, (16, 6)), draw(1, (16, 6)), draw(2, (6,))
    sharded = put(operands[0], "data"), put(operands[1], "data"), put(operands[2])
    compiled = jax.jit(step).lower(*sharded).compile()
    equals(compiled(*sharded), jax.jit(step)(*operands), 12)
    calls = call_shapes(compiled, "neuron_gradient")
    assert calls == ([] if lowering == "auto" else ["(f32[16,6],f32[6])"])
