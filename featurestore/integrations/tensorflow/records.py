"""Training sets as TFRecord files of `tf.Example`s, written without TensorFlow, with their manifest beside them.

A record is its length (8 bytes), a checksum of that, the example, and a checksum of it: CRC-32C, rotated and shifted, as
TensorFlow has them.
"""

from __future__ import annotations

import gzip
import json
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

from featurestore.declare.problems import shown
from featurestore.durable.checksums import signed
from featurestore.durable.disk import replace, sync, told
from featurestore.durable.temporary import TemporaryFolder
from featurestore.errors import FeatureStoreError, ManifestError, MissingPackageError, RequestError
from featurestore.integrations.opened import StorePath, opened
from featurestore.integrations.tensorflow.examples import Examples, WrittenColumn
from featurestore.integrations.tensorflow.training_rows import Training, TrainingRows
from featurestore.plurals import plural
from featurestore.registry.kept_statistics import GatheredFeatures
from featurestore.report import Report, Reported, ReportTable
from featurestore.sources.source_files import again
from featurestore.store import FeatureStore
from featurestore.training.manifest import Manifest, load_manifest
from featurestore.training.training_frame import TrainingFrame, manifest_beside, writable_target
from featurestore.types import FeatureType, parse_type

RECORDS = "tfrecord"
"""Under which word of the manifest it is said what the files are."""

FORMAT = 1
Compression = Literal["gzip"]
GZIP_LEVEL = 6


class RecordFile(NamedTuple):
    """One of the files: its name, and how many records and bytes it has."""

    name: str
    rows: int
    bytes: int


@dataclass(frozen=True)
class WrittenRecords(Reported):
    """What was written, and what became of the values by that."""

    path: str
    files: tuple[RecordFile, ...]
    rows: int
    compression: Compression | None
    columns: tuple[WrittenColumn, ...]

    def column(self, name: str) -> WrittenColumn:
        """What became of a column; KeyError where there is none of the name."""
        return {column.name: column for column in self.columns}[name]

    def report(self) -> Report:
        """A line for each column, and below it what float32 changed."""
        header = (
            "column",
            "type",
            "became",
            "values",
            "null",
            "rounded",
            "largest error",
            "to infinity",
            "to zero",
            "beyond float32",
        )
        rows = [
            (
                column.name, column.type, f"{column.kind}: {column.said_as}", column.values, column.nulls, column.rounded,
                column.largest_error if column.rounded else None, column.to_infinity, column.to_zero, column.beyond_float32,
            )
            for column in self.columns
        ]  # fmt: skip
        return Report(
            f"{self.path}: {self.rows} {plural(self.rows, 'example')} in {len(self.files)} {plural(len(self.files), 'file')}",
            [ReportTable(header, rows)],
        )


def to_tfrecord(
    training: Training, path: str | Path, *, columns: Sequence[str] | None = None, rows_per_file: int | None = None,
    compression: Compression | None = None,
) -> WrittenRecords:  # fmt: skip
    """Write a training set as `tf.Example`s, batch by batch, and its manifest beside it, as `<path>.manifest.json`.

    training: a frame, the Parquet file that it was written to, or its Arrow table. columns: these and no others. rows_per_file: so many in each file,
    of which there are several then, `<path>-00000-of-00003` and so on. What lay there before stays until all is written; a file
    under a final name is whole, and without a manifest it is none of a whole set. Raises RequestError for what has no form in
    a `tf.Example`, ManifestError for what is no training set of ours, FeatureStoreError where the disk is full or read-only.
    """
    target = writable_target(path, "The set of records")
    if compression not in (None, "gzip"):
        raise RequestError(f"compression is 'gzip', or None, and not {shown(compression)}")
    if rows_per_file is not None and (type(rows_per_file) is not int or rows_per_file < 1):
        raise RequestError(f"rows_per_file is a whole number from 1 on, and not {shown(rows_per_file)}")
    _Framing()
    load_manifest(training)  # which refuse, both, before anything is answered or written
    rows = TrainingRows(training, columns)
    try:
        written, gathered = again(lambda: _written(rows, target, rows_per_file, compression))
    except OSError as error:
        raise FeatureStoreError(f"The set of records cannot be written: {told(error, target)}") from error
    if isinstance(training, TrainingFrame) and training.on_written is not None:
        training.on_written(target, training.manifest, gathered)
    return written


