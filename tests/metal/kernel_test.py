"""The shipped Metal source, compiled for the host and executed as it would be on a GPU: threadgroups,
threads and barriers, in several orders, against float64 from Apple's table."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron import metal
from support import zoo
from support.arrays import assert_close
from support.metal_host import build
from support.metal_kernels import SHAPES, check, operands

DTYPES = ["float32", "float16", "bfloat16"]


@pytest.fixture(scope="module")
def hosts(metal_cache):
    """Launchers of every kernel, by dtype, compiled when first asked for."""
    compiled = {}

    def host(dtype):
        if dtype not in compiled:
            text = metal.source(*(k for kind in jmn.NeuronType for k in build.kernels_of(kind, dtype)))
            compiled[dtype] = build.Host(build.compile_kernels(text, metal_cache, dtype))
        return compiled[dtype]

    return host


@pytest.mark.parametrize("name", zoo.NAMES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
def test_every_kernel(name, dtype, hosts):
    for shape in SHAPES:
        check(hosts(dtype), zoo.neurons(shape[-1])[name], dtype, shape)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_any_order_of_threads(order, hosts):
    """Descending and random: a missing barrier would let a thread read what is not there yet."""
    for shape in ((1, 300, 130), (2, 300, 6)):
        check(hosts("float32"), zoo.neurons(shape[-1])["prelu"], "float32", shape, order)


def test_results_are_the_same_in_any_order(hosts):
    neuron = zoo.neurons(130)["prelu"]
    kernel = metal.Kernel(neuron.type, "float32", False, True, True, True)
    results = [
        hosts("float32").gradient(kernel, *operands((1, 500, 130), "float32", neuron), order=o)
        for o in range(4)
    ]
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_tall_matrix(hosts):
    """More strips than the threads that add them read at once."""
    for rows in (129 * 128, 150 * 128 + 1):
        check(hosts("float32"), zoo.neurons(2)["prelu"], "float32", (1, rows, 2))


def test_a_long_flat_array(hosts):
    """Several threadgroups of the flat path, with a ragged end at any step of theirs and without."""
    for size in (16384, 3 * 16384 + 4, 2 * 16384 + 7, 2055, 14343):
        for dtype in ("float32", "float16"):
            check(hosts(dtype), zoo.neurons()["tanh"], dtype, (1, 1, size))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("c", [0.0, 1.0, 2.0, 3.0, 5.0, -2.0, 0.5, 2.5, -1.5, 7.0])
def test_every_kind_of_power(c, dtype, hosts):
    """Signs, zeros, infinities and NaN, which the half types compute without pow."""
    x = np.float32([0.0, -0.0, 1.0, -1.0, 0.3, -0.7, 1.5, -2.0, 4.0, np.inf, np.nan]).astype(
        jnp.dtype(dtype)
    )
    kernel = metal.Kernel(jmn.NeuronType.POWER, dtype, forward=True)
    y = hosts(dtype).forward(kernel, x.reshape(1, 1, -1), np.float32([[1, 1, 0, c]]))
    with np.errstate(all="ignore"):
        expected = np.power(x.astype(np.float64), c)
    assert_close(y[0, 0], expected, factor=2)


@pytest.mark.parametrize("shared", ["gradient", "x", "scalars", "bias", "slope"])
def test_operands_that_all_matrices_share(shared, hosts):
    neuron = zoo.neurons(6)["prelu"]
    names = ["gradient", "x", "scalars", "bias", "slope"]
    full = dict(zip(names, operands((3, 10, 6), "float32", neuron), strict=True))
    full["scalars"][:, 0] = [1.0, 1.5, 2.0] if shared != "scalars" else 1.5
    one = {**full, shared: full[shared][:1]}
    full[shared] = np.repeat(full[shared][:1], 3, axis=0)
    kernel = metal.Kernel(neuron.type, "float32", False, True, True, True)
    a = hosts("float32").gradient(kernel, *one.values(), shared=(shared,))
    b = hosts("float32").gradient(kernel, *full.values())
    for got, want in zip(a, b, strict=True):
        np.testing.assert_array_equal(got, want)


# Ways to break the source, each of which some test above must notice.
MUTATIONS = {
    "a wrong constant": ("0.333331585f", "0.343331585f", "softplus"),
    "a dropped barrier": ("metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup);", "", "prelu"),
    "an off-by-one tail": ("if (left > 2) p[2] = S(r.v2);", "", "gelu"),
    "a write past the end": ("if (left > 3) p[3] = S(r.v3);", "p[3] = S(r.v3);", "gelu"),
    "a forgotten alpha": ("scaled(d, s.alpha)", "scaled(d, 1.0f)", "tanh"),
    "a swapped sum": ("bias_partials + partial, sums.bias", "bias_partials + partial, sums.slope", "prelu"),
    "a strip too few": (
        "for (; strip < last; strip += kThreadsY)",
        "for (; strip + 1 < last; strip += kThreadsY)",
        "prelu",
    ),
    "strips that are read twice": (
        "from[(strip + j * kThreadsY)",
        "from[(strip + j / 2 * kThreadsY)",
        "prelu",
    ),
    "a matrix that is always the first": ("x_all + entry * launch->x_step", "x_all", "elu"),
    "vectors of the first matrix alone": (
        "x_all + entry * launch->x_step",
        "x_all + (p.whole ? 0 : entry * launch->x_step)",
        "elu",
    ),
    "strips that are skipped": (
        "strip += kSumAhead * kThreadsY",
        "strip += kSumAhead * kThreadsY + 1",
        "prelu",
    ),
    "a ragged end that is always the first step's": (
        "p.left - k * p.step : p.left",
        "p.left - 0 * k : p.left",
        "gelu",
    ),
    "vectors beyond a ragged end": (
        "p.whole = aligned && p.left >= (kFlatSteps - 1) * p.step + kColumns;",
        "p.whole = aligned && p.left >= kColumns;",
        "gelu",
    ),
    "a sum written past the end": (
        "if (ty == 0) {\n    Four total = mine;",
        "if (ty == 0) {\n    Four total = mine;\n    partials[left] = 0.0f;",
        "prelu",
    ),
    "a barrier of the wrong memory": ("mem_flags::mem_threadgroup", "mem_flags::mem_none", "prelu"),
}


@pytest.mark.usefixtures("metal_cache")
@pytest.mark.slow
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_broken_kernel_is_noticed(mutation, tmp_path):
    before, after, name = MUTATIONS[mutation]
    text = metal.source(*build.kernels_of(zoo.neurons()[name].type, "float32"))
    assert before in text
    host = build.Host(build.compile_kernels(text.replace(before, after), tmp_path, "broken"))

    def suite():
        for shape in ((2, 7, 5), (2, 300, 6), (2, 40, 8), (1, 129 * 128, 1), (1, 1, 2055)):
            for order in (0, 1, 2):
                check(host, zoo.neurons(shape[-1])[name], "float32", shape, order)

    with pytest.raises(AssertionError):
        suite()


def test_host_bfloat_is_that_of_jax(hosts):
    x = np.asarray(jnp.asarray(np.random.default_rng(0).standard_normal(4096), "bfloat16")).reshape(
        1, 1, -1
    )
    kernel = metal.Kernel(jmn.NeuronType.NONE, "bfloat16", forward=True)
    y = hosts("bfloat16").forward(kernel, x, np.float32([[1, 0, 0, 0]]))
    np.testing.assert_array_equal(y, x)
