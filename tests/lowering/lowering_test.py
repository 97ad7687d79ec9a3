"""Routes, what is emitted on each, and the process-wide default."""

from __future__ import annotations

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron._core.signature import Signature
from jax_mps_neuron._lowering import native
from jax_mps_neuron._lowering.inline import _COSTLY, expand
from jax_mps_neuron._lowering.rules import route
from support import apple, zoo
from support.arrays import assert_close, draw
from support.programs import lowered

GELU = jmn.Neuron.gelu()
FORWARD, GRADIENT = "@jax_mps_neuron.neuron(", "@jax_mps_neuron.neuron_gradient("


def layer(x, bias, lowering=None, neuron=GELU):
    return jmn.neuron(x, neuron, bias, lowering=lowering)


def backward(gradient, x, bias, lowering=None, neuron=GELU):
    return jax.vjp(lambda x, bias: layer(x, bias, lowering, neuron), x, bias)[1](gradient)


X, G, B = draw(0, (6, 4)), draw(1, (6, 4)), draw(2, (4,))


# Routes


def test_routes():
    assert route("cpu")[0] == ("inline" if native.unavailable_reason() else "custom_call")
    for platform in ("METAL", "mtl", "cuda", "tpu"):
        assert route(platform)[0] == "inline"
        assert route(platform, "custom_call")[0] == "custom_call"


@pytest.mark.parametrize("platform", ["cpu", "METAL", "cuda", "tpu"])
@pytest.mark.parametrize("name", zoo.NAMES)
def test_custom_call_is_emitted_for_any_platform(platform, name):
    """Also for one that this machine has no plugin for."""
    neuron = zoo.neurons(4)[name]
    text = lowered(lambda *o: backward(*o, "custom_call", neuron), G, X, B, platforms=(platform,))
    assert text.count(GRADIENT) == 1
    others = set(re.findall(r"custom_call @([\w.]+)", text)) - {"jax_mps_neuron.neuron_gradient"}
    assert others <= ({"LayoutConstraint"} if platform == "cpu" else set())  # which costs nothing
    text = lowered(lambda *o: layer(*o, "custom_call", neuron), X, B, platforms=(platform,))
    assert text.count("stablehlo.custom_call") == text.count(FORWARD) == 1


@pytest.mark.parametrize("platform", ["METAL", "cuda", "tpu"])
def test_auto_is_inline_where_nothing_is_registered(platform):
    assert "custom_call" not in lowered(lambda *o: backward(*o, "auto"), G, X, B, platforms=(platform,))


def test_auto_is_the_custom_call_on_cpu(native_library):
    assert lowered(backward, G, X, B, platforms=("cpu",)).count(GRADIENT) == 1


def test_several_platforms_take_each_their_route(native_library):
    text = lowered(backward, G, X, B, platforms=("cpu", "cuda"))
    assert text.count(GRADIENT) == 1
    assert "stablehlo.case" in text
    assert "stablehlo.exponential" in text


# Operations an older Metal plugin legalizes, and what shapes data.
LEGAL = {
    *("add", "subtract", "multiply", "divide", "negate", "abs", "maximum", "minimum"),
    *("compare", "select", "exponential", "log", "tanh", "logistic", "sqrt", "power"),
    *("constant", "broadcast_in_dim", "reshape", "slice", "concatenate", "convert", "reduce", "return"),
}


def learned(x, bias, neuron):
    """The gradients that Apple's kernel does not have, batched."""

    def total(parameters, x, alpha):
        return layer(x, bias, "inline", jmn.Neuron(neuron.type, *parameters)).sum() * alpha

    parameters = jax.tree.leaves(neuron)
    gradients = jax.grad(total, (0, 1, 2), allow_int=True)
    return jax.vmap(gradients, (None, 0, None))(parameters, x, jnp.float32(1.5))


