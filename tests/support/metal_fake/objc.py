"""What the package uses of PyObjC's `objc`. Beside Metal.py, which says what for."""

import contextlib
import threading

pools = threading.local()


class error(Exception):  # noqa: N801, N818
    """What an NSException becomes."""


@contextlib.contextmanager
def autorelease_pool():
    pools.depth = getattr(pools, "depth", 0) + 1
    try:
        yield
    finally:
        pools.depth -= 1
