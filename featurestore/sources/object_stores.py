"""Files in object stores, by URL: `s3://bucket/…`, `gs://bucket/…`, `az://container/…`.

Arrow's own file systems list, read and write them, and the engine reads through these, since its own extension has to be fetched from
the network. Which account, endpoint and credentials: what the environment says, as the vendors' own tools read it.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from fnmatch import translate
from functools import cache, partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from featurestore.declare.sources import is_url
from featurestore.durable.parquet import local
from featurestore.errors import ConfigError
from featurestore.hidden import hidden
from featurestore.lazy import duckdb, pa, pafs
from featurestore.plurals import plural

AT_ONCE = 32
"""How many files are asked for their tags at a time."""

SETTLED_SECONDS = 600
"""How long after it was written a file's tag is remembered: what is written anew from then on has another time, whatever the
clocks say, as long as they differ by less."""

REMEMBERED = 200_000
"""Tags that are remembered at most."""

SECOND = 1_000_000_000

CONNECT_SECONDS, REQUEST_SECONDS = 10, 60
"""How long Amazon's client waits for a connection, and for an answer; and how long Google's tries again, which does so for a
quarter of an hour if nobody says."""

TABLES = re.compile(r"(?:^|/)(?:(_delta_log)|(\.hoodie))/|(?:^|/)(metadata)/[^/]*\.metadata\.json$")
"""In the name of a file: that it is of a table of another format, whose log says which files count."""

FORMATS = ("Delta", "Hudi", "Iceberg")
"""In the order of the groups of TABLES."""


READ_AS = {
    "Delta": "declare it as a DeltaSource",
    "Hudi": "export its rows to Parquet files",
    "Iceberg": "declare it as an IcebergSource",
}


class ObjectStoreError(OSError):
    """What lies at a URL cannot be listed, read or written; the message says why."""


class Stored(NamedTuple):
    """A file as a store lists it."""

    url: str
    size: int
    """Bytes."""
    modified: int
    """ns since the epoch: the second in which it was written, and in place of what is below it, which stores do not tell, a
    digest of its ETag; Google's store tells it whole. So it differs where the content does."""


def listed(url: str, suffixes: tuple[str, ...]) -> tuple[str, list[Stored]]:
    """The place that a URL names, and the files there that are data, sorted: a file, what lies below a folder, or what
    matches a pattern. Raises ObjectStoreError."""
    system, path = _opened(url)
    scheme = url.partition("://")[0]
    parts = path.strip("/").split("/")
    pattern = next((place for place, part in enumerate(parts) if any(sign in part for sign in "*?[")), len(parts))
    place, rest = "/".join(parts[:pattern]), parts[pattern:]
    if not place:
        raise ObjectStoreError(f"{url} names no {_bucket_word(url)}")
    selector = pafs.FileSelector(place, recursive=True, allow_not_found=True)
    if not rest:
        try:
            info = _asked(url, lambda: system.get_file_info(place))
        except ObjectStoreError:
            _asked(
                url, lambda: system.get_file_info(selector)
            )  # of which a store says why: an answer of HEAD has no words
            raise
        if info.type == pafs.FileType.File:
            return f"{scheme}://{place.rpartition('/')[0]}", [file for file in _stored(scheme, system, [info]) if file]
    files = {info.path[len(place) + 1 :]: info for info in _files(url, system, selector)}
    _check_plain(url, files)
    chosen = sorted(name for name in files if _is_data(name, rest, suffixes))
    for name in chosen:
        if any(sign in name for sign in "*?["):
            raise ObjectStoreError(
                f"{scheme}://{place}/{name} has one of * ? [ in its name, which the engine takes for a pattern"
            )
    found = _stored(scheme, system, [files[name] for name in chosen])
    return f"{scheme}://{place}", [file for file in found if file is not None]


def looked_at(urls: Sequence[str]) -> list[Stored | None]:
    """Each as it is now; None for what is not there. Raises ObjectStoreError."""
    found: list[Stored | None] = []
    for scheme, system, places in _by_store(urls):
        infos = _asked(urls[0], partial(system.get_file_info, places))
        found += _stored(scheme, system, infos)
    return found


