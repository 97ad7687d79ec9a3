"""A process-wide setting that `jax.jit` knows of."""

from __future__ import annotations

from typing import Generic, TypeVar

import jax

__all__ = ["Setting"]

T = TypeVar("T")


class Setting(Generic[T]):
    """A process-wide value that is part of jit's cache key: changing it retraces what depends on it."""

    def __init__(self, default: T):
        # Before 0.8 there is no make_user_context, or it cannot be set; then all there is to do is forget.
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