def operations_of(function, *arguments):
    """The operations of a program for a Metal plugin, whatever their dialect, but for its functions."""
    _, _, text = lowered(function, *arguments, platforms=("METAL",)).partition(
        "\n"
    )  # the module's attributes
    names = re.findall(r'^ *(?:%[\w:, %]+ = )?"?([a-z_]+(?:\.\w+)?)"?[ (<]', text, re.MULTILINE)
    # Within a reduction, operations follow the word that introduces them.
    names += re.findall(r"\b((?:stablehlo|mhlo|chlo)\.\w+)\b(?! =)", text)  # not an attribute
    return set(names) - {"module", "func.func", "func.call", "call", "func.return", "return"}


@pytest.mark.parametrize("x_dtype", ["float32", "float16"])
@pytest.mark.parametrize("name", zoo.NAMES)
def test_inline_keeps_to_what_metal_plugins_legalize(name, x_dtype):
    neuron = zoo.neurons(4)[name]
    x, gradient, bias = X.astype(x_dtype), G.astype(x_dtype), B.astype(x_dtype)

    def gradients(gradient, x, bias):
        return backward(gradient, x, bias, "inline", neuron)

    def alone(gradient, x):
        return jax.vjp(lambda x: layer(x, None, "inline", neuron), x)[1](gradient)

    two = [jnp.stack([o, o]) for o in (gradient, x)]
    legal = {f"stablehlo.{operation}" for operation in LEGAL}
    for program in (
        (lambda x, bias: layer(x, bias, "inline", neuron), x, bias),
        (gradients, gradient, x, bias),
        (alone, gradient, x),
        (jax.vmap(gradients, (0, 0, None)), *two, bias),
    ):
        operations = operations_of(*program)
        assert "stablehlo.multiply" in operations
        assert operations <= legal, operations - legal
    # alpha, a, b and c are slices of one operand, so their gradients are padded.
    operations = operations_of(lambda x, bias: learned(x, bias, neuron), two[1], bias)
    assert operations <= legal | {"stablehlo.pad"}, operations - legal


# The compiled program


@pytest.mark.parametrize(
    ("platform", "name", "x_dtype", "barriers"),
    [
        ("cuda", "gelu", "bfloat16", 1),
        ("rocm", "power", "float16", 1),
        ("cuda", "relu", "float32", 1),
        ("cuda", "relu", "bfloat16", 0),
        ("cuda", "linear", "float32", 0),  # which then would read x
        ("METAL", "gelu", "float16", 0),
        ("tpu", "gelu", "bfloat16", 0),
    ],
)
def test_sums_are_apart_on_gpus(platform, name, x_dtype, barriers):
    """Else XLA may write a part of the work to memory and read it back: benchmarks/inline_on_gpu.py."""
    x = jnp.asarray(X, x_dtype)
    neuron = zoo.neurons()[name]
    text = lowered(lambda g, x, b: backward(g, x, b, "inline", neuron), x, x, B, platforms=(platform,))
    assert text.count("optimization_barrier") == barriers


@pytest.mark.parametrize("x_dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", zoo.NAMES)
def test_the_form_for_gpus_is_the_same_function(name, x_dtype):
    """Compiled for this CPU: against the float64 table, NaN and infinite gradients included."""
    neuron = zoo.neurons(6)[name]
    gradient, x, bias = (jnp.asarray(draw(i, (20, 6), x_dtype)) for i in (1, 0, 2))
    bias = bias[0]
    gradient = gradient.at[2, 2].set(np.nan).at[5, 3].set(np.inf).at[6, 4].set(-np.inf)
    slopes = [jnp.asarray(neuron.a)] if neuron.type is jmn.NeuronType.PRELU else []
    signature = Signature(neuron.type, bias=True, bias_gradient=True, slope_gradient=bool(slopes))
    operands = gradient, x, zoo.scalars(neuron, 1.25), bias.astype("float32"), *slopes
    data, *sums = jax.jit(partial(expand, signature, for_gpu=True))(*operands)
    expected = apple.neuron_gradient(gradient, x, neuron, bias, 1.25)
    assert_close(data, expected.data)
    for got, want in zip(sums, (expected.bias, expected.a), strict=False):
        assert_close(got, want, factor=4)


