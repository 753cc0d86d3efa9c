"""What only the embedded store does: one environment per directory, forks, full maps and disks."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import lmdb
import pytest

from featurestore.errors import ConfigError, OnlineStoreError
from featurestore.online import Guard, open_online
from featurestore.online.lmdb import LmdbStore

FORKS = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def test_two_paths_to_one_directory_are_one_store(tmp_path: Path) -> None:
    """A symbolic link leads to the environment that is open already, and each handle closes for itself."""
    first = open_online(f"lmdb://{tmp_path}/online")
    (tmp_path / "link").symlink_to(tmp_path / "online")
    second = open_online(f"lmdb://{tmp_path}/link")
    first.write({b"a": b"1"})
    first.close()
    assert second.get([b"a"]).values == [b"1"]
    second.close()
    with closing(open_online(f"lmdb://{tmp_path}/online?map_size=1GiB")) as third:
        assert third.get([b"a"]).values == [b"1"]


def test_paths_may_be_relative_and_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lmdb://a/b` lies below the current directory, and %3F is a question mark in a name."""
    monkeypatch.chdir(tmp_path)
    with closing(open_online("lmdb://deep/is%20it%3F")) as store:
        store.write({b"a": b"1"})
        assert (tmp_path / "deep" / "is it?" / "data.mdb").exists()
        assert repr(store) == f"LmdbStore('lmdb://{tmp_path}/deep/is it?')"


def test_another_map_size_needs_the_others_closed(tmp_path: Path) -> None:
    """A second handle may leave map_size out or repeat it, not change it."""
    url = f"lmdb://{tmp_path}/online"
    with (
        closing(open_online(f"{url}?map_size=64MiB")),
        closing(open_online(url)),
        closing(open_online(f"{url}?map_size=65536K")),
    ):
        with pytest.raises(ConfigError, match="map_size=67108864"):
            open_online(f"{url}?map_size=1GiB")


def test_a_full_map_says_how_to_enlarge_it(tmp_path: Path) -> None:
    """What does not fit is refused as a whole, and fits once the directory is opened with a larger map_size."""
    url = f"lmdb://{tmp_path}/online"
    batch = {b"%d" % index: b"v" * 2000 for index in range(500)}
    store = open_online(f"{url}?map_size=256KiB")
    store.write({b"0": b"before"})
    with pytest.raises(OnlineStoreError, match=r"is full: its map_size is 262144 bytes.*\?map_size=2GiB") as caught:
        store.write(batch)
    assert str(tmp_path) in str(caught.value)
    assert store.get([b"0", b"1"]).values == [b"before", None]
    del caught
    store.close()
    with closing(open_online(f"{url}?map_size=16MiB")) as larger:
        assert larger.write(batch, guard=Guard(b"0", b"before")) is True
        assert larger.get([b"499"]).values == [b"v" * 2000]


def test_a_full_disk_says_so(tmp_path: Path) -> None:
    """Where the file may not grow, nothing of the batch is written and the message names the disk."""
    program = f"""
import resource
from featurestore.online import open_online
from featurestore.errors import OnlineStoreError
store = open_online("lmdb://{tmp_path}/online")
store.write({{b"a": b"before"}})
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    store.write({{b"%d" % i: b"v" * 2000 for i in range(500)}} | {{b"a": b"after"}})
except OnlineStoreError as error:
    print(error)
print(store.get([b"a", b"1"]).values)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "cannot be written: the disk, a quota or a file size limit is full" in done.stdout
    assert "[b'before', None]" in done.stdout


def test_too_little_address_space_says_so(tmp_path: Path) -> None:
    """A process with a limit on its memory is told to open with a smaller map_size."""
    program = f"""
import resource
from featurestore.online import open_online
from featurestore.errors import OnlineStoreError
import featurestore.online.lmdb
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
try:
    open_online("lmdb://{tmp_path}/online")
except OnlineStoreError as error:
    print(error)
open_online("lmdb://{tmp_path}/online?map_size=1GiB").write({{b"a": b"1"}})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "open it with a smaller map_size" in done.stdout


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    """A file in the directory's place, or a file that is not LMDB's, is named in the error."""
    (tmp_path / "file").write_text("x")
    with pytest.raises(OnlineStoreError, match="file cannot be made or read"):
        open_online(f"lmdb://{tmp_path}/file")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(OnlineStoreError, match="odd failed"):
        open_online(f"lmdb://{tmp_path}/odd")


def in_child(work: Callable[[], bytes]) -> bytes:
    """What `work()` returns in a forked child, or the error that ended it."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, work())
        except BaseException as error:
            os.write(writing, repr(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


@FORKS
def test_a_handle_works_on_both_sides_of_a_fork(tmp_path: Path) -> None:
    """Parent and child, and the child's own child, read and write the same store after a fork."""
    store = open_online(f"lmdb://{tmp_path}/online")
    store.write({b"parent": b"1"})

    def work() -> bytes:
        store.write({b"child": b"2"}, guard=Guard(b"parent", b"1"))
        with closing(open_online(f"lmdb://{tmp_path}/online")) as again:
            seen = again.get([b"parent", b"child"]).values
        return repr((seen, in_child(lambda: repr(store.get([b"child"]).values).encode()))).encode()

    assert in_child(work) == b"""([b'1', b'2'], b"[b'2']")"""
    assert store.get([b"child"]).values == [b"2"]
    store.write({b"child": None})
    assert store.get([b"child"]).values == [None]
    store.close()


@FORKS
def test_forks_do_not_disturb_busy_threads(tmp_path: Path) -> None:
    """While threads read and write, forks succeed, children work, and no read or write fails or is torn."""
    store = open_online(f"lmdb://{tmp_path}/online")
    keys = [b"%d" % index for index in range(50)]
    store.write(dict.fromkeys(keys, b"x"))
    stop, errors = threading.Event(), []

    def work(write: bool) -> None:
        turn = 0
        try:
            while not stop.is_set():
                turn += 1
                if write:
                    store.write(dict.fromkeys(keys, b"%d" % turn))
                assert len(set(store.get(keys).values)) == 1
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(write,)) for write in (True, False, False)]
    for thread in threads:
        thread.start()
    try:
        answers = [in_child(lambda: b"%d" % len(set(store.get(keys).values))) for _ in range(10)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert answers == [b"1"] * 10
    store.close()


def test_a_forgotten_handle_is_closed_with_its_last_reference(tmp_path: Path) -> None:
    """Handles that are dropped without close leave the directory free: LMDB itself refuses a second opening."""
    LmdbStore(f"lmdb://{tmp_path}/online").write({b"a": b"1"})
    gc.collect()
    lmdb.open(str(tmp_path / "online")).close()


def test_the_file_is_as_large_as_its_contents(tmp_path: Path) -> None:
    """The map is address space: an empty store takes a few pages of disk."""
    with closing(open_online(f"lmdb://{tmp_path}/online")) as store:
        store.write({b"a": b"1"})
        assert (tmp_path / "online" / "data.mdb").stat().st_size < 100_000
