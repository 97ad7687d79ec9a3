"""The assembled Metal source, and the shape of its launches."""

from __future__ import annotations

import re

import numpy as np
import pytest

import jax_mps_neuron as jmn
from jax_mps_neuron import metal
from support.metal_host import build


def test_source_is_self_contained():
    text = metal.source(metal.Kernel(jmn.NeuronType.GELU, "float16", bias=True, bias_gradient=True))
    assert "neuron_gradient_gelu_half_bias_bias_gradient" in text
    assert '#include "' not in text
    assert text.count("#include <metal_stdlib>") == 1


def test_buffers_are_numbered_in_their_order():
    """The host and CUDA take buffers by position, so that only this sees an index."""
    text = metal.source(metal.Kernel(jmn.NeuronType.GELU))
    kernels = re.findall(r"^void (\w+)\((.*?)\) {", text, re.MULTILINE | re.DOTALL)
    indices = {
        name: [int(i) for i in re.findall(r"\[\[buffer\((\d+)\)\]\]", body)] for name, body in kernels
    }
    assert indices == {"forward": [*range(6)], "gradient": [*range(9)], "add_strips": [*range(3)]}


def test_every_instantiation_is_of_a_template():
    """Metal's form of INSTANTIATE, which no compiler here sees, takes nothing else."""
    text = metal.source(*build.kernels_of(jmn.NeuronType.PRELU, "float32"))
    lines = re.findall(r"^INSTANTIATE\(.*\)$", text, re.MULTILINE)
    assert len(lines) == 9
    assert all(re.fullmatch(r"INSTANTIATE\(\d, \w+, neuron::\w+<.+>\)", line) for line in lines)
    repeated = metal.Kernel(jmn.NeuronType.GELU)
    assert metal.source(repeated, repeated).count(repeated.name) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": 0}, "rows must be an integer of at least 1, got 0"),
        ({"batch": -1}, "batch must be an integer of at least 1, got -1"),
        ({"channels": 2.5}, "channels must be an integer of at least 1, got 2.5"),
        ({"shared": ("alpha",)}, r"shared must be a tuple of 'gradient', 'x', .*, got \('alpha',\)"),
        ({"shared": "bias"}, "shared must be a tuple of .*, got 'bias'"),
        ({"shared": ({},)}, r"shared must be a tuple of .*, got \({},\)"),
        ({"rows": True}, "rows must be an integer of at least 1, got True"),
        ({"batch": 2**32}, r"2\^32 - 1 threadgroups along an axis, got \(4294967296, 1, 1\)"),
        ({"rows": 2**50}, r"got \(1, 1125899906842624, 1\): 1125899906842624 elements and"),
        ({"rows": 2**32, "channels": 2**32}, r"at most 2\^63 elements"),
    ],
)
def test_launches_that_there_are_not(arguments, message):
    sizes = {"batch": 1, "rows": 1, "channels": 1, **arguments}
    with pytest.raises(ValueError, match=message):
        metal.launch_for(metal.Kernel(jmn.NeuronType.GELU), **sizes)


def test_launch():
    kernel = metal.Kernel(jmn.NeuronType.GELU, bias=True, bias_gradient=True)
    launch = metal.launch_for(kernel, 3, 500, 300, shared=("bias",))
    assert launch.grid == (3, 4, 3)
    assert launch.threads == (32, 16, 1)
    assert launch.partials == 3 * 4 * 300
    assert launch.sum_grid == (10, 1, 3)
    assert list(np.frombuffer(launch.constants, np.uint64)) == [
        500,
        300,
        4,
        150_000,
        150_000,
        4,
        0,
        300,
        1,
    ]
    assert metal.launch_for(kernel, *np.int64([3, 500, 300]), shared=("bias",)) == launch
    flat = metal.launch_for(metal.Kernel(jmn.NeuronType.GELU), 1, 2**33, 3)
    assert flat.grid == (2**33 * 3 // 16384, 1, 1)
    assert flat.partials == 0
    half = metal.launch_for(metal.Kernel(jmn.NeuronType.GELU, "float16"), 1, 8192, 3)
    assert (half.grid, half.threads) == ((3, 1, 1), (32, 8, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"type": 15}, "type must be a NeuronType, got 15"),
        ({"type": "gelu"}, "type must be a NeuronType, got 'gelu'"),
        ({"dtype": np.dtype("float32")}, r"dtype must be one of 'float32', .*, got dtype\('float32'\)"),
        ({"dtype": "float64"}, "dtype must be one of 'float32', 'float16', 'bfloat16', got 'float64'"),
        ({"bias_gradient": True}, "bias_gradient must be False without a bias, got True"),
        ({"slope_gradient": True}, "slope_gradient must be False for GELU, got True"),
        (
            {"forward": True, "bias": True, "bias_gradient": True},
            "bias_gradient must be False for a forward kernel, got True",
        ),
        ({"from_y": True}, "from_y must be False for GELU, got True. It works with SIGMOID, TANH, EXP"),
        (
            {"type": jmn.NeuronType.TANH, "forward": True, "from_y": True},
            "from_y must be False for a forward kernel, got True",
        ),
    ],
)
def test_kernels_that_there_are_not(arguments, message):
    with pytest.raises(ValueError, match=message):
        metal.Kernel(**{"type": jmn.NeuronType.GELU, **arguments})


def test_source_of_what_is_no_kernel():
    with pytest.raises(TypeError, match=r"kernel must be a jax_mps_neuron\.metal\.Kernel, got 'gelu'"):
        metal.source("gelu")
