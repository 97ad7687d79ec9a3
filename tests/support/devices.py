"""Eight CPU devices for what is sharded, in this process alone; what is not runs on the first."""

from __future__ import annotations

import os

import jax
import numpy as np
from jax.sharding import Mesh

_flags = os.environ.get("XLA_FLAGS")
os.environ["XLA_FLAGS"] = f"{_flags or ''} --xla_force_host_platform_device_count=8"
DEVICES = jax.devices("cpu")
os.environ.pop("XLA_FLAGS")
if _flags is not None:
    os.environ["XLA_FLAGS"] = _flags


def mesh_of(*sizes: int, names: tuple[str, ...] = ("data", "model"), devices=None) -> Mesh:
    """A mesh of the first devices, or of those given."""
    devices = np.asarray(DEVICES[: int(np.prod(sizes))] if devices is None else devices)
    return Mesh(devices.reshape(sizes), names[: len(sizes)])
