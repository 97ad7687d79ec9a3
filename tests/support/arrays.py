"""Arrays to test with, and the one assertion of the numerical tests."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

try:
    x64 = jax.enable_x64
except AttributeError:  # before 0.8
    from jax.experimental import enable_x64 as x64

__all__ = ["DTYPES", "assert_close", "draw", "x64"]

DTYPES = ["float32", "float16", "bfloat16", "float64"]

# Relative to the result, and to the largest magnitude beside it: arithmetic in float32 (float64) with a
# rounding to the result's dtype.
_TOLERANCE = {"float32": 2e-6, "float16": 6e-4, "bfloat16": 4.5e-3, "float64": 1e-14}


def assert_close(actual, expected, dtype: str | None = None, factor: float = 1.0) -> None:
    """Asserts that `actual` is `expected` (float64), within `factor` times the tolerance of a dtype: its
    own unless another is named."""
    tolerance = factor * _TOLERANCE[dtype or str(actual.dtype)]
    actual, expected = np.asarray(actual, np.float64), np.asarray(expected, np.float64)
    assert actual.shape == expected.shape
    finite = np.abs(expected[np.isfinite(expected)])
    scale = 0.1 * finite.max() if finite.size else 0.0
    np.testing.assert_allclose(actual, expected, rtol=4 * tolerance, atol=tolerance * scale)


def draw(seed: int, shape, dtype: str = "float32", scale: float = 1.0):
    """Normal numbers, rounded to dtype."""
    values = np.random.default_rng(seed).standard_normal(shape) * scale
    return jnp.asarray(np.asarray(values), dtype)
