"""What is known of each published Metal plugin."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["PLUGINS", "Plugin", "is_metal"]


class Plugin(NamedTuple):
    """A Metal plugin as published.

    Attributes:
      packages: the Python packages that contain it.
      refuses: why it runs no third-party custom call, whoever registers one; empty if it may run one.
      callbacks: whether `jax.pure_callback` works under jit.
    """

    packages: tuple[str, ...]
    refuses: str
    callbacks: bool


# By the name of the platform in JAX, published by November 2026.
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
    """Whether a platform belongs to a Metal plugin."""
    return platform.lower() in _NAMES
