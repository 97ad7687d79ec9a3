"""The branch of the Metal source that only Apple's compiler takes, parsed by clang: every pointer has its
address space and none is mixed with another, nothing is included but `metal_stdlib`, and nothing is used
that Metal does not have. What clang knows otherwise than Apple's compiler is put in its words first. GCC
tells who calls whom in the kernels as instantiated: Metal has no recursion and no pointers to functions."""

from __future__ import annotations

import re
import subprocess
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from jax_mps_neuron import NeuronType, metal
from jax_mps_neuron._core.descriptor import FROM_Y
from jax_mps_neuron._metal.source import DTYPES
from support.metal_host import build

LINT = Path(__file__).parents[1] / "support" / "metal_lint"

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


# Calls


def calls(text: str, folder: Path) -> dict[str, set[str]]:
    """Whom each function of a source calls; "__indirect_call" stands for a pointer to one."""
    (folder / "kernels.metal").write_text(text)
    flags = [*build.FLAGS, "-O0", "-Wno-unused", "-fcallgraph-info", f"-I{build.HERE}"]
    result = subprocess.run(
        [*build.COMPILER, *flags, "-c", "kernels.metal", "-o", "kernels.o"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    if "unrecognized command-line option" in result.stderr:
        pytest.skip(f"{build.COMPILER[0]} does not tell who calls whom: {result.stderr[:200]}")
    assert result.returncode == 0, result.stderr
    graph: dict[str, set[str]] = {}
    edges = re.findall(
        r'edge: { sourcename: "(.+?)" targetname: "(.+?)"', (folder / "kernels.ci").read_text()
    )
    for caller, callee in edges:
        graph.setdefault(caller, set()).add(callee)
    return graph


def forbidden(graph: dict[str, set[str]]) -> str:
    """What Metal has not in a graph of calls; empty if there is nothing."""
    if any("__indirect_call" in callees for callees in graph.values()):
        return "a pointer to a function"
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return f"recursion: {error.args[1]}"
    return ""


@pytest.mark.usefixtures("metal_cache")
def test_no_recursion_and_no_pointers_to_functions(tmp_path):
    kernels = [
        metal.Kernel(kind, dtype, forward, True, not forward, not forward and kind is NeuronType.PRELU)
        for kind in NeuronType
        for dtype in ("float32", "bfloat16")
        for forward in (False, True)
    ]
    kernels += [metal.Kernel(kind, from_y=True) for kind in FROM_Y]
    graph = calls(metal.source(*kernels), tmp_path)
    assert len(graph) > 4 * len(kernels)
    assert forbidden(graph) == ""


CALLS = {
    "recursion": "return b == 0u ? a : put_in(a, b - 1u);",
    "a pointer to a function": "float (*f)(float) = a > 1.0f ? &fabs : &tanh; return f(a);",
}


@pytest.mark.usefixtures("metal_cache")
@pytest.mark.parametrize("what", CALLS)
def test_a_forbidden_call_is_noticed(what, tmp_path):
    put_in = f"NEURON_INLINE float put_in(float a, uint b) {{ {CALLS[what]} }}\n"
    text = metal.source(metal.Kernel(NeuronType.NONE, forward=True))
    before = "// The constant buffer of every kernel"
    assert before in text
    call, scalars = "(void)put_in(1.0f, group.x);\n  ", "const Scalars s = scalars_of<Op>("
    assert scalars in text
    text = text.replace(before, put_in + before).replace(scalars, call + scalars)
    assert forbidden(calls(text, tmp_path)).startswith(what)