def entries(url: str) -> list[tuple[str, int, int]]:
    """The files in a folder, without those below its folders: name, size in bytes, ns of modification; none where there is no
    such folder. Raises ObjectStoreError."""
    system, path = _opened(url)
    found = _files(url, system, pafs.FileSelector(path, allow_not_found=True))
    return sorted((info.base_name, info.size, info.mtime_ns) for info in found)


def below(url: str) -> dict[str, int]:
    """The files in a folder and its folders: name below it → bytes; none where there is no such folder. Raises ObjectStoreError."""
    system, path = _opened(url)
    place = path.strip("/")
    found = _files(url, system, pafs.FileSelector(place, recursive=True, allow_not_found=True))
    return {info.path[len(place) + 1 :]: info.size for info in found}


def _files(url: str, system: Any, selector: pafs.FileSelector) -> list[Any]:
    """The files that a selector finds; none where there is no such folder. ObjectStoreError where there is no such bucket, which Arrow
    takes for an empty folder."""
    found = _asked(url, lambda: system.get_file_info(selector))
    bucket = selector.base_dir.strip("/").partition("/")[0]
    if not found and _is_missing(system, bucket):
        raise ObjectStoreError(f"{url} cannot be read: there is no {_bucket_word(url)} '{bucket}'")
    return [info for info in found if info.type == pafs.FileType.File]


def _bucket_word(url: str) -> str:
    return "container" if url.startswith("az:") else "bucket"


def _is_missing(system: Any, bucket: str) -> bool:
    """Whether there is no such bucket; not where nobody tells, as to a user who may list one of its folders alone."""
    try:
        found: bool = system.get_file_info(bucket).type == pafs.FileType.NotFound
    except (OSError, pa.ArrowException):
        return False
    return found


def fetch(url: str, file: Path) -> None:
    """Copy a file of a store to this machine. Raises FileNotFoundError where there is none, and ObjectStoreError."""
    system, place = _opened(url)
    here, local = str(file.absolute()), pafs.LocalFileSystem()
    try:
        pafs.copy_files(place, here, system, local)
    except FileNotFoundError:
        raise
    except (OSError, pa.ArrowException) as error:
        raise _error(url, error) from error


def remove(url: str) -> None:
    """Remove a file, where it is there. Raises ObjectStoreError."""
    system, place = _opened(url)
    with suppress(FileNotFoundError):
        try:
            system.delete_file(place)
        except FileNotFoundError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise _error(url, error, "removed") from error


def readable(path: str | Path) -> Any:
    """What Arrow opens: an absolute path, or a file of a store. Raises ObjectStoreError."""
    url = str(path)
    if isinstance(path, Path) or not is_url(url):
        return local(path)
    system, place = _opened(url)
    return _asked(url, lambda: system.open_input_file(place))


def check_writable(url: str) -> None:
    """ObjectStoreError where a URL names no file that could be written, and then be read again."""
    _opened(url)
    bucket, _, name = url.partition("://")[2].partition("/")
    if not bucket or not name or name.endswith("/") or "//" in f"/{name}":
        raise ObjectStoreError(
            f"{url} names no file in a {_bucket_word(url)}, such as s3://bucket/folder/training.parquet"
        )
    if any(sign in name for sign in "*?["):
        raise ObjectStoreError(f"{url} has one of * ? [ in its name, which the engine takes for a pattern")


def put(url: str, file: Path) -> None:
    """Write a finished file of this machine to a URL: readers find what was there before, or all of it. Raises ObjectStoreError.

    It is one call of Arrow's, which makes the object appear when all of it has come. A stream that is written to from here
    would, left by an error, close itself, and so show what had come until then.
    """
    check_writable(url)
    system, place = _opened(url)
    here, local = str(file.absolute()), pafs.LocalFileSystem()
    _asked(url, lambda: pafs.copy_files(here, place, local, system), "written")
    came = _asked(url, lambda: system.get_file_info(place), "written").size
    if came != (size := file.stat().st_size):
        raise ObjectStoreError(
            f"{url} cannot be written: of {size} {plural(size, 'byte')} there are {came or 0}; another writes to it"
        )


