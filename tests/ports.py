"""Ports for the servers of tests, which no other process of a test run is given, and no outgoing connection takes."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import BinaryIO

BUS = 10_000
"""A server of a Redis Cluster has a second port, so far above its own."""

PORTS = range(11_000, 11_000 + BUS)
"""Below the ports that Linux gives to outgoing connections (from 32,768 on): one of those that is asked for, let go and bound later may
be another process's by then. Two servers' second ports do not meet either."""

_LOCKS = Path(tempfile.gettempdir(), f"featurestore-ports-{os.getuid()}.locks")
"""A file whose bytes are locked, by the process that has the port of that number; it lets go when it ends, however it ends."""

_HELD: set[int] = set()
"""This process's ports, and those that the process had from which it was forked."""

_choosing = threading.Lock()


@cache
def _locks() -> BinaryIO:
    """The file, which stays open: whoever closes it once lets go of all of its locks."""
    return _LOCKS.open("ab")


def free_port() -> int:
    """A port at which nothing listens, this process's until it ends."""
    with _choosing:
        for port in random.SystemRandom().sample(PORTS, len(PORTS)):
            if port in _HELD:
                continue
            try:
                fcntl.lockf(_locks(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
            except OSError:  # another process's
                continue
            if _is_free(port) and _is_free(port + BUS):
                _HELD.add(port)
                return port
            fcntl.lockf(_locks(), fcntl.LOCK_UN, 1, port)
    raise OSError(f"no port of {PORTS} is free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