def _written(
    rows: TrainingRows, target: Path, rows_per_file: int | None, compression: Compression | None
) -> tuple[WrittenRecords, GatheredFeatures | None]:
    """What was written, and of a frame the statistics of its features that are in it."""
    folder = TemporaryFolder(target.parent)
    try:
        opened_rows = rows.opened()
        examples = Examples(opened_rows.types)
        frame = rows.training if isinstance(rows.training, TrainingFrame) else None
        gathering = None if frame is None or frame.gather is None else frame.gather(opened_rows.types)
        with _RecordWriter(folder.path, rows_per_file, compression) as writer:
            for batch in opened_rows.batches:
                writer.add(examples.of(batch))
                if gathering is not None:
                    gathering.add(batch.columns, batch.rows)
        names = [target.name]
        if rows_per_file is not None:
            names = [f"{target.name}-{place:05}-of-{len(writer.done):05}" for place in range(len(writer.done))]
        files = tuple(RecordFile(name, done.rows, done.bytes) for name, done in zip(names, writer.done, strict=True))
        total = sum(file.rows for file in files)
        written = WrittenRecords(str(target), files, total, compression, tuple(examples.columns))
        said = {
            "format": FORMAT,
            "compression": compression,
            "files": [file._asdict() for file in files],
            "columns": [column.to_dict() for column in examples.columns],
        }
        manifest = {**load_manifest(rows.training).raw, RECORDS: said}
        _put(target, [folder.path / done.name for done in writer.done], names, manifest)
        return written, None if gathering is None else gathering.gathered()
    finally:
        folder.remove()


def _put(target: Path, partial: Sequence[Path], names: Sequence[str], manifest: Mapping[str, Any]) -> None:
    """Put whole files in the place of what was there. In between there is no manifest, and so no set of records."""
    beside, before = manifest_beside(target), _names_before(target)
    beside.unlink(missing_ok=True)
    for file, name in zip(partial, names, strict=True):
        file.replace(target.with_name(name))
    replace(beside, json.dumps(signed(manifest), indent=2).encode() + b"\n")
    for name in before - {*names}:
        target.with_name(name).unlink(missing_ok=True)


