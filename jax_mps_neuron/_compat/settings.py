"""A process-wide setting that is part of `jax.jit`'s cache key.

`jax.make_user_context` exists, with a global value, since 0.8. On older versions the setting clears JAX's
caches when it changes.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import jax

__all__ = ["Setting"]

T = TypeVar("T")


class Setting(Generic[T]):
    """A process-wide value. JAX retraces the functions that depend on it when it changes.

    Args:
      default: the initial value.
    """

    def __init__(self, default: T):
        # Before 0.8, make_user_context is missing or has no set_global.
        context = jax.make_user_context(default) if hasattr(jax, "make_user_context") else None
        self._context = context if hasattr(context, "set_global") else None
        self._value = default

    def get(self) -> T:
        return self._value if self._context is None else self._context.value

    def set(self, value: T) -> None:
        if self._context is not None:
            self._context.set_global(value)
        elif value != self._value:
            self._value = value
            jax.clear_caches()
