"""The branch of the Metal source that only Apple's compiler takes, parsed by clang: every pointer has its
address space and none is mixed with another, nothing is included but `metal_stdlib`, and nothing is used
that Metal does not have. What clang knows otherwise than Apple's compiler is put in its words first."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from metal_host import build

from jax_mps_neuron import NeuronType, metal
from jax_mps_neuron.metal.kernel import DTYPES

LINT = Path(__file__).parent / "metal_lint"

cindex = pytest.importorskip("clang.cindex", reason="needs the package libclang")

FLAGS = ["-x", "c++", "-std=c++14", "-ffreestanding", "-nostdinc", f"-I{LINT}", "-D__METAL_VERSION__=310"]
FLAGS += ["-Wall", "-Wextra", "-Wno-unknown-attributes", "-Wno-ignored-attributes"]

# In a function clang has address spaces on static variables alone, and an explicit instantiation has no
# attributes; Metal has both (Metal Shading Language Specification: threadgroup address space; host_name).
DIFFERENCES = {
    "  template [[host_name(#name)]] [[kernel]] decltype": "  template decltype",
    "(T, name, size) threadgroup T": "(T, name, size) static threadgroup T",
}


def complaints(text: str) -> list[str]:
    for ours, clangs in DIFFERENCES.items():
        assert ours in text
        text = text.replace(ours, clangs)
    unit = cindex.Index.create().parse("kernels.cpp", args=FLAGS, unsaved_files=[("kernels.cpp", text)])
    return [f"{d.location.line}: {d.spelling}" for d in unit.diagnostics]


def test_clang_has_no_complaints():
    kernels = [k for kind in NeuronType for dtype in DTYPES for k in build.kernels_of(kind, dtype)]
    text = metal.source(*kernels)
    assert re.findall(r"#\s*include (.*)", text) == ["<metal_stdlib>"]
    assert complaints(text) == []


# What Apple's compiler refuses and the host's takes.
MISTAKES = {
    "a pointer without an address space": (
        "device const S* x = x_all",
        "const S* x = x_all",
        "cannot initialize",
    ),
    "a mixed address space": (
        "threadgroup const float* other",
        "device const float* other",
        "cannot initialize",
    ),
    "a variable named like a type": ("T t = 1.0f", "T half = 1.0f", "cannot combine"),
    "a double": ("T t = 1.0f", "double t = 1.0f", "poisoned"),
    "a standard header": ("namespace neuron {", "#include <cmath>\nnamespace neuron {", "file not found"),
    "C++17": ("if (kBias) bias", "if constexpr (kBias) bias", "C++17"),
    "a function outside of metal": ("metal::min(top", "std::min(top", "std"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_noticed(name):
    before, after, said = MISTAKES[name]
    text = metal.source(
        metal.Kernel(NeuronType.GELU, bias=True, bias_gradient=True),
        metal.Kernel(NeuronType.GELU, forward=True, bias=True),
    )
    assert before in text
    assert any(said in line for line in complaints(text.replace(before, after, 1)))
