"""Training frames: the spine as it came, the service's features beside it, and the manifest of how they were made."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from featurestore.declare.arguments import checked
from featurestore.declare.durations import asked_duration, asked_moment
from featurestore.declare.frames import own_cells
from featurestore.declare.problems import shown
from featurestore.declare.sources import is_url, no_path
from featurestore.durable.checksums import signed
from featurestore.durable.disk import replacing, sync, sync_folder, write_file
from featurestore.durable.disk import told as os_words
from featurestore.durable.parquet import local, storable, storable_schema
from featurestore.durable.temporary import TemporaryFolder
from featurestore.elsewhere import counterparts
from featurestore.errors import FeatureStoreError, RegistryError, RequestError, SpineError
from featurestore.lazy import pa, pc, pd, pq
from featurestore.plurals import plural
from featurestore.registry.frames import WrittenFrame, feature_id, named_columns, on_demand_id
from featurestore.registry.kept_statistics import GatheredFeatures, Gathering, StatisticsKeeper
from featurestore.registry.statistics_table import Described
from featurestore.registry.store import Registry
from featurestore.report import Report, ReportTable
from featurestore.semantics.service import ResolvedService
from featurestore.semantics.values import chosen_columns, scalars, to_numpy, to_pandas
from featurestore.sources.object_stores import ObjectStoreError, check_writable, put
from featurestore.sources.source_files import again
from featurestore.types import FeatureType

SHOWN_ROWS, SHOWN_COLUMNS = 10, 20
"""How much of a frame is shown where it is printed."""

BESIDE = ".manifest.json"
MANIFEST_KEY = b"featurestore.manifest"
"""Where a frame's manifest is in the metadata of its schema."""


@overload
def manifest_beside(place: Path) -> Path: ...
@overload
def manifest_beside(place: str) -> str: ...
@overload
def manifest_beside(place: Path | str) -> Path | str: ...
def manifest_beside(place: Path | str) -> Path | str:
    """Where the manifest of a Parquet file is written beside it. place: its path, or its URL in an object store as text."""
    if isinstance(place, Path):
        return place.with_name(place.name + BESIDE)
    return place + BESIDE


def writable_target(path: Any, title: str) -> Path:
    """A path that a file can be written to; FeatureStoreError, with the title of what is to be written, where it is none."""
    if not isinstance(path, (str, Path)) or "\0" in str(path):
        held = ", as it holds a NUL" if isinstance(path, (str, Path)) else ""
        raise FeatureStoreError(f"{title} cannot be written: {shown(path)} is no path{held}")
    problem, target = no_path(str(path)), Path(path)
    problem = f"its path {problem}" if problem is not None and not str(path) else problem
    if problem is None and target.is_dir():
        problem = f"{target} is a folder, and a file is to be written"
    elif problem is None and not target.parent.is_dir():
        problem = f"{target}: there is no folder {target.parent}"
    if problem is not None:
        raise FeatureStoreError(f"{title} cannot be written: {problem}")
    return target


def writable_folder(path: Any) -> Path:
    """A folder that parts can be written to, which need not be there; FeatureStoreError where it is none."""
    if not isinstance(path, (str, Path)):
        raise FeatureStoreError(f"The training frame cannot be written: {shown(path)} is no path")
    if not Path(path).name or (Path(path).exists() and not Path(path).is_dir()):
        raise FeatureStoreError(f"The training frame cannot be written: {shown(str(path))} is no folder")
    writable_target(manifest_beside(Path(path)), "The training frame")
    return Path(path)


@dataclass(frozen=True)
class Block:
    """Consecutive rows: the spine's columns, the features', the extra columns asked for, and each row's instant in µs."""

    spine: pa.Table
    features: dict[str, pa.Array]
    extra: dict[str, pa.Array]
    instants: npt.NDArray[np.int64]

    def table(self) -> pa.Table:
        """All columns side by side."""
        columns = dict(zip(self.spine.column_names, self.spine.columns, strict=True))
        return pa.table({**columns, **self.features, **self.extra})