def register(connection: duckdb.DuckDBPyConnection, paths: Iterable[str]) -> None:
    """Let the engine read these paths, whichever of them lie in stores."""
    for scheme in {path.partition("://")[0] for path in paths if is_url(path)}:
        if not connection.filesystem_is_registered(scheme):
            connection.register_filesystem(_for_engine(scheme)(_system(scheme, os.getpid())))


def _check_plain(url: str, names: Iterable[str]) -> None:
    for name in names:
        found = TABLES.search(name)
        if found is not None:
            kind = FORMATS[next(place for place, group in enumerate(found.groups()) if group)]
            raise ObjectStoreError(f"{url} is a {kind} table, whose log says which of its files count; {READ_AS[kind]}")


def _is_data(name: str, pattern: Sequence[str], suffixes: tuple[str, ...]) -> bool:
    """Whether a file below a place matches, or lies below a folder that does: what a writer has finished."""
    parts = name.split("/")
    rest = _after(parts, pattern)
    if rest is None:
        return False
    if pattern and not rest:  # it is named itself
        return True
    return not any(part.startswith(("_", ".")) for part in rest) and name.endswith(suffixes)


def _after(parts: Sequence[str], pattern: Sequence[str]) -> Sequence[str] | None:
    """The parts of a name below what a pattern matches; None where it matches nothing of it."""
    if not pattern:
        return parts
    if not parts:
        return None
    head, *tail = pattern
    hidden = parts[0].startswith(("_", "."))
    if head == "**":
        found = _after(parts, tail or ["*"])
        return found if found is not None or hidden else _after(parts[1:], pattern)
    if not re.fullmatch(translate(head), parts[0]) or (hidden and head[0] != parts[0][0]):
        return None
    return _after(parts[1:], tail)


def _by_store(urls: Sequence[str]) -> list[tuple[str, Any, list[str]]]:
    """Runs of URLs of one store, in their order."""
    runs: list[tuple[str, Any, list[str]]] = []
    for url in urls:
        system, place = _opened(url)
        scheme = url.partition("://")[0]
        if not runs or runs[-1][0] != scheme:
            runs.append((scheme, system, []))
        runs[-1][2].append(place)
    return runs


def _stored(scheme: str, system: Any, infos: Sequence[Any]) -> list[Stored | None]:
    """Files as they were listed, each with its tag; None for what is not there, by now or at all."""
    if not infos:
        return []
    ask = partial(_one_stored, scheme, system)
    if len(infos) == 1:
        return [ask(infos[0])]
    with ThreadPoolExecutor(min(AT_ONCE, len(infos)), thread_name_prefix="object-store") as threads:
        return list(threads.map(ask, infos))


