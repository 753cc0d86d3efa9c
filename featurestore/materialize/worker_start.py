"""What a worker process runs, as a script: it sees to it that it ends when its driver does, and only then imports the package.

Its arguments are the descriptor by which it talks with its driver, and the driver's process number.
"""

import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

WATCH_SECONDS = 1.0
"""Seconds between two looks whether the driver lives."""


def _end_with(driver: int) -> None:
    """End this process as soon as that one is not its parent any more, whatever it does just then, and whichever other process has the other end of
    the connection."""
    while os.getppid() == driver:
        time.sleep(WATCH_SECONDS)
    os._exit(1)


def _main(descriptor: int, driver: int) -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM):  # which whole groups of processes get; the driver decides
        signal.signal(ignored, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=[driver], daemon=True).start()
    connection = Connection(descriptor)
    try:
        sys.path[:] = connection.recv()
    except (EOFError, OSError):
        os._exit(1)
    from featurestore.materialize.chunk_worker import work

    work(connection)
    sys.stderr.flush()
    os._exit(0)  # all is closed; to take the interpreter down is a quarter of a second of the processor


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
