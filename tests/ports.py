"""Ports for the servers of tests, which no other process of a test run is given, and no outgoing connection takes."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import BinaryIO

BUS = 10_000
"""A server of a Redis Cluster has a second port, so far above its own."""

PORTS = range(11_000, 11_000 + BUS)
"""Below the ports that Linux gives to outgoing connections (from 32,768 on): one of those that is asked for, let go and bound later may
be another process's by then. Two servers' second ports do not meet either."""

_HELD: dict[int, BinaryIO] = {}
"""The files whose locks say which ports are this process's; they are let go when it ends, however it ends."""


def free_port() -> int:
    """A port at which nothing listens, this process's until it ends."""
    places = Path(tempfile.gettempdir(), f"featurestore-ports-{os.getuid()}")
    places.mkdir(exist_ok=True)
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if port in _HELD:  # a process that was forked has what its parent had, too
            continue
        place = (places / str(port)).open("wb")
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            place.close()
            continue
        if _is_free(port) and _is_free(port + BUS):
            _HELD[port] = place
            return port
        place.close()
    raise OSError(f"no port of {PORTS} is free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
