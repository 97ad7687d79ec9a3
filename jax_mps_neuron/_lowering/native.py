"""Finds the native library and registers its targets with XLA's CPU backend."""

from __future__ import annotations

import ctypes
import os
import re
import sys
import warnings
from functools import cache
from pathlib import Path

from .._compat.ffi import ffi
from .._core.signature import NEURON, NEURON_GRADIENT

__all__ = ["isa", "isas", "library", "unavailable_reason", "use_isa"]

_ISA_ENVIRONMENT = "JAX_MPS_NEURON_ISA"

# As in kernels/cpu/ffi.cc.
_ABI = 2

_SYMBOLS = {NEURON: "jmn_neuron", NEURON_GRADIENT: "jmn_neuron_gradient"}


class _UnusableError(Exception):
    """Why the library cannot be used."""


class _NotBuiltHereError(_UnusableError):
    """Python imports a source tree without a library, perhaps in place of an installed package."""


def library() -> ctypes.CDLL | None:
    """The library with its targets registered; None if it cannot be used here."""
    return _load()[0]


def unavailable_reason() -> str:
    """Why the library cannot be used; empty if it can."""
    return _load()[1]


def isas() -> list[str]:
    """The instruction sets of the library that this CPU has, newest first."""
    lib = library()
    names: list[str] = []
    while lib is not None and (name := lib.jmn_isa(len(names))):
        names.append(name.decode())
    return names


def isa() -> str:
    """The instruction set in use."""
    lib = library()
    return "" if lib is None else lib.jmn_current_isa().decode()


def use_isa(name: str, argument: str = "name") -> None:
    """Switches to the kernels of another instruction set."""
    known = isas()
    if name not in known:
        raise ValueError(f"{argument} must be one of {known} on this machine, got {name!r}")
    library().jmn_use_isa(name.encode())  # type: ignore[union-attr]


@cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    try:
        lib = _open()
        _check_version(lib)
    except _NotBuiltHereError as error:
        warnings.warn(f"jax_mps_neuron runs inline: {error}", stacklevel=2)
        return None, str(error)
    except _UnusableError as error:
        return None, str(error)
    for target, symbol in _SYMBOLS.items():
        ffi.register_ffi_target(target, ffi.pycapsule(getattr(lib, symbol)), platform="cpu")
    return lib, ""


def _open() -> ctypes.CDLL:
    name = "libjax_mps_neuron" + (".dylib" if sys.platform == "darwin" else ".so")
    # An editable install keeps the library apart from the sources. Both folders are on the package's path.
    folders = sys.modules["jax_mps_neuron"].__path__
    path = next((p for p in (Path(f) / name for f in folders) if p.exists()), None)
    if path is None:
        sources = [Path(f).parent for f in folders if (Path(f).parent / "CMakeLists.txt").exists()]
        if sources:
            raise _NotBuiltHereError(
                f"the native library was not built for the source tree {sources[0]}, which Python imports "
                "before any installed copy. Run from another folder, or run pip install -e . there."
            )
        raise _UnusableError("the native library was not built. The log of the installation says why.")
    try:
        lib = ctypes.CDLL(str(path))
    except OSError as error:
        raise _UnusableError(f"the native library does not load: {error}") from error
    if not hasattr(lib, "jmn_abi") or lib.jmn_abi() != _ABI:
        raise _UnusableError(f"the native library {path} belongs to another version of this package")
    lib.jmn_isa.restype = ctypes.c_char_p
    lib.jmn_current_isa.restype = ctypes.c_char_p
    return lib


def _check_version(lib: ctypes.CDLL) -> None:
    """Raises if jaxlib would refuse the handlers, because JAX would then lose its whole CPU backend."""
    ours = lib.jmn_ffi_api_major(), lib.jmn_ffi_api_minor()
    header = Path(ffi.include_dir()) / "xla" / "ffi" / "api" / "c_api.h"
    text = header.read_text() if header.exists() else ""
    found = [re.search(rf"#define XLA_FFI_API_{part} (\d+)", text) for part in ("MAJOR", "MINOR")]
    if not all(found):
        raise _UnusableError(f"jaxlib does not state its FFI version in {header}")
    theirs = tuple(int(match.group(1)) for match in found if match)
    if ours[0] != theirs[0] or ours[1] > theirs[1]:
        raise _UnusableError(
            "the native library was built for a newer jaxlib (FFI API {}.{}) than this one ({}.{})".format(
                *ours, *theirs
            )
        )


# The library is loaded with the package: an exported or cached program runs without being lowered here.
if library() is not None and (_requested := os.environ.get(_ISA_ENVIRONMENT)):
    use_isa(_requested, _ISA_ENVIRONMENT)
