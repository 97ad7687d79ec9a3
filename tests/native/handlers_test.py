"""What the handlers of the custom calls take and refuse."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jax_mps_neuron as jmn
from support.arrays import draw
from support.programs import ffi_call

pytestmark = pytest.mark.usefixtures("native_library")


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
