"""The compiled library: its handlers' checks, every instruction set, sums of any shape, threads."""

from __future__ import annotations

import os
import types
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
from support.programs import ffi_call, run_python

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


# What the handlers refuse


def shape(*sizes, dtype=np.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def forward(result=None, x=(5, 4), scalars=(4,), *vectors, neuron_type=15, batch_axes=0, dtype=np.float32):
    operands = [np.zeros(x, dtype), np.zeros(scalars, np.float32), *vectors]
    return ffi_call(
        "jax_mps_neuron.neuron",
        [result or shape(*x, dtype=dtype)],
        *operands,
        neuron_type=neuron_type,
        batch_axes=batch_axes,
    )


def gradient(
    results=None,
    gradient=(5, 4),
    *vectors,
    scalars=(4,),
    neuron_type=15,
    batch_axes=0,
    bias=0,
    slope=0,
    from_y=0,
):
    return ffi_call(
        "jax_mps_neuron.neuron_gradient",
        results or [shape(5, 4)],
        np.zeros(gradient, np.float32),
        np.zeros((5, 4), np.float32),
        np.zeros(scalars, np.float32),
        *vectors,
        neuron_type=neuron_type,
        batch_axes=batch_axes,
        bias_gradient=bias,
        slope_gradient=slope,
        from_y=from_y,
    )


def with_attributes(*operands, **attributes):
    """A forward call with these instead of its attributes."""
    operands = [np.zeros((5, 4), np.float32), np.zeros(4, np.float32), *operands]
    return ffi_call("jax_mps_neuron.neuron", [shape(5, 4)], *operands, **attributes)


def v(*sizes, dtype=np.float32):
    return np.zeros(sizes, dtype)


REFUSED = {
    "the number of attributes must be 2, got 0": lambda: with_attributes(),
    r"the number of attributes must be 2, got \d": lambda: with_attributes(v(2)),
    r"the number of attributes must be \d, got 0": lambda: with_attributes(v(3, dtype=np.int32)),
    "the number of attributes must be 2, got 1": lambda: with_attributes(neuron_type=15),
    "attribute batch_axes must be an int32": lambda: with_attributes(neuron_type=15, axes=0),
    "batch_axes must be 0 to 32, got 34": lambda: with_attributes(np.array([34, 15], np.int32)),
    "must be the raw value of a NeuronType, got 17": lambda: with_attributes(np.array([0, 17], np.int32)),
    "neuron_type must be the raw value of a NeuronType, got 16": lambda: forward(neuron_type=16),
    "neuron_type must be the raw value of a NeuronType, got -1": lambda: gradient(neuron_type=-1),
    "batch_axes must be 0 to 32, got -1": lambda: forward(batch_axes=-1),
    "batch_axes must be 0 to 32, got 33": lambda: forward(batch_axes=33),
    "number of operands must be 2, or 3 with a bias, got 4": lambda: forward(
        None, (5, 4), (4,), v(4), v(4)
    ),
    "number of operands must be 3, or 4 with a bias, got 2": lambda: forward(neuron_type=10),
    "x must have dtype float32, float16, bfloat16 or float64, got XLA's type 4": lambda: forward(
        dtype=np.int32
    ),
    r"scalars must have shape \[4\], got \[3\]": lambda: forward(scalars=(3,)),
    r"scalars must have shape \[4\], got \[1, 4\]": lambda: forward(scalars=(1, 4)),
    r"bias must have shape \[4\], got \[3\]": lambda: forward(None, (5, 4), (4,), v(3)),
    "bias must have dtype float32, got float16": lambda: forward(
        None, (5, 4), (4,), v(4, dtype=np.float16)
    ),
    r"slope must have shape \[4\], got \[5\]": lambda: forward(None, (5, 4), (4,), v(5), neuron_type=10),
    r"the first result must have shape \[5, 4\], got \[5, 5\]": lambda: forward(shape(5, 5)),
    "the first result must have dtype float32, got float16": lambda: forward(shape(5, 4, dtype=np.float16)),
    r"x must have at least 3 axes, got shape \[5, 4\]": lambda: forward(batch_axes=3),
    r"the first result must have at least 2 axes, got shape \[5\]": lambda: forward(shape(5), batch_axes=2),
    r"x must have at least 1 axes, got shape \[\]": lambda: forward(None, (), (4,), v(1)),
    r"x must have shape \[1 or 6, 4\], got \[5, 4\]": lambda: forward(
        shape(6, 4), scalars=(1, 4), batch_axes=1
    ),
    r"gradient must have shape \[5, 4\], got \[4, 5\]": lambda: gradient(None, (4, 5)),
    r"gradient must have shape \[5, 4\], got \[5, 4, 1\]": lambda: gradient(None, (5, 4, 1)),
    "bias_gradient must be 0 without a bias, got 1": lambda: gradient([shape(5, 4), shape(4)], bias=1),
    "from_y must be 0 for neuron_type 15, got 1": lambda: gradient(from_y=1),
    "slope_gradient must be 0 for a type without slopes": lambda: gradient(
        [shape(5, 4), shape(4)], slope=1
    ),
    "the number of results must be 2, got 1": lambda: gradient(None, (5, 4), v(4), bias=1),
    "the number of results must be 1, got 2": lambda: gradient([shape(5, 4), shape(4)], (5, 4), v(4)),
    "the number of results must be 2, got 3": lambda: gradient(
        [shape(5, 4), shape(4), shape(4)], (5, 4), v(4), v(4), neuron_type=10, slope=1
    ),
    r"the bias gradient must have shape \[4\], got \[5\]": lambda: gradient(
        [shape(5, 4), shape(5)], (5, 4), v(4), bias=1
    ),
    # A sum of size 1 along a batch axis, which an operand may have.
    r"the bias gradient must have shape \[5, 4\], got \[1, 4\]": lambda: gradient(
        [shape(5, 4), shape(1, 4)], (5, 4), v(5, 4), scalars=(1, 4), batch_axes=1, bias=1
    ),
    r"the slope gradient must have shape \[5, 4\], got \[1, 4\]": lambda: gradient(
        [shape(5, 4), shape(1, 4)], (5, 4), v(5, 4), scalars=(1, 4), batch_axes=1, neuron_type=10, slope=1
    ),
    "the slope gradient must have dtype float32, got float16": lambda: gradient(
        [shape(5, 4), shape(4, dtype=np.float16)], (5, 4), v(4), neuron_type=10, slope=1
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_handlers_refuse_what_they_do_not_expect(message):
    with pytest.raises(Exception, match=message) as error:
        jax.block_until_ready(REFUSED[message]())
    assert "jax_mps_neuron.neuron" in str(error.value)


def test_handlers_take_what_they_expect():
    """Without the change of a case, the helpers above build valid calls."""
    jax.block_until_ready((forward(), gradient(), gradient([shape(5, 4), shape(4)], (5, 4), v(4), bias=1)))


def test_attributes_may_be_an_operand():
    """In the order of their names."""
    x, g, b = draw(0, (5, 4)), draw(1, (5, 4)), draw(2, (4,))
    scalars, kind = jnp.asarray([1.0, 0.5, 0.25, 0.0]), int(jmn.NeuronType.LINEAR)
    (y,) = ffi_call("jax_mps_neuron.neuron", [shape(5, 4)], x, scalars, b, np.array([0, kind], np.int32))
    np.testing.assert_allclose(y, 0.5 * (x + b) + 0.25, rtol=1e-6)
    results, attributes = [shape(5, 4), shape(4)], np.array([0, 1, 0, kind, 0], np.int32)
    data, bias = ffi_call("jax_mps_neuron.neuron_gradient", results, g, x, scalars, b, attributes)
    np.testing.assert_allclose(data, 0.5 * g, rtol=1e-6)
    np.testing.assert_allclose(bias, 0.5 * g.sum(0), rtol=1e-5, atol=1e-6)


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


# Loading


def test_a_library_of_a_newer_ffi_is_not_registered():
    newer = types.SimpleNamespace(jmn_ffi_api_major=lambda: 0, jmn_ffi_api_minor=lambda: 99)
    message = r"newer jaxlib \(FFI API 0\.99\) than this one \(0\.\d+\)"
    with pytest.raises(native._UnusableError, match=message):
        native._check_version(newer)
    other = types.SimpleNamespace(jmn_ffi_api_major=lambda: 1, jmn_ffi_api_minor=lambda: 0)
    with pytest.raises(native._UnusableError):
        native._check_version(other)
    native._check_version(native.library())


def test_a_library_of_another_version_is_not_used(monkeypatch, native_library):
    monkeypatch.setattr(native, "_ABI", native._ABI + 1)
    with pytest.raises(
        native._UnusableError, match=r"libjax_mps_neuron\S+ is of another version than this package"
    ):
        native._open()


WITHOUT_LIBRARY = """
import sys, shutil, pathlib
folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path({folder!r})
sys.meta_path = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
sys.path.insert(0, str(folder))
import numpy as np, jax, jax_mps_neuron as jmn
from jax_mps_neuron._lowering import native
assert pathlib.Path(jmn.__file__).parent.parent == folder, jmn.__file__
print(native.unavailable_reason())
x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
grad = jax.jit(jax.grad(lambda x, b: jmn.neuron(x, jmn.Neuron.gelu(), b).sum(), (0, 1)))
assert "custom_call" not in grad.lower(x, x[0]).as_text()
print(np.asarray(grad(x, x[0])[1]).tolist())
import warnings
call = jax.jit(lambda x: jmn.neuron(x, jmn.Neuron.gelu(), lowering="custom_call"))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    assert "jax_mps_neuron.neuron" in call.lower(x).as_text()
print(caught[0].message)
try:
    call(x)
except Exception as error:
    print(str(error).splitlines()[0])
"""


@pytest.mark.parametrize("library", ["absent", "broken"])
def test_everything_works_without_a_library(library, tmp_path):
    import shutil
    from pathlib import Path

    package = tmp_path / "jax_mps_neuron"
    shutil.copytree(
        Path(jmn.__file__).parent, package, ignore=shutil.ignore_patterns("*.so", "*.dylib", "__pycache__")
    )
    if library == "broken":
        for ending in (".so", ".dylib"):
            (package / f"libjax_mps_neuron{ending}").write_bytes(b"not a library")
    result = run_python(WITHOUT_LIBRARY.format(folder=str(tmp_path)))
    assert result.returncode == 0, result.stderr
    problem, gradient, warning, error = result.stdout.splitlines()
    assert problem in warning
    assert "holds the custom call jax_mps_neuron.neuron, which cannot run here" in warning
    assert "jax_mps_neuron.neuron" in error
    assert ("was not built" if library == "absent" else "does not load") in problem
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(3, 4)
    expected = apple.neuron_gradient(np.ones((3, 4)), x, jmn.Neuron.gelu(), x[0])
    np.testing.assert_allclose(eval(gradient), expected.bias, rtol=1e-5)


def test_isa_environment_variable():
    code = "from jax_mps_neuron import native; print(native.isa())"
    assert run_python(code, JAX_MPS_NEURON_ISA="baseline").stdout.strip() == "baseline"
    wrong = run_python(code, JAX_MPS_NEURON_ISA="sse9")
    assert wrong.returncode == 1
    assert f"JAX_MPS_NEURON_ISA is 'sse9'; on this machine it may be one of {native.isas()}" in wrong.stderr