@dataclass(frozen=True)
class _Again:
    """Gives one block, as often as it is asked."""

    block: Block

    def __call__(self) -> Iterator[Block]:
        return iter((self.block,))


@counterparts
@dataclass
class TrainingFrame:
    """The rows of a spine with the features of a service; made by `get_historical_features`.

    Every spine row comes back once, in order. A spine in memory is answered when the frame is made; one that is a path
    or a DuckDB relation when the frame is read, chunk by chunk, so that `to_parquet` never holds it all.
    """

    types: dict[str, FeatureType]
    """By name the type of each feature column, in order."""
    manifest: dict[str, Any]
    """What the frame was made of, as plain JSON; see Manifest."""
    blocks: Callable[[], Iterator[Block]] = field(repr=False)
    """Gives the rows anew, chunk by chunk."""
    pandas: Any = field(default=None, repr=False)
    """The pandas spine, whose index and dtypes come back. None: the spine was none."""
    _whole: Block | None = field(default=None, repr=False)
    on_written: Callable[[Path | str, dict[str, Any], GatheredFeatures | None], object] | None = field(
        default=None, repr=False
    )
    """Called with the path or URL, the manifest and the statistics of each file that is written, which enters it in the registry.
    None: it is entered nowhere."""
    gather: Callable[[Collection[str]], Gathering | None] | None = field(default=None, repr=False)
    """Begins to gather the statistics of those of its features that a file has, by the names of their columns. None: nobody does."""
    once: bool = field(default=False, repr=False)
    """Whether `blocks` can be asked for a single time."""

    def _block(self) -> Block:
        if self._whole is None:
            blocks = list(self.blocks()) if self.once else again(lambda: list(self.blocks()))
            self._whole = blocks[0] if len(blocks) == 1 else _joined(blocks)
        return self._whole

    def read_blocks(self) -> Iterator[Block]:
        """The rows, chunk by chunk: those in memory, where they are, else anew."""
        return iter((self._whole,)) if self._whole is not None else self.blocks()

    @property
    def is_answered(self) -> bool:
        """Whether its rows are in memory; else they are answered each time that it is read, or when it is first asked for them
        as a whole."""
        return self._whole is not None

    def __copy__(self) -> TrainingFrame:
        return replace(self)

    def __reduce__(self) -> tuple[Any, ...]:
        """With all its rows, which are read for it. What is written elsewhere is not entered in this project's registry."""
        block = self._block()
        return TrainingFrame, (self.types, self.manifest, _Again(block), self.pandas, block)

    def __len__(self) -> int:
        return int(self._block().spine.num_rows)

    def to_arrow(self) -> pa.Table:
        """An Arrow table: the spine's columns, then the features; the manifest is in its schema's metadata."""
        return self._stamped(self._block().table())

    def to_reader(self) -> pa.RecordBatchReader:
        """The rows of `to_arrow` as a stream that is read once, chunk by chunk; of a spine that is a path or a DuckDB relation
        it never holds them all. Then FilesChangedError where a file changed while it was read."""
        tables = (block.table() for block in self.read_blocks())
        first = next(tables)  # there is a block even where there is no row
        batches = (batch for table in itertools.chain([first], tables) for batch in table.to_batches())
        return pa.RecordBatchReader.from_batches(first.schema, batches)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The Arrow PyCapsule interface: `polars.DataFrame(frame)` and the like."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)

    @checked
    def to_pandas(self, *, dtypes: Literal["arrow", "numpy"] = "arrow") -> pd.DataFrame:
        """A pandas frame; a pandas spine comes back with its own index, columns and dtypes.

        dtypes: of the feature columns; see `features`.
        """
        block = self._block()
        added = self._pandas(block, dtypes)
        if self.pandas is not None:
            left = own_cells(self.pandas)
            added.index = left.index
        else:
            left = block.spine.to_pandas(types_mapper=pd.ArrowDtype)
        frame: pd.DataFrame = pd.concat([left, added], axis=1)
        return frame

    def _pandas(self, block: Block, dtypes: Literal["arrow", "numpy"]) -> pd.DataFrame:
        features = to_pandas(block.features, self.types, dtypes=dtypes)
        if not block.extra:
            return features
        extra: pd.DataFrame = pa.table(block.extra).to_pandas(types_mapper=pd.ArrowDtype)
        return pd.concat([features, extra], axis=1)

    @property
    def notices(self) -> tuple[str, ...]:
        """What is to be known of how the spine was read; of one that is a path, once the frame was read."""
        return tuple(self.manifest.get("notices", ()))

    @property
    def features(self) -> pd.DataFrame:
        """The service's columns alone, in its order: what a model is fitted on, and what serving hands to it."""
        frame = to_pandas(self._block().features, self.types)
        if self.pandas is not None:
            frame.index = self.pandas.index.copy()
        return frame

    @checked
    def to_numpy(
        self, dtype: npt.DTypeLike | None = None, *, columns: Sequence[str] | None = None, expand: bool = False
    ) -> npt.NDArray[Any]:
        """A matrix (rows, features) of the service's columns; null is NaN. float64 unless `dtype` says otherwise.

        columns: only these, in this order. expand: an array of fixed length n is n columns.
        """
        chosen = chosen_columns(self._block().features, columns)
        return to_numpy(chosen, self.types, dtype=dtype, expand=expand, rows=len(self))

    def to_parquet(self, path: str | Path, *, group_rows: int | None = None) -> Path | str:
        """Write the frame chunk by chunk, its manifest into the file and beside it as `<path>.manifest.json`.

        path: of a file, or the URL of one in an object store, as text; it is returned. What lay there before stays until all is
        written: a file for a store is first written where the system keeps temporary ones. group_rows: how many rows a row
        group has at most, which is what readers read at once; some 1,000,000 where it is not said. FeatureStoreError where the
        disk is full, or read-only, or the store refuses it.
        """
        if group_rows is not None and (type(group_rows) is not int or group_rows < 1):
            raise RequestError(f"group_rows is a number of rows, 1 or more, and not {shown(group_rows)}")
        target: Path | str
        if isinstance(path, str) and is_url(path):
            gathered = self._put_in_store(path, group_rows)
            target = path
        else:
            target = writable_target(path, "The training frame")
            try:
                gathered = self._put(target, group_rows)
            except OSError as error:
                raise FeatureStoreError(f"The training frame cannot be written: {os_words(error, target)}") from error
        if self.on_written is not None:
            self.on_written(target, self.manifest, gathered)
        return target

    def _put(self, target: Path, group_rows: int | None) -> GatheredFeatures | None:
        partial = target.with_name(target.name + ".partial")
        try:
            gathered = (
                self._write(partial, group_rows) if self.once else again(lambda: self._write(partial, group_rows))
            )
            with replacing(manifest_beside(target), _manifest_text(self.manifest).encode(), mode=0o666):
                partial.replace(target)
        finally:
            if partial.exists():
                partial.unlink()
        return gathered

    def _put_in_store(self, url: str, group_rows: int | None) -> GatheredFeatures | None:
        """Write the files of a frame on this machine, and then put each to its place, the manifest last."""
        folder: TemporaryFolder | None = None
        try:
            check_writable(url)
            folder = TemporaryFolder()
            file = folder.path / "frame.parquet"
            gathered = self._put(file, group_rows)
            put(url, file)
            put(manifest_beside(url), manifest_beside(file))
        except ObjectStoreError as error:
            raise FeatureStoreError(f"The training frame cannot be written: {error}") from error
        except OSError as error:
            within = Path(tempfile.gettempdir()) if folder is None else folder.path
            raise FeatureStoreError(f"The training frame cannot be written: {os_words(error, within)}") from error
        finally:
            if folder is not None:
                folder.remove()
        return gathered

    def to_part(self, path: Path) -> None:
        """Write the frame as `to_parquet` does, without a manifest beside it; it is on the disk when this returns, and nothing has its
        name before that. Raises OSError."""
        path = writable_target(path, "The training frame")
        partial = path.with_name(f".{path.name}.partial")
        try:
            self._write(partial, None)
            with partial.open("rb") as file:
                sync(file.fileno())
            partial.rename(path)
            sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)

    def _write(self, path: Path, group_rows: int | None) -> GatheredFeatures | None:
        """The schema comes last, by our own hand, since the manifest in it counts all chunks. What was gathered is told."""
        writer: pq.ParquetWriter | None = None
        gathering = None if self.gather is None else self.gather(self.types)
        try:
            for block in self.read_blocks():
                table = storable(block.table())
                if writer is None:
                    writer = pq.ParquetWriter(local(path), table.schema, store_schema=False)
                writer.write_table(table, row_group_size=group_rows)
                if gathering is not None:
                    gathering.add(block.features, table.num_rows)
            assert writer is not None, "there is a block even where there is no row"
            schema = storable_schema(self._stamped(table.slice(0, 0)).schema)
            writer.add_key_value_metadata(
                {**schema.metadata, b"ARROW:schema": base64.b64encode(schema.serialize().to_pybytes())}
            )
        finally:
            if writer is not None:
                writer.close()
        return None if gathering is None else gathering.gathered()

    def _stamped(self, table: pa.Table) -> pa.Table:
        return table.replace_schema_metadata({MANIFEST_KEY: json.dumps(signed(self.manifest)).encode()})

    def split_by_time(self, at: str | datetime, *, gap: Any = "0s") -> tuple[TrainingFrame, TrainingFrame]:
        """Two frames: rows before `at`, and rows from `at` + `gap` on; rows in the gap are in neither.

        at: an aware datetime, or ISO text; naive means UTC. gap: a duration, so that labels of the first rows cannot
        overlap the second ones.
        """
        instant = asked_moment(at, "at")
        times = self._block().instants
        return self._part(times < instant), self._part(times >= instant + asked_duration(gap, "gap"))

    def _part(self, chosen: npt.NDArray[np.bool_]) -> TrainingFrame:
        block = self._block()
        mask = pa.array(chosen)
        part = Block(
            block.spine.filter(mask),
            {name: array.filter(mask) for name, array in block.features.items()},
            {name: array.filter(mask) for name, array in block.extra.items()},
            block.instants[chosen],
        )
        pandas = None if self.pandas is None else self.pandas[chosen]
        manifest = {**self.manifest, "rows": int(chosen.sum())}
        return TrainingFrame(self.types, manifest, _Again(part), pandas, part, self.on_written, self.gather)

    def __repr__(self) -> str:
        return self._report().text()

    def _repr_html_(self) -> str:
        return self._report().html()

    def _report(self) -> Report:
        """The first rows, and how many there are; of a spine that was not read yet the columns that it will have."""
        of = (
            f"Training frame of service '{self.manifest.get('service')}' ({str(self.manifest.get('fingerprint'))[:12]})"
        )
        if self._whole is None:
            return Report(f"{of}: {', '.join(self.types)}; its spine is read when the frame is")
        head = self._head(SHOWN_ROWS)
        rows = list(zip(*[scalars(column) for column in head.columns], strict=True))
        names, left = head.column_names, len(self) - len(rows)
        shown, beyond = names[:SHOWN_COLUMNS], names[SHOWN_COLUMNS:]
        parts: list[str | ReportTable] = [ReportTable(shown, [row[:SHOWN_COLUMNS] for row in rows])]
        parts += [f"… {left} more {plural(left, 'row')}"] if left else []
        parts += [f"… {len(beyond)} more {plural(len(beyond), 'column')}: {', '.join(beyond)}"] if beyond else []
        return Report(
            f"{of}: {len(self)} {plural(len(self), 'row')} × {len(names)} {plural(len(names), 'column')}",
            (*parts, *self.notices),
        )

    def _head(self, rows: int) -> pa.Table:
        block = self._block()
        first = {name: array.slice(0, rows) for name, array in {**block.features, **block.extra}.items()}
        return pa.table(
            {**dict(zip(block.spine.column_names, block.spine.slice(0, rows).columns, strict=True)), **first}
        )


