"""What happens to the project: processes are killed at any moment, and its online store restarts, loses all, or goes back."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal, Self

from tests.chaos.check import checked
from tests.chaos.roles import play
from tests.chaos.world import PUSHERS, write_project
from tests.forks import forks
from tests.ports import free_port
from tests.servers import RedisServer

Kind = Literal["lmdb", "redis"]

ROLES = (
    *(f"pusher{who}" for who in range(PUSHERS)),
    "materializer",
    "compactor",
    "lander",
    "looker",
    "caller",
    "server",
)
EVENTS = {"one": 10, "several": 4, "all": 2, "restart": 3, "older": 3, "empty": 2}
"""What may happen in a round, and how often beside the others."""

PATIENCE = 120.0
"""Seconds after which a process that makes no turn is taken for hanging."""


class Chaos:
    """A project in a temporary folder and its processes."""

    def __init__(self, kind: Kind, seed: int) -> None:
        self.kind, self.seen = kind, Counter[str]()
        self._chosen = random.Random(seed)
        self._folder = Path(tempfile.mkdtemp(prefix=f"chaos-{kind}-"))
        self.project = self._folder / "project"
        self._redis = RedisServer(appendonly="yes", appendfsync="always") if kind == "redis" else None
        self._forks = forks()
        self._port = free_port()
        self._running: dict[str, BaseProcess] = {}
        self._turns: dict[str, int] = {}

    def __enter__(self) -> Self:
        if self._redis is not None:
            self._data.mkdir()
            self._redis.settings["dir"] = str(self._data)
            self._redis.start()
        write_project(self.project, "lmdb://.featurestore/online" if self._redis is None else self._redis.url)
        self._run(prepare, str(self.project))
        for role in ROLES:
            self._begin(role)
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._kill(*self._running)
        if self._redis is not None:
            self._redis.stop()
        if kind is None:  # else it is left to be looked at
            shutil.rmtree(self._folder)

    def round(self) -> str:
        """Something happens while every process is at work, and what must hold holds afterwards; what it was."""
        self._wait_for_turns()
        time.sleep(self._chosen.random() * 0.1)
        (event,) = self._chosen.choices([*EVENTS], [*EVENTS.values()])
        self.seen[event] += 1
        getattr(self, f"_{event}")()
        self._run(checked, str(self.project), "at work")
        self._look()
        return event

    def end(self) -> None:
        """All processes are killed; the next of everything succeeds, and nothing is lost."""
        self._kill(*self._running)
        self._run(checked, str(self.project), "at rest")
        self._look()

    # --- what may happen --------------------------------------------------------------------

    def _one(self) -> None:
        self._again(self._chosen.choice(ROLES))

    def _several(self) -> None:
        self._again(*self._chosen.sample(ROLES, 3))

    def _all(self) -> None:
        self._again(*ROLES)

    def _restart(self) -> None:
        """The store dies and comes back with everything; how it is then is kept for `older`."""
        self._store(lambda place: shutil.copytree(place, self._kept, dirs_exist_ok=True))

    def _older(self) -> None:
        """The store comes back as it was some rounds ago."""
        if not self._kept.exists():
            self._restart()
            return

        def back(place: Path) -> None:
            shutil.rmtree(place)
            shutil.copytree(self._kept, place)

        self._store(back)

    def _empty(self) -> None:
        def emptied(place: Path) -> None:
            shutil.rmtree(place)
            place.mkdir()

        self._store(emptied)

    @property
    def _kept(self) -> Path:
        return self._folder / "kept"

    @property
    def _data(self) -> Path:
        """What lies under the online store."""
        return self.project / ".featurestore" / "online" if self._redis is None else self._redis.directory / "data"

    def _store(self, change: object) -> None:
        """Change what lies under the online store while it is dead; nobody has a file of an embedded one open then."""
        assert callable(change)
        if self._redis is None:
            self._kill(*ROLES)
            change(self._data)
            for role in ROLES:
                self._begin(role)
        else:
            self._redis.stop()
            change(self._data)
            self._redis.start()

    # --- processes --------------------------------------------------------------------------

    def _begin(self, role: str) -> None:
        self._turns[role] = self._count(role)
        seed = self._chosen.randrange(1 << 30)
        self._running[role] = self._forks.Process(
            target=play, args=(role, str(self.project), seed, self._port), daemon=True
        )
        self._running[role].start()

    def _kill(self, *roles: str) -> None:
        for role in roles:
            self._running[role].kill()
        for role in roles:
            self._running[role].join()

    def _again(self, *roles: str) -> None:
        self._kill(*roles)
        for role in roles:
            self._begin(role)

    def _count(self, role: str) -> int:
        turns = self.project / f"turns.{role}"
        return turns.stat().st_size if turns.exists() else 0

    def _wait_for_turns(self) -> None:
        """Until every process has made a turn since it began: what is killed is at work, however slow the machine is."""
        deadline = time.monotonic() + PATIENCE
        for role in ROLES:
            while role != "server" and self._count(role) <= self._turns[role]:
                self._look()
                if time.monotonic() > deadline:
                    raise AssertionError(f"{role} has made no turn for {PATIENCE:.0f} s")
                time.sleep(0.01)

    def _run(self, target: object, *arguments: str) -> None:
        process = self._forks.Process(target=target, args=arguments)  # type: ignore[arg-type]  # targets take arguments of their own
        process.start()
        process.join()
        if process.exitcode:
            self._look()
            raise AssertionError(f"{arguments} ended with {process.exitcode}; see {self._folder}")

    def _look(self) -> None:
        unexpected = self.project / "unexpected"
        if unexpected.exists():
            raise AssertionError(f"{unexpected.read_text()}\nSee {self._folder}; so far {dict(self.seen)}")


def prepare(folder: str) -> None:
    """Apply the project and fill its views."""
    from featurestore import FeatureStore

    with FeatureStore(folder) as store:
        store.apply()
        store.materialize(progress=False)
