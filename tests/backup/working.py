"""Run as a program: push, look up and log what is served, and follow what becomes due, until killed.

working FOLDER

The number of each row is printed when its push was answered. Segments of the log are full after some ten pushes, and sealed in the
background; files of old segments are deleted at once.
"""

from __future__ import annotations

import os
import sys
import threading
from datetime import UTC, datetime
from typing import Any

import featurestore.sources.log.file_log as log
from featurestore import FeatureStore


def main() -> None:
    defaults: Any = log.FileLog.__init__.__kwdefaults__
    defaults["segment_bytes"] = 6_000
    log.GRACE_SECONDS = 0.0  # type: ignore[attr-defined]  # a name that the module imports, to be replaced
    with FeatureStore(sys.argv[1]) as store:
        threading.Thread(target=store.follow, args=[threading.Event()], daemon=True).start()
        for number in range(10**9):
            row = {"cart": f"c{number}", "customer": f"u{number % 7}", "at": datetime.now(UTC), "amount": 1.5}
            store.push("carts", [row])
            store.get_online_features([{"customer": f"u{number % 7}"}], "cart_model")
            print(number, flush=True)


if __name__ == "__main__":
    os.environ["PYTHONUNBUFFERED"] = "1"
    main()
