"""What a process and all that it started take: of the processors by kind, and of memory."""

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple, Self

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
SAMPLE_S = 0.25


class _Process(NamedTuple):
    """A process of the tree. started: tells it from a later one of its number."""

    pid: int
    started: int


class TreeUse:
    """Looks several times a second at this process and at those below it, also at those that end meanwhile; what one does between the last look
    and its end is not seen.

    cpu_s: seconds on the processors by kind: "this_process", "java", "python", "ray" (its own programs) and "other"; the looking itself is
    left out. peak_mb: the most memory: what each process has alone, in sum, and of what they share the largest, which is one store of objects.
    """

    def __init__(self) -> None:
        self.cpu_s: dict[str, float] = {}
        self.peak_mb = 0.0
        self._kinds: dict[_Process, str] = {}
        self._spent: dict[_Process, float] = {}
        self._done, self._looking_s = threading.Event(), 0.0
        self._thread = threading.Thread(target=self._keep_looking, daemon=True)

    def __enter__(self) -> Self:
        self.look()
        self._before = dict(self._spent)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.look()
        for process, spent in self._spent.items():
            kind = self._kinds[process]
            self.cpu_s[kind] = self.cpu_s.get(kind, 0.0) + spent - self._before.get(process, 0.0)
        self.cpu_s["this_process"] -= self._looking_s

    def _keep_looking(self) -> None:
        while not self._done.wait(SAMPLE_S):
            self.look()
        self._looking_s = time.thread_time()

    def look(self) -> None:
        """Look once more."""
        alone, shared = 0, 0
        for pid, fields in _tree().items():
            process = _Process(pid, int(fields[19]))
            kind = "this_process" if pid == os.getpid() else _kind(pid)
            if process not in self._kinds or kind != "other":  # one that ends has no name any more
                self._kinds[process] = kind
            self._spent[process] = (int(fields[11]) + int(fields[12])) / TICKS_PER_S
            try:
                told = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            except OSError:
                continue
            if "RssAnon" in told:
                alone += int(told["RssAnon"].split()[0])
                shared = max(shared, int(told["RssShmem"].split()[0]))
        self.peak_mb = max(self.peak_mb, (alone + shared) / 1024)


def _tree() -> dict[int, list[str]]:
    """Of this process and of each below it what /proc/PID/stat says behind its name."""
    told: dict[int, list[str]] = {}
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            told[int(folder.name)] = fields
            children.setdefault(int(fields[1]), []).append(int(folder.name))
    found, below = {}, [os.getpid()]
    while below:
        pid = below.pop()
        found[pid] = told[pid]
        below += children.get(pid, [])
    return found


def _kind(pid: int) -> str:
    try:
        said = Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return "other"
    program = Path(said.partition("\0")[0]).name
    if program == "java":
        return "java"
    if program in {"gcs_server", "raylet"} or ("/ray/" in said and not said.startswith("ray::")):
        return "ray"
    return "python" if program.startswith(("python", "ray::")) or said.startswith("ray::") else "other"
