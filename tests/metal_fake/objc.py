"""What the package uses of PyObjC's `objc`. Beside Metal.py, which says what for."""

import contextlib
import threading

pools = threading.local()


@contextlib.contextmanager
def autorelease_pool():
    pools.depth = getattr(pools, "depth", 0) + 1
    try:
        yield
    finally:
        pools.depth -= 1