def _one_stored(scheme: str, system: Any, info: Any) -> Stored | None:
    if info.type != pafs.FileType.File:
        return None
    url, written = f"{scheme}://{info.path}", info.mtime_ns or 0
    known = url, info.size, written
    tag = _tags.get(known)
    if tag is None:
        try:
            with system.open_input_file(info.path) as file:
                tag = file.metadata().get("ETag", b"")
        except FileNotFoundError:
            return None
        except (OSError, pa.ArrowException) as error:
            raise _error(url, error) from error
        if written < time.time_ns() - SETTLED_SECONDS * SECOND:
            if len(_tags) >= REMEMBERED:
                _tags.clear()
            _tags[known] = tag
    if not tag:
        return Stored(*known)
    digest = int.from_bytes(blake2b(b"%d %s" % (written, tag), digest_size=8).digest())
    return Stored(url, info.size, written // SECOND * SECOND + digest % SECOND)


_tags: dict[tuple[str, int, int], bytes] = {}
"""URL, size and time as they were listed → the ETag."""


def _asked(url: str, ask: Callable[[], Any], what: str = "read") -> Any:
    try:
        return ask()
    except (OSError, pa.ArrowException) as error:
        raise _error(url, error, what) from error


def _error(url: str, error: Exception, what: str = "read") -> ObjectStoreError:
    return ObjectStoreError(f"{url} cannot be {what}: {' '.join(str(error).split())}")


def _opened(url: str) -> tuple[Any, str]:
    scheme, _, path = url.partition("://")
    if "@" in path.partition("/")[0]:
        raise ObjectStoreError(
            f"{hidden(url)} has credentials in it; the environment says them, and the URL s3://bucket/…"
        )
    return _system(scheme, os.getpid()), path


@cache
def _system(scheme: str, process: int) -> Any:  # noqa: ARG001  the threads of a parent are not those of its child
    """Arrow's file system, as the environment says it."""
    if scheme == "s3":
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        said = {} if endpoint is None else {"endpoint_override": endpoint}
        return pafs.S3FileSystem(connect_timeout=CONNECT_SECONDS, request_timeout=REQUEST_SECONDS, **said)
    if scheme == "gs":
        limit, emulator = timedelta(seconds=REQUEST_SECONDS), os.environ.get("STORAGE_EMULATOR_HOST")
        if emulator is None:
            return pafs.GcsFileSystem(retry_time_limit=limit)
        kind, _, host = emulator.rpartition("://")
        return pafs.GcsFileSystem(
            anonymous=True, endpoint_override=host.rstrip("/"), scheme=kind or "http", retry_time_limit=limit
        )
    return AzureAccount.of_environment().file_system()


class AzureAccount(NamedTuple):
    """An account of Azure, as the environment names it for Azure's own tools: AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with
    AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN or what says who this machine is."""

    name: str
    key: str | None
    sas_token: str | None
    endpoint: str | None
    """The URL of its blobs, where it is no usual one."""

    @classmethod
    def of_environment(cls) -> AzureAccount:
        """ConfigError where the environment names none."""
        text = os.environ.get("AZURE_STORAGE_CONNECTION_STRING", "")
        said = dict(part.split("=", 1) for part in text.split(";") if "=" in part)
        name = said.get("AccountName") or os.environ.get("AZURE_STORAGE_ACCOUNT")
        if not name:
            raise ConfigError(
                "az:// takes the name of the account, in the environment's AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING"
            )
        key = said.get("AccountKey") or (None if text else os.environ.get("AZURE_STORAGE_KEY"))
        sas_token = said.get("SharedAccessSignature") or (None if text else os.environ.get("AZURE_STORAGE_SAS_TOKEN"))
        return cls(name, key or None, sas_token or None, said.get("BlobEndpoint"))

    def file_system(self) -> Any:
        """Arrow's client. An endpoint whose host does not begin with the account's name has that in its path, as emulators do."""
        words = {"account_key": self.key, "sas_token": self.sas_token}
        if self.endpoint is not None:
            parts = urlsplit(self.endpoint)
            host = parts.netloc.removeprefix(self.name) if parts.netloc.startswith(f"{self.name}.") else parts.netloc
            for kind in ("blob", "dfs"):
                words[f"{kind}_storage_authority"] = host.replace(".blob.", f".{kind}.", 1)
                words[f"{kind}_storage_scheme"] = parts.scheme
        return pafs.AzureFileSystem(self.name, **words)

    def options(self) -> dict[str, str]:
        """The same as the library of Delta tables takes it."""
        said = {
            "azure_storage_account_name": self.name,
            "azure_storage_account_key": self.key,
            "azure_storage_sas_key": self.sas_token,
        }
        if self.endpoint is not None:
            said |= {
                "azure_storage_endpoint": self.endpoint,
                "azure_allow_http": str(self.endpoint.startswith("http://")).lower(),
            }
        return {name: value for name, value in said.items() if value is not None}


@cache
def _for_engine(scheme: str) -> type:
    """A file system as the engine takes it, which knows it by its `protocol`."""
    try:
        from fsspec.implementations.arrow import ArrowFSWrapper
    except ModuleNotFoundError as error:
        raise ConfigError(f"{scheme}:// takes the library fsspec: pip install 'featurestore[object-stores]'") from error
    # Of the wrapper's own reading of URLs the container of Azure's is not a part.
    strip = classmethod(lambda _, path: str(path).rpartition("://")[2])
    return type("ObjectStore", (ArrowFSWrapper,), {"protocol": scheme, "cachable": False, "_strip_protocol": strip})