def _joined(blocks: list[Block]) -> Block:
    def concat(parts: list[dict[str, pa.Array]]) -> dict[str, pa.Array]:
        return {name: pa.concat_arrays([part[name] for part in parts]) for name in parts[0]}

    return Block(
        pa.concat_tables([block.spine for block in blocks]),
        concat([block.features for block in blocks]),
        concat([block.extra for block in blocks]),
        np.concatenate([block.instants for block in blocks]),
    )


def check_names(spine: list[str], added: list[str]) -> None:
    """Refuse a spine that already has a column of a name that is about to be added."""
    clash = [name for name in added if name in spine]
    if clash:
        raise SpineError(
            f"The spine has a column '{clash[0]}', which is also the name of a feature column; rename the spine's column, "
            "or give the view an alias"
        )


def statuses_of(values: npt.NDArray[np.uint8], names: list[str]) -> pa.Array:
    """Status numbers as a dictionary column of their names."""
    return pc.cast(pa.DictionaryArray.from_arrays(pa.array(values.astype(np.int8)), pa.array(names)), pa.string())


def journalled(
    frame: TrainingFrame,
    service: ResolvedService,
    registry: Registry,
    now: Callable[[], int],
    statistics: StatisticsKeeper,
) -> TrainingFrame:
    """The frame, which enters the registry with its statistics when it is written. now: the clock (µs)."""

    def written(path: Path | str, manifest: dict[str, Any], gathered: GatheredFeatures | None) -> None:
        at = now()
        described = described_frame(path, service, gathered, statistics, at)
        enter(path, manifest, service, registry, at, lambda write: statistics.beside(write, described))

    def gather(columns: Collection[str]) -> Gathering | None:
        return statistics.gather({name: of for name, of in named_columns(service).items() if name in columns})

    frame.on_written, frame.gather = written, gather
    return frame


