"""The parameters of a `Neuron`: leaves, compilations, and one PReLU slope for all channels."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron import Neuron, NeuronType, nn
from support.arrays import assert_close, draw, x64
from support.zoo import neurons

USED = {
    "RELU": "a",
    "LINEAR": "ab",
    "HARD_SIGMOID": "ab",
    "TANH": "ab",
    "SOFTPLUS": "ab",
    "ELU": "a",
    "PRELU": "a",
    "RELUN": "ab",
    "POWER": "abc",
    "EXPONENTIAL": "abc",
    "LOGARITHM": "abc",
}


def of(neuron_type: NeuronType) -> Neuron:
    return Neuron.prelu(0.25) if neuron_type is NeuronType.PRELU else Neuron(neuron_type)


@pytest.mark.parametrize("neuron_type", NeuronType)
def test_leaves_are_the_parameters_that_the_type_uses(neuron_type):
    neuron, used = of(neuron_type), USED.get(neuron_type.name, "")
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_flatten_with_path(neuron)[0]]
    assert paths == [f".{name}" for name in used]
    assert jax.tree.map(lambda leaf: leaf, neuron) == neuron
    assert [name for name in "abc" if getattr(neuron, name) is not None] == list(used)


@pytest.mark.parametrize("neuron_type", NeuronType)
@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_a_parameter_that_the_type_does_not_use_is_an_error(neuron_type, name):
    given = {"a": 0.5} if neuron_type is NeuronType.PRELU else {}
    if name in USED.get(neuron_type.name, ""):
        assert getattr(Neuron(neuron_type, **{**given, name: 2.0}), name) == 2.0
    else:
        with pytest.raises(ValueError, match=f"{name} must not be given for {neuron_type.name}.*got 2.0"):
            Neuron(neuron_type, **{**given, name: 2.0})


@pytest.mark.parametrize("name", ["leaky_relu", "elu", "tanh", "power", "exponential_base"])
def test_stacked_neurons_map(name):
    neuron = neurons()[name]
    scales = jnp.asarray([0.5, 1.0, 1.5])
    stacked = jax.tree.map(lambda leaf: leaf * scales, neuron)
    x = draw(0, (3, 4))

    def row(neuron, x):
        return jmn.neuron(x, neuron)

    for got, scale in zip(jax.vmap(row, (0, None))(stacked, x), scales, strict=True):
        one = jax.tree.map(lambda leaf, scale=scale: leaf * scale, neuron)
        assert_close(got, np.asarray(jmn.reference.neuron(x, one), np.float64), factor=4)


COMPILED: list[str] = []


def listen(event, _, **details):
    if event == "/jax/core/compile/backend_compile_duration":
        COMPILED.append(details.get("fun_name", ""))


jax.monitoring.register_event_duration_secs_listener(listen)


@pytest.mark.parametrize(
    "neuron", [Neuron.elu(0.5), Neuron.tanh(1.0, 1.0), Neuron.gelu(), Neuron.prelu(0.25)], ids=repr
)
def test_a_learned_neuron_compiles_once(neuron):
    x = draw(0, (5, 4))

    @jax.jit
    def step(neuron, x):
        slopes = jax.grad(lambda n: jmn.neuron(x, n).sum())(neuron)
        return jax.tree.map(lambda p, d: p - 0.1 * d, neuron, slopes)

    jax.block_until_ready(x)
    before = len(COMPILED)
    for _ in range(4):
        neuron = step(neuron, x)
    jax.block_until_ready(jax.tree.leaves(neuron))
    assert len(COMPILED) - before == 1


@pytest.mark.parametrize("lowering", ["auto", "inline"])
@pytest.mark.parametrize("shape", [(), (1,)])
@pytest.mark.parametrize("x_shape", [(3, 5), (5,), (2, 3, 1)])
def test_one_slope_for_all_channels(shape, x_shape, lowering):
    x, g, bias = draw(0, x_shape), draw(1, x_shape), draw(2, x_shape[-1:])
    slope = jnp.full(shape, 0.25, "float16")

    def loss(slope, x, bias):
        return (g * jmn.neuron(x, Neuron.prelu(slope), bias, lowering=lowering)).sum()

    def plain(slope, x, bias):
        z = x + bias
        return (g * jnp.where(z >= 0, z, slope.astype("float32") * z)).sum()

    assert_close(loss(slope, x, bias), np.float64(plain(slope, x, bias)), factor=8)
    got, want = (jax.grad(f, (0, 1, 2))(slope, x, bias) for f in (loss, plain))
    assert got[0].shape == shape
    assert got[0].dtype == jnp.float16
    for a, b in zip(got, want, strict=True):
        assert_close(a, np.asarray(b, np.float64), factor=8)
    for module in (jmn, jmn.reference):
        result = module.neuron_gradient(g, x, Neuron.prelu(slope), bias)
        assert (result.a.shape, result.a.dtype) == (shape, jnp.float16)
        for a, b in zip((result.a, result.data, result.bias), want, strict=True):
            assert_close(a, np.asarray(b, np.float64), factor=8)


def test_one_slope_of_a_scalar_and_of_stacked_layers():
    assert float(jmn.neuron(jnp.float32(-2), Neuron.prelu(0.25))) == -0.5
    assert jmn.neuron_gradient(jnp.float32(3), jnp.float32(-2), Neuron.prelu(0.25)) == (0.75, None, -6.0)
    mapped = jax.vmap(lambda n: jmn.neuron(-jnp.ones(4), n))(Neuron.prelu(jnp.asarray([0.0, 0.5, 1.0])))
    np.testing.assert_array_equal(mapped, -np.repeat([[0.0], [0.5], [1.0]], 4, 1))
    y = jmn.fully_connected(-jnp.ones((2, 3)), jnp.ones((3, 4)), Neuron.prelu(0.5))
    np.testing.assert_array_equal(y, np.full((2, 4), -1.5))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Neuron.gelu, r"got the constructor Neuron.gelu. Write Neuron.gelu\(\)."),
        (Neuron.prelu, r"got the constructor Neuron.prelu. Write Neuron.prelu\(slopes\)."),
        ("gelu", r"got 'gelu'. Write Neuron.gelu\(\)."),
        ("Hard Sigmoid", r"got 'Hard Sigmoid'. Write Neuron.hard_sigmoid\(\)."),
        (5, r"got 5. Write Neuron.tanh\(\)."),
        (NeuronType.ELU, r"got <NeuronType.ELU: 9>. Write Neuron.elu\(\)."),
        (Neuron, "got <class .*Its constructors are none, relu, .*gelu."),
        ("silu", "got 'silu'. Its constructors are none, relu, "),
        (jax.nn.silu, "got <.*silu.*. Its constructors are none, relu, "),
        (np.ones(512), r"got an array of shape \(512,\). Its constructors are "),
        (jax.nn.gelu, "got <function gelu.*Write Neuron.gelu"),
        (None, "got None. Its constructors are none, relu, "),
    ],
    ids=lambda value: getattr(value, "__name__", repr(value)),
)
@pytest.mark.parametrize("function", ["neuron", "gradient", "reference", "dense", "matrix", "device"])
def test_not_a_neuron(function, wrong, message):
    x = jnp.ones((2, 3))
    calls = {
        "neuron": lambda: jmn.neuron(x, wrong),
        "gradient": lambda: jmn.neuron_gradient(x, x, wrong),
        "reference": lambda: jmn.reference.neuron(x, wrong),
        "dense": lambda: jmn.fully_connected(x, x.T, wrong),
        "matrix": lambda: jmn.MatrixNeuron(wrong),
        "device": lambda: jmn.metal.Device.neuron(None, x, wrong),
    }
    with pytest.raises(TypeError, match=f"neuron must be a jax_mps_neuron.Neuron, {message}"):
        calls[function]()


def test_nn_has_every_name_of_jax_nn_and_no_other():
    public = {name for name in dir(jax.nn) if not name.startswith("_")}
    assert set(dir(nn)) == public | set(nn.__all__)  # older versions lack nn.identity
    for name in public:
        assert getattr(nn, name) is not None
        assert (getattr(nn, name) is getattr(jax.nn, name)) == (name not in nn.__all__)
    for leaked in ("jax", "Any", "annotations"):
        assert leaked not in dir(nn)
    with pytest.raises(AttributeError):
        nn.no_such_activation  # noqa: B018


class Wrapped:
    """What JAX converts by `__jax_array__`."""

    def __jax_array__(self):
        return jnp.ones((2, 3))


def test_an_object_that_converts_to_an_array():
    x, elu = jnp.ones((2, 3)), Neuron.elu(0.5)
    for module in (jmn, jmn.reference):
        assert module.neuron_gradient(Wrapped(), Wrapped(), elu).data.shape == (2, 3)
    for function in (
        nn.selu,
        nn.elu,
        lambda w: nn.gelu(w, False),
        lambda w: jmn.neuron(w, elu, x[0], alpha=1.0),
    ):
        np.testing.assert_array_equal(function(Wrapped()), function(x))


@pytest.mark.parametrize("function", [jmn.neuron, jmn.reference.neuron])
def test_a_missing_parameter_is_an_error(function):
    x = jnp.ones((2, 3))
    with pytest.raises(TypeError, match="alpha must be a real scalar, got None"):
        function(x, Neuron.elu(), alpha=None)
    for name, neurons_of in USED.items():
        for parameter in neurons_of if name != "PRELU" else ():
            broken = jax.tree.map(lambda leaf: leaf, Neuron(NeuronType[name]))
            object.__setattr__(broken, parameter, None)  # as tree.map may leave it
            with pytest.raises(TypeError, match=f"{parameter} must be a real scalar, got None"):
                function(x, broken)


def test_numbers_keep_the_precision_of_the_gradient():
    with x64(True):
        g, x, bias = jnp.ones(3, "float64"), jnp.ones(3, "float32"), jnp.zeros(3, "float64")
        got = jmn.neuron_gradient(g, x, Neuron.softplus(), bias, alpha=0.1)
        assert abs(float(got.bias[0]) - 1 / (1 + np.exp(-0.1))) < 1e-15
    with np.errstate(all="raise"):
        assert float(jmn.neuron(np.ones(2), Neuron.none(), alpha=1e300)[0]) == np.inf
        assert float(jmn.neuron(np.ones(2), Neuron.none(), alpha=-(10**400))[0]) == -np.inf


def test_the_dtype_of_a_slope_is_part_of_a_static_neuron():
    x = jnp.ones((2, 3))
    gradient = jax.jit(lambda x, n: jmn.neuron_gradient(x, x, n), static_argnums=1)
    for dtype in ("float32", "bfloat16"):
        assert gradient(x, Neuron.prelu(jnp.asarray(0.25, dtype))).a.dtype == dtype


@pytest.mark.parametrize("dtype", ["<U1", "object"])
def test_arrays_that_jax_does_not_have(dtype):
    with pytest.raises(TypeError, match=r"x must have dtype float32.*got"):
        jmn.neuron(np.asarray(["1"], dtype), Neuron.elu())


@pytest.mark.parametrize("name", ["elu", "leaky_relu"])
def test_weak_types_with_an_integer_parameter(name):
    ours, theirs = getattr(nn, name)(1.5, jnp.int32(2)), getattr(jax.nn, name)(1.5, jnp.int32(2))
    assert (ours.dtype, ours.weak_type) == (theirs.dtype, theirs.weak_type)
