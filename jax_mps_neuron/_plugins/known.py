"""What each published Metal plugin can do."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PLUGINS", "Plugin", "is_metal"]


class Plugin(NamedTuple):
    """A Metal plugin as published.

    Attributes:
      packages: the Python packages that contain it.
      refuses: why it never runs a third-party custom call; empty if it may.
      callbacks: whether `jax.pure_callback` works under jit.
    """

    packages: tuple[str, ...]
    refuses: str
    callbacks: bool


# By JAX's name for the platform. The list is as published by November 2026.
PLUGINS = {
    "METAL": Plugin(("jax-metal",), "does not accept third-party custom calls", False),
    "mtl": Plugin(("jax-graft", "metal-pjrt-core"), "", True),
    "metal": Plugin(("metaljax",), "does not accept third-party custom calls", True),
    "mps": Plugin(("jax-mps", "jax-metallib"), "accepts only its own set of custom calls", False),
    "iree_metal": Plugin(
        ("iree-pjrt-plugin-metal-iree-metal",), "does not accept third-party custom calls", False
    ),
}
_NAMES = {name.lower() for name in PLUGINS}


def is_metal(platform: str) -> bool:
    """Whether a platform is that of a Metal plugin."""
    return platform.lower() in _NAMES
