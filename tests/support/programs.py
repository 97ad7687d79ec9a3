"""Programs: lowered, run in a process of their own, and calls of a target."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import jax
import numpy as np

from jax_mps_neuron._compat.ffi import ffi


def lowered(function, *arguments, platforms=None):
    traced = jax.jit(function).trace(*arguments)
    return (traced.lower(lowering_platforms=platforms) if platforms else traced.lower()).as_text()


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def ffi_call(target, results, *operands, **attributes):
    """Calls a target on cpu with int32 attributes."""
    attributes = {name: np.int32(value) for name, value in attributes.items()}
    if "args" in inspect.signature(ffi.ffi_call).parameters:  # before 0.4.36
        return ffi.ffi_call(target, results, *operands, **attributes)
    return ffi.ffi_call(target, results)(*operands, **attributes)