def _names_before(target: Path) -> set[str]:
    """The files of the set that was written there before."""
    own = re.compile(re.escape(target.name) + r"(-\d{5,}-of-\d{5,})?")
    try:
        files = json.loads(manifest_beside(target).read_text())[RECORDS]["files"]
        return {name for file in files if own.fullmatch(name := file["name"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


class _RecordWriter:
    """Writes records into files 0, 1, … of a folder, each of so many records. done: those that are whole."""

    def __init__(self, folder: Path, rows_per_file: int | None, compression: Compression | None) -> None:
        self.done: list[RecordFile] = []
        self._folder, self._rows_per_file, self._compression = folder, rows_per_file, compression
        self._framing, self._rows = _Framing(), 0
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self._close()
        else:
            self._stack.close()

    def add(self, examples: Sequence[bytes]) -> None:
        """Write each as a record."""
        records = list(map(self._framing.record, examples))
        while self._rows_per_file is not None and self._rows + len(records) > self._rows_per_file:
            fits = self._rows_per_file - self._rows
            self._write(records[:fits])
            del records[:fits]
            self._close()
            self._open()
        self._write(records)

    def _write(self, records: Sequence[bytes]) -> None:
        self._file.write(b"".join(records))
        self._rows += len(records)

    def _open(self) -> None:
        self._stack, self._rows = ExitStack(), 0
        self._plain = self._stack.enter_context((self._folder / str(len(self.done))).open("wb"))
        self._file: Any = self._plain
        if self._compression == "gzip":  # without name and time, so that equal rows are equal files
            self._file = self._stack.enter_context(gzip.GzipFile("", "wb", GZIP_LEVEL, self._plain, mtime=0))

    def _close(self) -> None:
        if self._file is not self._plain:
            self._file.close()
        self._plain.flush()
        sync(self._plain.fileno())
        self.done.append(RecordFile(str(len(self.done)), self._rows, self._plain.tell()))
        self._stack.close()


class _Framing:
    """Puts an example between what a record has before and behind it. Raises MissingPackageError."""

    def __init__(self) -> None:
        try:
            from google_crc32c import value
        except ModuleNotFoundError as error:
            raise MissingPackageError(f"TFRecords need {error.name}: pip install 'featurestore[tfrecord]'") from error
        self._checksum: Callable[[bytes], int] = value
        self._head = lru_cache(1 << 16)(self._new_head)

    def record(self, example: bytes) -> bytes:
        """The record of an example."""
        return b"".join((self._head(len(example)), example, self._masked(example)))

    def _new_head(self, size: int) -> bytes:
        length = struct.pack("<Q", size)
        return length + self._masked(length)

    def _masked(self, data: bytes) -> bytes:
        check = self._checksum(data)
        return struct.pack("<I", ((check >> 15 | check << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@dataclass(frozen=True)
class RecordSet:
    """A set of records that was written whole."""

    manifest: Manifest
    """Of the training set that they are."""
    files: tuple[str, ...]
    """Their paths, in order: what `tf.data.TFRecordDataset` takes."""
    compression_type: Literal["", "GZIP"]
    """How they are packed, in TensorFlow's words."""
    rows: int
    types: dict[str, FeatureType | None]
    """By name the type of each column. None: it was null throughout, and had none."""
    columns: tuple[WrittenColumn, ...]
    """What became of each column's values."""


def open_tfrecord(path: str | Path, *, store: FeatureStore | StorePath | None = None) -> RecordSet:
    """The set of records that `to_tfrecord` wrote under this path.

    store: whose definitions at hand are to be those that the records are of; FingerprintError, with what changed, where they are
    others. Raises ManifestError where there is no such set, or a file of it is missing or of another size.
    """
    if not isinstance(path, (str, Path)):
        raise ManifestError(f"A set of records is opened by its path, and not by {shown(path)}")
    target = Path(path)
    manifest = load_manifest(target)
    said = manifest.raw.get(RECORDS)
    if said is None:
        raise ManifestError(f"{manifest.origin} is of a training set, and of no records; to_tfrecord writes them")
    if isinstance(said, Mapping) and said.get("format") != FORMAT:
        raise ManifestError(
            f"{manifest.origin} is of records of format {said.get('format')}, and this version reads {FORMAT}"
        )
    try:
        files = [RecordFile(**file) for file in said["files"]]
        columns = tuple(WrittenColumn(**column) for column in said["columns"])
        types = {one.name: None if one.type is None else parse_type(one.type) for one in columns}
        compression: Literal["", "GZIP"] = {None: "", "gzip": "GZIP"}[said["compression"]]  # type: ignore[assignment]  # one of the two that are known
        paths = [target.parent / Path(file.name).name for file in files]
    except (KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{manifest.origin} is damaged, or was changed by hand: {shown(str(error))}") from None
    for file, place in zip(files, paths, strict=True):
        size = place.stat().st_size if place.is_file() else None
        if size != file.bytes:
            state = (
                "is not there"
                if size is None
                else f"has {size} {plural(size, 'byte')}, and was written with {file.bytes}"
            )
            raise ManifestError(f"{place} {state}; write the set of records anew")
    if store is not None:
        opened(store).check_manifest(manifest).refuse_others(str(target))
    return RecordSet(manifest, tuple(map(str, paths)), compression, sum(file.rows for file in files), types, columns)
