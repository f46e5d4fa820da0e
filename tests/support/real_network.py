"""The network that the pods are in: a namespace of the kernel, with no way in but to be inside."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_CLONE_NEWNET = 0x40000000


@contextmanager
def inside(namespace: Path) -> Iterator[None]:
    """Open this thread's sockets, and start its programs, in a network namespace while the block runs. Only for root.

    So clients and `kubectl` reach pods and services by their own addresses, and nothing is relayed.
    """
    with Path("/proc/thread-self/ns/net").open("rb") as outside, namespace.open("rb") as there:
        _enter(there.fileno())
        try:
            yield
        finally:
            _enter(outside.fileno())


def _enter(namespace: int) -> None:
    # os.setns is Python 3.12's.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(namespace, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
