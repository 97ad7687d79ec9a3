"""PyObjC's Metal, and the error of everything that needs it."""

from __future__ import annotations

import platform
from typing import Any

__all__ = ["MetalError", "bindings", "words"]


class MetalError(RuntimeError):
    """Metal is not available, or it rejected an operation. The message ends with Metal's own words."""


def bindings() -> tuple[Any, Any]:
    """The modules Metal and objc.

    Raises:
      MetalError: this is not macOS, or PyObjC's Metal is not installed.
    """
    try:
        import Metal
        import objc
    except ImportError as error:
        if (system := platform.system()) != "Darwin":
            raise MetalError(
                f"Metal is not available: it needs macOS with an Apple GPU, got {system} on "
                f"{platform.machine()}."
            ) from error
        raise MetalError(
            f"Metal is not available: its Python bindings are not installed ({error}). They come with the "
            "extra 'metal': run pip install '.[metal]' in a checkout of jax-mps-neuron."
        ) from error
    return Metal, objc


def words(error: Any) -> str:
    """The description of an NSError."""
    return "no reason given" if error is None else str(error.localizedDescription())
