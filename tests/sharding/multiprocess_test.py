"""Data-parallel training in two processes on this host, which meet at a port of the loopback interface."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

WORKER = Path(__file__).parents[1] / "support" / "multiprocess_worker.py"
SECONDS = 120


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(processes: int, folder: Path) -> list[tuple[int | None, str, str]]:
    """Runs the workers: the status, output and errors of each. Ends them when one fails or time is up."""
    port = str(free_port())
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        "JAX_PLATFORMS": "cpu",
    }
    running = []
    for i in range(processes):
        with (folder / f"out{i}").open("w") as out, (folder / f"err{i}").open("w") as err:
            command = [sys.executable, str(WORKER), port, str(processes), str(i)]
            running.append(subprocess.Popen(command, stdout=out, stderr=err, env=environment))
    end = time.monotonic() + SECONDS
    while (
        time.monotonic() < end
        and any(p.poll() is None for p in running)
        and not any(p.poll() for p in running)
    ):
        time.sleep(0.1)
    statuses = [p.poll() for p in running]
    for p in running:
        p.kill()
        p.wait()
    return [
        (status, (folder / f"out{i}").read_text(), (folder / f"err{i}").read_text())
        for i, status in enumerate(statuses)
    ]


def test_two_processes(tmp_path, native_library):
    finished = run(2, tmp_path)
    assert [status for status, _, _ in finished] == [0, 0], "\n".join(err[-3000:] for _, _, err in finished)
    for _, output, _ in finished:
        result = json.loads(output.splitlines()[-1])
        assert result["devices"] == [2, 4]
        np.testing.assert_allclose(result["losses"], result["one device"], rtol=1e-5)
        np.testing.assert_allclose(result["bias"], result["one device's bias"], rtol=1e-4, atol=1e-6)
        assert result["losses"][-1] < result["losses"][0]
        assert (result["calls"], result["gathers"]) == (2, 0)
