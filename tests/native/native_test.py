"""The compiled library: its handlers' checks, every instruction set, sums of any shape, threads."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron._lowering import native
from support import apple, zoo
from support.arrays import assert_close, draw, x64
from support.checks import Call, check_values_and_gradients
from support.programs import run_python

pytestmark = pytest.mark.usefixtures("native_library")


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def isa(request):
    if request.param not in native.isas():
        pytest.skip(f"this CPU, or this library, has no {request.param}; it has {native.isas()}")
    before = native.isa()
    native.use_isa(request.param)
    yield request.param
    native.use_isa(before)


@pytest.mark.parametrize("name", zoo.NAMES)
def test_every_instruction_set(name, dtype, isa):
    shape = (19, 53)
    x, gradient, bias = draw(0, shape, dtype, 2.0), draw(1, shape, dtype), draw(2, shape[-1:], dtype)
    check_values_and_gradients([Call(gradient, x, zoo.neurons(53)[name], bias)], "custom_call")


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_every_half_is_read_and_written_exactly(half, isa):
    bits = np.arange(2**16, dtype=np.uint16)
    x = jnp.asarray(bits.view(jnp.dtype(half)))
    y = jmn.neuron(x, jmn.Neuron.none(), lowering="custom_call")
    nan = np.asarray(jnp.isnan(x))
    np.testing.assert_array_equal(jnp.isnan(y), nan)
    np.testing.assert_array_equal(np.asarray(y).view(np.uint16)[~nan], bits[~nan])


@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_halves_round_to_nearest_even(half, isa):
    """Sums of a half and a float32 bias: ties, overflow and subnormal results among them."""
    x = np.arange(2**16, dtype=np.uint16).view(jnp.dtype(half))
    x = x[np.isfinite(x.astype(np.float32))]
    with np.errstate(over="ignore"):
        ulp = np.spacing(x).astype(np.float32)
    for fraction in (0.5, 0.25, 0.75, -0.5, -0.50390625):
        exact = x.astype(np.float32) + np.float32(fraction) * ulp
        rows = np.stack([x, x])  # channels are the numbers, so each has its own bias
        bias = np.float32(fraction) * ulp
        y = jmn.neuron(rows, jmn.Neuron.none(), bias, lowering="custom_call")
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(np.asarray(y)[0], exact.astype(x.dtype))


# Sums: one or many strips, tiles of columns, rows repeated side by side, a tail left over by that.
SUM_SHAPES = [
    (40_000, 3),
    (300, 1030),
    (200_003, 2),
    (3, 100_003),
    (1_000_003, 1),
    (129, 1024),
    (128, 2048),
]


@pytest.mark.parametrize("shape", SUM_SHAPES, ids=str)
@pytest.mark.parametrize("x_dtype", ["float32", "bfloat16", "float64"])
def test_sums_of_any_shape(shape, x_dtype):
    with x64(x_dtype == "float64"):
        x, gradient = draw(0, shape, x_dtype), draw(1, shape, x_dtype)
        bias = draw(2, shape[-1:], "float64" if x_dtype == "float64" else "float32")
        neuron = jmn.Neuron.prelu(draw(3, shape[-1:], bias.dtype))
        actual = jmn.neuron_gradient(gradient, x, neuron, bias, lowering="custom_call")
        expected = apple.neuron_gradient(gradient, x, neuron, bias)
        assert_close(actual.data, expected.data)
        # The error of a sum of n numbers grows as sqrt(n), relative to the sum's own size.
        tolerance = (1e-6 if x_dtype != "float64" else 1e-15) * np.sqrt(shape[0])
        np.testing.assert_allclose(actual.bias, expected.bias, atol=tolerance, rtol=1e-5)
        np.testing.assert_allclose(actual.a, expected.a, atol=tolerance, rtol=1e-5)


def test_many_small_matrices():
    x, gradient, bias = draw(0, (3000, 3, 5)), draw(1, (3000, 3, 5)), draw(2, (3000, 5))
    gradients = jax.vmap(
        lambda g, x, b: jmn.neuron_gradient(g, x, jmn.Neuron.gelu(), b, lowering="custom_call")
    )
    actual = gradients(gradient, x, bias)
    flat = apple.neuron_gradient(gradient, x + np.asarray(bias)[:, None], jmn.Neuron.gelu())
    assert_close(actual.data, flat.data, factor=4)
    assert_close(actual.bias, flat.data.sum(1), factor=8)


SUMS = """
import sys, hashlib, numpy as np, jax_mps_neuron as jmn
random = np.random.default_rng(0)
x, g = random.standard_normal((2, 20_011, 37), np.float32)
r = jmn.neuron_gradient(g, x, jmn.Neuron.prelu(x[0]), x[1], lowering="custom_call")
print(hashlib.sha256(b"".join(np.asarray(v).tobytes() for v in r)).hexdigest())
"""


def test_results_do_not_depend_on_the_number_of_threads():
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system has no sched_setaffinity to take cores away with")
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core alone: there is nothing to compare with")
    one_core = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}})\n"
    hashes = [run_python(code) for code in (SUMS, SUMS, one_core + SUMS)]
    assert all(h.returncode == 0 for h in hashes), hashes[-1].stderr
    assert len({h.stdout for h in hashes}) == 1


def test_subnormal_numbers():
    """Kept, on every thread, though XLA's own CPU code flushes them."""
    x = np.full(1 << 20, 3e-39, np.float32)
    y = jmn.neuron(x, jmn.Neuron.linear(0.5, 0.0), lowering="custom_call")
    np.testing.assert_array_equal(y, np.float32(0.5) * x)
    assert np.asarray(y)[0] > 0


