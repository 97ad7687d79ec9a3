"""Builds plugin.cc, the plugin whose platform is METAL, and reads programs for it."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import jaxlib

HERE = Path(__file__).parent
COMPILER = shlex.split(os.environ.get("CXX", "g++"))

_READER = ctypes.CFUNCTYPE(
    ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p, ctypes.c_size_t
)


def problem() -> str:
    """Why there can be no such plugin here; empty if there can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "the package xla-cpu-pjrt, which the METAL plugin wraps, is for x86-64 Linux alone"
    if importlib.util.find_spec("xla_plugins.xla_cpu_pjrt") is None:
        return "the package xla-cpu-pjrt, which the METAL plugin wraps, is not installed"
    if tuple(map(int, jaxlib.__version__.split(".")[:2])) < (0, 10):
        return f"jaxlib {jaxlib.__version__} is older than 0.10 and refuses the plugin of xla-cpu-pjrt"
    if shutil.which(COMPILER[0]) is None:
        return f"no C++ compiler {COMPILER[0]} to build the METAL plugin with"
    return ""


def library_in(folder: Path) -> Path:
    """The plugin that was built in a folder."""
    return folder / "libmetal_plugin.so"


def build(folder: Path, *, custom_calls: bool) -> Path:
    """The plugin's library, with custom calls or without any, as jax-metal is."""
    spec = importlib.util.find_spec("xla_plugins.xla_cpu_pjrt")
    inner = Path(spec.submodule_search_locations[0])
    library = library_in(folder)
    form = [] if custom_calls else ["-DWITHOUT_CUSTOM_CALLS"]
    defines = [*form, f'-DPLUGIN_LIBRARY="{inner / "xla_cpu_pjrt.so"}"', f"-I{inner / 'include'}"]
    flags = ["-std=c++17", "-O1", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror", *defines]
    command = [*COMPILER, *flags, str(HERE / "plugin.cc"), "-o", str(library), "-ldl"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return library


def read_programs_of(library: Path) -> None:
    """Lets the plugin without custom calls see which ones a program has."""
    ctypes.CDLL(str(library)).read_custom_calls_with(_read)


def custom_calls(program: bytes) -> list[str]:
    """The targets of a program's custom calls. The program is as JAX hands it to a plugin."""
    from jax.extend.mlir import ir
    from jax.extend.mlir.dialects import stablehlo
    from jax.interpreters import mlir

    targets = []

    def visit(operation):
        if operation.name == "stablehlo.custom_call":
            targets.append(ir.StringAttr(operation.attributes["call_target_name"]).value)
        return ir.WalkResult.ADVANCE

    with mlir.make_ir_context() as context:
        stablehlo.deserialize_portable_artifact(context, program).operation.walk(visit)
    return targets


@_READER
def _read(program, size, targets, capacity):
    try:
        text = "".join(f"{target}\n" for target in custom_calls(ctypes.string_at(program, size))).encode()
    except Exception as error:
        text = f"a program that does not parse: {error}\n".encode()
    ctypes.memmove(targets, text, min(len(text), capacity))
    return min(len(text), capacity)