@pytest.mark.parametrize("name", [n for n, of in zoo.neurons().items() if of.type in _COSTLY])
def test_the_form_for_gpus_passes_nan_on(name):
    neuron = zoo.neurons()[name]
    ones = jnp.ones((2, 1), "bfloat16")
    signature = Signature(neuron.type, bias=True, bias_gradient=True)
    for operands in ((ones * np.nan, ones), (ones, ones * np.nan)):
        for result in expand(signature, *operands, zoo.scalars(neuron), jnp.zeros(1), for_gpu=True):
            assert np.isnan(np.asarray(result, np.float32)).all()


def mlp(weights, x, lowering):
    for weight, bias in weights:
        x = layer(x @ weight, bias, lowering)
    return (x * x).sum()


def test_a_training_step_copies_nothing(native_library):
    """One call a layer each way, no copy of an activation, and less memory than XLA's own."""
    weights = [(draw(i, (64, 64)), draw(i, (64,))) for i in range(6)]
    x = draw(9, (4096, 64))
    compiled = jax.jit(jax.grad(mlp), static_argnums=2).lower(weights, x, "custom_call").compile()
    text = compiled.as_text()
    assert text.count('custom_call_target="jax_mps_neuron.neuron"') == 6
    assert text.count('custom_call_target="jax_mps_neuron.neuron_gradient"') == 6
    assert not re.search(r"= f32\[4096,64\]\S* copy\(", text)
    inline = jax.jit(jax.grad(mlp), static_argnums=2).lower(weights, x, "inline").compile()
    ours, theirs = (c.memory_analysis().temp_size_in_bytes for c in (compiled, inline))
    assert ours <= theirs


@pytest.mark.parametrize("bias", [None, B])
@pytest.mark.parametrize("barrier", [False, True])
@pytest.mark.parametrize("matrices", [(), (3,), (3, 2)])
def test_a_chain_of_backward_calls_needs_no_activation_of_its_own(bias, barrier, matrices, native_library):
    def step(gradient, x):
        return jmn.neuron_gradient(gradient, x, jmn.Neuron.gelu(), bias, lowering="custom_call")

    for _ in matrices:
        step = jax.vmap(step)

    def chain(gradient, x):
        sums = []
        for _ in range(8):
            if barrier:
                gradient, x = jax.lax.optimization_barrier((gradient, x))
            result = step(gradient, x)
            gradient = result.data
            sums.append(result.bias)
        return gradient, sums

    x = draw(0, (*matrices, 4096, 4))
    compiled = jax.jit(chain).lower(x, x).compile()
    assert compiled.as_text().count('custom_call_target="jax_mps_neuron.neuron_gradient"') == 8
    assert compiled.memory_analysis().temp_size_in_bytes < 0.1 * x.nbytes


def test_a_layout_that_someone_asks_for_is_honoured(native_library):
    """Handlers write rows; XLA must convert, and not hand them the buffer of another layout."""
    layout = pytest.importorskip("jax.experimental.layout")
    if not hasattr(layout, "with_layout_constraint"):
        pytest.skip(f"jax {jax.__version__} cannot ask for a layout inside of a program")

    def in_columns(value):
        order = tuple(reversed(range(value.ndim)))
        return layout.with_layout_constraint(value, layout.Layout(order))

    def forward(x):
        return layer(x, None, "custom_call") + 0

    def gradients(x, bias):
        return jmn.neuron_gradient(2 * x, x, GELU, bias, lowering="custom_call")[:2]

    x, bias = draw(0, (3, 5, 7)), draw(1, (3, 7))
    mapped = jax.vmap(gradients)
    for function, operands in ((forward, (x,)), (gradients, (x[0], bias[0])), (mapped, (x, bias))):
        constrained = jax.jit(lambda *o, f=function: jax.tree.map(in_columns, f(*o)))(*operands)
        for got, want in zip(
            jax.tree.leaves(constrained), jax.tree.leaves(function(*operands)), strict=True
        ):
            np.testing.assert_array_equal(got, want)


def test_results_agree_between_routes():
    outputs = [jax.jit(lambda *o, w=w: backward(*o, w))(G, X, B) for w in ("auto", "inline")]
    for a, b in zip(*outputs, strict=True):
        assert_close(a, np.asarray(b, np.float64))
    assert jnp.all(jnp.isfinite(outputs[0][0]))
