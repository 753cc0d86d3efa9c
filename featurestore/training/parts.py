"""Frames that are too large to be made at once: a folder of Parquet files, each with some of the rows, made one by one.

    DIR/_plan.json             what is made, and of what: service, options, files as they were listed once, rows of a part
    DIR/_keys.parquet          of a snapshot every key, in order
    DIR/_locks/NUMBER          held by the process that makes a part
    DIR/part-NUMBER-NAME.parquet   a part: there as a whole or not at all, named by all that it is made of
    DIR.manifest.json          what all parts were made of, and what they count together; written last

A process that is asked for the same frame in the same folder goes on with what is there, in as many processes as are started.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import orjson

from featurestore.clock import to_datetime
from featurestore.declare.sources import DataFrameSource, is_url
from featurestore.durable.checksums import check_of, decoded, encoded
from featurestore.durable.disk import replace, told
from featurestore.durable.lock import BusyError, attempt, exclusive
from featurestore.durable.own_folder import own_folder
from featurestore.durable.parquet import parquet_file, restored
from featurestore.errors import FeatureStoreError, FilesChangedError, RequestError
from featurestore.lazy import pa, pq
from featurestore.plurals import plural
from featurestore.registry.frames import named_columns
from featurestore.registry.kept_statistics import StatisticsKeeper
from featurestore.registry.store import Registry
from featurestore.semantics.service import ResolvedService
from featurestore.sources.offline import Offline
from featurestore.sources.source_files import SourceFile
from featurestore.training.historical import Listing, get_historical_features, listing_of, manifest_of
from featurestore.training.kernel import Options
from featurestore.training.manifest import Manifest, library_versions, load_manifest
from featurestore.training.pinned import check_footers, pinned_listing
from featurestore.training.snapshot import check_snapshot, keys_at, write_keys
from featurestore.training.spine import SpineFiles, SpineRows, chunks_of
from featurestore.training.spine_table import load_chunk
from featurestore.training.training_frame import TrainingFrame, check_names, described_frame, enter, manifest_beside

FORMAT = 1
"""Of the plan, and of how parts are named."""

PLAN, KEYS, LOCKS = "_plan.json", "_keys.parquet", "_locks"

PART_ROWS = 1_000_000

WAIT_SECONDS = 30 * 86_400.0
"""For how long a part is waited for that another process makes."""


class Instead(Protocol):
    """What puts other values in place of those of the query, frame by frame, and counts what it did in the manifest."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it adds."""

    @property
    def option(self) -> Any:
        """What tells it from others, as plain JSON."""

    def frame(self, frame: TrainingFrame) -> TrainingFrame:
        """The frame with other values."""

    def count(self, manifest: dict[str, Any], parts: Sequence[Mapping[str, Any]]) -> None:
        """Enter in the manifest of all parts what those of the parts tell."""


class FramePart(NamedTuple):
    """Consecutive rows of the spine, or of a snapshot keys at instants (µs)."""

    first: int
    """Of the spine its first row, of the keys the first one."""

    length: int
    at: tuple[int, ...] = ()

    @property
    def rows(self) -> int:
        """How many rows the part has."""
        return self.length * len(self.at) if self.at else self.length


@dataclass(frozen=True)
class WrittenParts:
    """What was written."""

    folder: Path
    """Where the parts lie."""

    manifest: dict[str, Any]
    """What all parts were made of, and count together, as plain JSON; also beside the folder."""

    made: int
    """The parts that this call made; the others were there."""

    def batches(self, service: ResolvedService) -> Iterator[pa.RecordBatch]:
        """The service's columns of all parts, read again. Raises OSError."""
        names = [column.name for column in service.columns]
        for part in self.manifest["parts"]:
            with parquet_file(str(self.folder / part["name"])) as file:
                for batch in file.iter_batches(columns=names):
                    yield from restored(pa.Table.from_batches([batch])).to_batches()


