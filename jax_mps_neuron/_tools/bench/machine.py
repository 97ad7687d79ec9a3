"""The machine that a benchmark runs on."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import jax

from ..._lowering import native
from .peers import our_route
from .timing import cores

__all__ = ["machine"]


def machine() -> dict[str, Any]:
    """The machine, the versions, the date and the command, for the JSON."""
    device = jax.devices()[0]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "cores": cores(),
        "platform": device.platform,
        "device": device.device_kind,
        "isa": native.isa() if device.platform == "cpu" else "",
        "ours": our_route(device.platform),
        "python": platform.python_version(),
        **{name: _version(name) for name in ("jax", "jaxlib", "numpy", "torch")},
        "date": time.strftime("%Y-%m-%d"),
        "command": shlex.join(["python", "-m", "jax_mps_neuron", *sys.argv[1:]]),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.lower().startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
