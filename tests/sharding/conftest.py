"""Fixtures of the tests of sharding."""

from __future__ import annotations

import jax
import pytest

from support.meshes import SHARDY


@pytest.fixture(params=["gspmd", "shardy"])
def partitioner(request):
    """Each of XLA's two partitioners."""
    if request.param == "shardy" and not SHARDY:
        pytest.skip(f"with jax {jax.__version__}, custom_partitioning has no rules for Shardy")
    if not SHARDY:
        yield request.param
        return
    before = jax.config.jax_use_shardy_partitioner
    jax.config.update("jax_use_shardy_partitioner", request.param == "shardy")
    yield request.param
    jax.config.update("jax_use_shardy_partitioner", before)
