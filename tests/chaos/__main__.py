"""python -m tests.chaos [--rounds N] [--store lmdb|redis|both] [--seed N]: kill a project's processes for as long as one wants."""

from __future__ import annotations

import argparse
import random
import sys
import time

from tests.chaos.storm import Chaos, Kind


def main() -> None:
    """Run the rounds and say what happened in them."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--store", choices=["lmdb", "redis", "both"], default="both")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    said = parser.parse_args()
    kinds: list[Kind] = ["lmdb", "redis"] if said.store == "both" else [said.store]
    for kind in kinds:
        began = time.monotonic()
        with Chaos(kind, said.seed) as chaos:
            for number in range(said.rounds):
                event = chaos.round()
                sys.stderr.write(f"\r{kind} {number + 1}/{said.rounds} {event}          ")
            chaos.end()
        took = time.monotonic() - began
        print(f"\n{kind}: {said.rounds} rounds with seed {said.seed} in {took:.0f} s, nothing lost: {dict(chaos.seen)}")


if __name__ == "__main__":
    main()