def test_calls_from_many_threads_at_once():
    x = draw(0, (2000, 64))
    step = jax.jit(lambda x, s: jmn.neuron_gradient(x, x, jmn.Neuron.tanh(s), x[0], lowering="custom_call"))
    expected = [jax.tree.map(np.asarray, step(x, float(s))) for s in range(8)]
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda s: step(x, float(s % 8)), range(64)))
    for s, result in enumerate(results):
        np.testing.assert_array_equal(result.data, expected[s % 8].data)
        np.testing.assert_array_equal(result.bias, expected[s % 8].bias)


def test_more_than_two_to_the_31_elements():
    """Indices are 64 bits wide. Needs 9 GB of memory: run with JAX_MPS_NEURON_HUGE=1."""
    if not os.environ.get("JAX_MPS_NEURON_HUGE"):
        pytest.skip("needs 9 GB of memory; set JAX_MPS_NEURON_HUGE=1 to run it")
    x = jnp.full((2**31 + 8,), 2.0, jnp.bfloat16)
    # As NumPy's: JAX's own indices are 32 bits wide by default.
    y = np.asarray(jmn.neuron(x, jmn.Neuron.linear(1.5, 0.0), lowering="custom_call"))
    for i in (0, 2**31 - 1, 2**31, len(y) - 1):
        assert y[i] == 3.0
    assert (y[-(2**20) :] == 3.0).all()


@pytest.mark.parametrize("shape", [(0, 5), (3, 0, 5), (0, 3, 5), (4, 0)], ids=str)
def test_sums_over_no_rows(shape):
    """0, and not what the memory held: it is filled with other numbers first."""
    channels = shape[-1]
    neuron, bias = jmn.Neuron.prelu(jnp.full(channels, 0.25)), jnp.ones(channels)
    for _ in range(8):
        held = [jnp.full(size, 7.0).block_until_ready() for size in (channels, 3 * channels) * 8]
        del held
        x = jnp.ones(shape)
        gradient = jmn.neuron_gradient(x, x, neuron, bias, lowering="custom_call")
        np.testing.assert_array_equal(gradient.bias, np.zeros(channels))
        np.testing.assert_array_equal(gradient.a, np.zeros(channels))


def test_sums_over_no_rows_of_each_batch_entry():
    x, slopes = jnp.ones((3, 0, 5)), jnp.full((3, 5), 0.25)

    def sums(x, a):
        return jmn.neuron_gradient(x, x, jmn.Neuron.prelu(a), a, lowering="custom_call")[1:]

    for of in jax.vmap(sums)(x, slopes):
        np.testing.assert_array_equal(of, np.zeros((3, 5)))


# An abort would end this process.
BESIDE_A_VECTOR = """
import jax, jax.numpy as jnp, numpy as np
from functools import partial
from jax import export
import jax_mps_neuron as jmn

rows, channels = {shape}
slopes = jnp.linspace(0.1, 0.9, channels)
x = jnp.linspace(-1, 1, 4 * rows).reshape(rows, 4)
w = jnp.linspace(-1, 2, 4 * channels).reshape(4, channels)
g, bias = jnp.linspace(-2, 1, rows * channels).reshape(rows, channels), slopes + 1

def forward(x, w, g, lowering):
    return jmn.neuron(x @ w, jmn.Neuron.gelu(), lowering=lowering)

def gradient(x, w, g, lowering):  # in place of the product
    return jmn.neuron_gradient(x @ w, g, jmn.Neuron.gelu(), lowering=lowering).data

def gradients(x, w, g, lowering):  # these are all results of the call, and of the program
    return tuple(jmn.neuron_gradient(g, x @ w, jmn.Neuron.prelu(slopes), bias, lowering=lowering))

def mapped(x, w, g, lowering):
    return jax.vmap(lambda x, g: gradients(x[None], w, g[None], lowering))(x, g)

def looped(x, w, g, lowering):
    return jax.lax.fori_loop(0, 2, lambda _, y: forward(y @ w.T, w, g, lowering), x @ w)

operands = [jax.ShapeDtypeStruct(o.shape, o.dtype) for o in (x, w, g)]
targets = ("jax_mps_neuron.neuron", "jax_mps_neuron.neuron_gradient")
checks = [export.DisabledSafetyCheck.custom_call(target) for target in targets]
for function in (forward, gradient, gradients, mapped, looped):
    call = jax.jit(partial(function, lowering="custom_call"))
    assert "jax_mps_neuron.neuron" in call.lower(x, w, g).as_text()
    (b,) = export.symbolic_shape("b")
    some = [jax.ShapeDtypeStruct((b if o is not w else 4, o.shape[1]), o.dtype) for o in (x, w, g)]
    calls = [call, export.export(call, disabled_checks=checks)(*operands).call]
    calls.append(export.export(call, disabled_checks=checks)(*some).call)
    want = jax.tree.leaves(function(x, w, g, "inline"))
    for call in calls:
        for got, expected in zip(jax.tree.leaves(jax.jit(call)(x, w, g)), want, strict=True):
            np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-5)
    print(function.__name__)
"""


@pytest.mark.parametrize("shape", [(1, 3), (5, 1)])
def test_beside_the_product_of_a_matrix_and_a_vector(shape):
    """XLA before jaxlib 0.7 ends the process there if the call has attributes and is a root."""
    result = run_python(BESIDE_A_VECTOR.format(shape=shape))
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["forward", "gradient", "gradients", "mapped", "looped"]