def described_frame(
    path: Path | str,
    service: ResolvedService,
    gathered: GatheredFeatures | None,
    statistics: StatisticsKeeper,
    now: int,
) -> Described | None:
    """The statistics of a frame that was written at `now` (µs), to be kept."""
    place = str(path.absolute() if isinstance(path, Path) else path)
    return statistics.described(
        "training_set", service.name, service.fingerprint, at=now, gathered=gathered, training_set=place
    )


def enter(
    path: Path | str, manifest: dict[str, Any], service: ResolvedService, registry: Registry, now: int,
    beside: Callable[[Callable[[Described | None], None]], None] = lambda write: write(None),
) -> None:  # fmt: skip
    """Enter a frame that was written at `now` (µs) in the registry; one that cannot be written to stops nobody. beside: writes the entry
    with statistics."""
    reads = [feature_id(part.view.name, feature.name) for part in service.parts for feature in part.features]
    reads += [on_demand_id(item.name) for item in service.on_demand]
    place = path.absolute() if isinstance(path, Path) else path
    written = WrittenFrame(
        path=str(place), service=service.name, fingerprint=service.fingerprint, rows=manifest["rows"],
        written=now, manifest=str(manifest_beside(place)), reads=tuple(reads),
    )  # fmt: skip
    with contextlib.suppress(RegistryError):
        beside(partial(registry.record_frame, written))


def write_manifest(target: Path, manifest: dict[str, Any]) -> None:
    """Write a frame's manifest beside it."""
    write_file(manifest_beside(target), _manifest_text(manifest))


def _manifest_text(manifest: dict[str, Any]) -> str:
    return json.dumps(signed(manifest), indent=2) + "\n"