def historical_parts(  # noqa: PLR0913 - as many as it is asked with
    folder: Path, spine: str | Path, service: ResolvedService, offline: Offline, *, now: int, options: Options,
    part_rows: int = PART_ROWS, instead: Instead | None = None, sources_as_in: Any = None,
) -> WrittenParts:  # fmt: skip
    """Write the training frame of a spine, a Parquet file or folder, in parts of so many of its rows.

    instead: other values than the query's. sources_as_in: the manifest whose files are read, or what holds one; None: those of now. Raises what `get_historical_features` raises, and FeatureStoreError where the folder holds another frame, or what that
    is made of has changed.
    """
    files = SpineFiles.of(spine)
    spine_files = [
        [file.path if is_url(file.path) else str(Path(file.path).resolve()), *file[1:]] for file in files.files
    ]
    asked = {
        "spine": spine_files,
        "part_rows": whole_rows(part_rows),
        "from_log": None if instead is None else instead.option,
    }
    work = _Work(folder, service, offline, options, instead, _manifest_of(sources_as_in))

    def parts(_: Mapping[str, Any]) -> Iterator[FramePart]:
        return (
            FramePart(first, min(part_rows, files.rows - first)) for first in range(0, max(1, files.rows), part_rows)
        )

    def rows(part: FramePart) -> SpineRows:
        return SpineRows(lambda: files.read(part.first, part.length), part.first)

    def begin(listing: Listing) -> dict[str, Any]:
        work.check(rows(FramePart(0, 0)), listing, now)
        return {}

    return work.run(asked, now=now, begin=begin, parts=parts, rows=rows)


