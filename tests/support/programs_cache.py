"""A cache of compiled programs for one run of the tests, shared by all of its processes.

Must be imported before JAX, which reads these variables once. The first process makes the cache and removes
it at its end. pytest-xdist's workers and the processes that tests start inherit the variables.
"""

from __future__ import annotations

import os
import tempfile
from importlib import metadata

# With jax 0.4.34 on cpu, a program from the cache can return wrong results when threads run it at once.
# With 0.10.2 it does not.
_VERSION = tuple(map(int, metadata.version("jax").split(".")[:2]))

if _VERSION >= (0, 10) and "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _folder = tempfile.TemporaryDirectory(prefix="programs-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _folder.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
