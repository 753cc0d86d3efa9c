"""Run as a program: write whole batches to an online store, in one of two manners.

stamp URL PREFIX KEYS WRITER    for ever: all keys of a batch get the same new stamp
count URL PREFIX TIMES          add 1 to a counter and to its copy, TIMES times, guarded by the counter
"""

from __future__ import annotations

import itertools
import sys

from featurestore.online import Guard, OnlineStore, open_online


def stamp(store: OnlineStore, prefix: bytes, keys: int, writer: bytes) -> None:
    for turn in itertools.count():
        value = b"%s-%d" % (writer, turn) + b"." * 100
        store.write({prefix + b"%06d" % index: value for index in range(keys)})
        if turn == 1:
            print("ready", flush=True)


def count(store: OnlineStore, prefix: bytes, times: int) -> None:
    counter, copy = prefix + b"counter", prefix + b"copy"
    for _ in range(times):
        while True:
            held = store.get([counter]).values[0]
            following = b"%d" % (int(held or b"0") + 1)
            if store.write({counter: following, copy: following}, guard=Guard(counter, held)):
                break


if __name__ == "__main__":
    manner, url, prefix, number, *rest = sys.argv[1:]
    opened = open_online(url)
    if manner == "stamp":
        stamp(opened, prefix.encode(), int(number), rest[0].encode())
    else:
        count(opened, prefix.encode(), int(number))
    opened.close()