def snapshot_parts(  # noqa: PLR0913 - as many as it is asked with
    folder: Path, service: ResolvedService, offline: Offline, *, at: Sequence[int], now: int, options: Options,
    part_rows: int = PART_ROWS, sources_as_in: Any = None,
) -> WrittenParts:  # fmt: skip
    """Write the values of every key at each of `at` (µs): several instants a part where keys are few, else a range of keys at
    one instant. sources_as_in: as for `historical_parts`. Raises as `historical_parts`, and as `snapshot`."""
    check_snapshot(service)
    if not at:
        raise RequestError("at: a snapshot needs an instant, or several")
    asked = {"at": list(at), "part_rows": whole_rows(part_rows)}
    work = _Work(folder, service, offline, options, sources_as_in=_manifest_of(sources_as_in))
    keys_file = folder / KEYS

    def begin(listing: Listing) -> dict[str, Any]:
        count = write_keys(service, offline, listing, keys_file)
        work.check(rows(FramePart(0, 0, tuple(at[:1]))), listing, now)
        return {"keys": count, "keys_check": check_of(keys_file)}

    def parts(plan: Mapping[str, Any]) -> Iterator[FramePart]:
        keys = plan["keys"]
        if check_of(keys_file) != plan["keys_check"]:
            raise FeatureStoreError(f"{keys_file} is damaged, or was changed; write the frame to another folder")
        together = max(1, part_rows // max(1, keys))
        for chosen in (tuple(at[start : start + together]) for start in range(0, len(at), together)):
            for first in range(0, max(1, keys), part_rows):
                yield FramePart(first, min(part_rows, keys - first), chosen)

    def rows(part: FramePart) -> SpineRows:
        return SpineRows(lambda: keys_at(service, SpineFiles.of(keys_file).read(part.first, part.length), part.at), 0)

    return work.run(asked, now=now, begin=begin, parts=parts, rows=rows)


def entered(
    written: WrittenParts, service: ResolvedService, registry: Registry, statistics: StatisticsKeeper, *, now: int
) -> WrittenParts:
    """A frame in parts that was written by `now` (µs), which the registry has from now on, with its statistics where any are kept."""
    enter(written.folder, written.manifest, service, registry, now)
    gathering = statistics.gather(named_columns(service))
    if gathering is not None:
        gathering.add_all(written.batches(service))
        statistics.keep(described_frame(written.folder, service, gathering.gathered(), statistics, now))
    return written


def check_part_rows(part_rows: Any) -> None:
    """RequestError where a caller says how many rows a part has, and that is no number of rows."""
    if part_rows is not None:
        whole_rows(part_rows)


def _manifest_of(sources_as_in: Any) -> Manifest | None:
    return None if sources_as_in is None else load_manifest(sources_as_in)


def whole_rows(part_rows: Any) -> int:
    """How many rows a part has, as a caller says it; RequestError where that is no number of rows."""
    if type(part_rows) is not int or part_rows < 1:
        raise RequestError(f"part_rows is a number of rows, 1 or more, and not {part_rows!r}")
    return part_rows


@dataclass(frozen=True)
class _Work:
    """A frame that is made in a folder."""

    folder: Path
    service: ResolvedService
    offline: Offline
    options: Options
    instead: Instead | None = None
    sources_as_in: Manifest | None = None

    def run(
        self, asked: Mapping[str, Any], *, now: int, begin: Callable[[Listing], dict[str, Any]],
        parts: Callable[[Mapping[str, Any]], Iterator[FramePart]], rows: Callable[[FramePart], SpineRows],
    ) -> WrittenParts:  # fmt: skip
        """Make the parts that are missing, and the manifest of all."""
        try:
            own_folder(self.folder)
            own_folder(self.folder / LOCKS)
            with self._alone("planning parts of a frame"):
                plan = self._plan(asked, now, begin)
            listing = self._listing(plan)
            of = _digest(plan)
            named = [
                (number, part, self.folder / f"part-{number:06}-{_digest([of, part._asdict()])}.parquet")
                for number, part in enumerate(parts(plan))
            ]
            made = self._make(plan, listing, named, rows)
            with self._alone("counting the parts of a frame"):
                return WrittenParts(self.folder, self._finish(plan, named), made)
        except OSError as error:
            raise FeatureStoreError(f"The parts of a frame cannot be written: {told(error, self.folder)}") from error
        except BusyError as error:
            raise FeatureStoreError(f"A part of the frame is not made: {error}") from error

    def _alone(self, doing: str) -> AbstractContextManager[None]:
        """No other process plans or counts meanwhile."""
        return exclusive(self.folder / LOCKS / "plan", doing=doing, wait_seconds=WAIT_SECONDS)

    def _plan(self, asked: Mapping[str, Any], now: int, begin: Callable[[Listing], dict[str, Any]]) -> dict[str, Any]:
        """What the folder's plan says, which is made where there is none. FeatureStoreError where it is another one."""
        wanted = {
            "format": FORMAT, "service": self.service.name, "fingerprint": self.service.fingerprint,
            "options": self.options.__dict__, "versions": library_versions(), "sources_as_in": self._asked_sources, **asked,
        }  # fmt: skip
        wanted = orjson.loads(orjson.dumps(wanted))
        path = self.folder / PLAN
        if not path.exists():
            others = sorted(item.name for item in self.folder.iterdir() if item.name[0] not in "_.")
            if others:
                raise FeatureStoreError(
                    f"{self.folder} holds {others[0]}, and no plan of a frame: name a folder that is empty, or not there"
                )
            listing = (
                listing_of(self.service, self.offline)
                if self.sources_as_in is None
                else pinned_listing(self.service, self.offline, self.sources_as_in)
            )
            files = {name: [list(file) for file in of] for name, of in listing.items()}
            sources = manifest_of(self.service, self.offline, listing, now=now, options=self.options)["sources"]
            plan = {**wanted, "now": now, "files": files, "sources": sources, **begin(listing)}
            replace(path, encoded(plan, indent=True))
            return plan
        try:
            plan = decoded(path.read_bytes())
        except ValueError as error:
            raise FeatureStoreError(f"{path} is damaged ({error}): write the frame to another folder") from None
        odd = [word for word in wanted if plan.get(word) != wanted[word]]
        if odd:
            raise FeatureStoreError(
                f"{self.folder} holds the parts of another frame: its {', '.join(map(_said, odd))} {_differ(plan, wanted, odd[0])}. What "
                "is there stays; write this one to another folder, or remove that one"
            )
        return plan

    @property
    def _asked_sources(self) -> str | None:
        """What tells the files that a manifest names from those of another; None where those of now are read."""
        if self.sources_as_in is None:
            return None
        names = {part.view.source.name for part in self.service.parts}
        return _digest({name: of for name, of in self.sources_as_in.sources.items() if name in names})

    def check(self, spine: SpineRows, listing: Listing, now: int) -> None:
        """Raises what is wrong with the words, and with a spine's columns, before anything is written."""
        get_historical_features(spine, self.service, self.offline, now=now, options=self.options, listing=listing)
        chunk = next(chunks_of(spine))
        with self.offline.session() as session:
            load_chunk(
                session.connection, chunk, timestamp=self.options.timestamp, timezone=self.options.zone,
                inputs=self.service.inputs, from_pandas=False,
            )  # fmt: skip
        added = () if self.instead is None else self.instead.columns
        check_names(chunk.table.column_names, [*(column.name for column in self.service.columns), *added])

    def _listing(self, plan: Mapping[str, Any]) -> Listing:
        """The files of the plan, which are there as they were."""
        listing = {name: tuple(SourceFile(*file) for file in files) for name, files in plan["files"].items()}
        try:
            for part in self.service.parts:
                source = part.view.source
                self.offline.check_unchanged(source, listing[source.name])
                check_footers(source, listing[source.name], plan["sources"][source.name], "the folder was begun")
                if isinstance(source, DataFrameSource) and self.offline.files(source) != listing[source.name]:
                    raise FilesChangedError(f"{source.title} has other rows ({source.origin})")
        except FilesChangedError as error:
            raise FilesChangedError(
                f"{self.folder} cannot be gone on with, since its parts would be of different files: {error}. Write the frame to "
                "another folder"
            ) from error
        return listing

    def _make(
        self, plan: Mapping[str, Any], listing: Listing, named: Sequence[tuple[int, FramePart, Path]],
        rows: Callable[[FramePart], SpineRows],
    ) -> int:  # fmt: skip
        """Make the parts that nobody makes, and then those that somebody began and did not end."""
        made, held = 0, []

        def missing(part: FramePart, path: Path) -> int:
            if path.exists():
                return 0
            frame = get_historical_features(
                rows(part), self.service, self.offline, now=plan["now"], options=self.options, listing=listing
            )
            (frame if self.instead is None else self.instead.frame(frame)).to_part(path)
            return 1

        for number, part, path in named:
            if path.exists():
                continue
            with attempt(self.folder / LOCKS / str(number), doing=f"making {path}") as alone:
                if alone:
                    made += missing(part, path)
                else:
                    held.append((number, part, path))
        for number, part, path in held:
            with exclusive(self.folder / LOCKS / str(number), doing=f"making {path}", wait_seconds=WAIT_SECONDS):
                made += missing(part, path)
        return made

    def _finish(self, plan: Mapping[str, Any], named: Sequence[tuple[int, FramePart, Path]]) -> dict[str, Any]:
        """The manifest of all parts, written beside the folder."""
        every = [_counted(path, part) for _, part, path in named]
        manifest = {
            **every[0],
            "created": to_datetime(plan["now"]).isoformat(),
            "rows": sum(one["rows"] for one in every),
        }
        manifest["sources"] = plan["sources"]
        for word in ("conflicts", "spine_rows_past_the_last_complete_instant"):
            manifest[word] = {name: sum(one[word][name] for one in every) for name in every[0][word]}
        manifest["notices"] = list(dict.fromkeys(notice for one in every for notice in one["notices"]))
        if self.instead is not None:
            self.instead.count(manifest, every)
        manifest["parts"] = [
            {"name": path.name, "rows": one["rows"], "crc32": check_of(path)}
            for (_, _, path), one in zip(named, every, strict=True)
        ]
        replace(manifest_beside(self.folder), encoded(manifest, indent=True))
        return manifest


def _digest(of: Any) -> str:
    return hashlib.blake2b(orjson.dumps(of, option=orjson.OPT_SORT_KEYS), digest_size=8).hexdigest()


def _counted(path: Path, part: FramePart) -> dict[str, Any]:
    """The manifest of a part, which is whole."""
    try:
        rows = pq.ParquetFile(path).metadata.num_rows
        found = dict(load_manifest(path).raw)
    except (pa.ArrowException, FeatureStoreError) as error:
        raise FeatureStoreError(f"{path} is damaged: {error}. Remove it, and it is made again") from error
    if rows != part.rows:
        raise FeatureStoreError(
            f"{path} has {rows} {plural(rows, 'row')}, and is to have {part.rows}. Remove it, and it is made again"
        )
    return found


def _said(word: str) -> str:
    said = {"at": "instants", "versions": "libraries", "spine": "spine's files", "part_rows": "rows a part"}
    return {**said, "sources_as_in": "sources_as_in (a digest of what the manifest names)"}.get(word, word)


def _differ(plan: Mapping[str, Any], wanted: Mapping[str, Any], word: str) -> str:
    """How the first word differs, where that is short."""
    before, now = plan.get(word), wanted[word]
    if isinstance(before, dict) and isinstance(now, dict):
        name = next(name for name in {**before, **now} if before.get(name) != now.get(name))
        before, now = f"{name} {before.get(name)}", f"{name} {now.get(name)}"
    return f"were {before}, and are {now}" if len(f"{before}{now}") < 200 else "differ"
