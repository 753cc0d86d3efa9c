"""A data module of PyTorch Lightning: a point-in-time training set, split by time, and the features named in each checkpoint."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from pickle import UnpicklingError
from types import FrameType
from typing import Any

import lightning
import numpy as np
import numpy.typing as npt
import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch.utils.data import DataLoader, Dataset

from featurestore.declare.frames import PYCAPSULES, content_digest, is_pandas
from featurestore.declare.problems import shown
from featurestore.declare.sources import is_url
from featurestore.durable.disk import told
from featurestore.durable.lock import BusyError, exclusive
from featurestore.errors import (
    FeatureStoreError,
    FilesChangedError,
    FingerprintError,
    ManifestError,
    NotFoundError,
    RequestError,
    did_you_mean,
)
from featurestore.integrations.opened import StorePath, opened, path_of
from featurestore.integrations.pytorch.batches import (
    GROUP_ROWS,
    Part,
    Shard,
    Shuffle,
    TimeSplit,
    TrainingBatches,
    TrainingFile,
)
from featurestore.integrations.pytorch.tensors import Features, FeatureTensors, Ragged, checked_type
from featurestore.integrations.rows import taken
from featurestore.lazy import pa
from featurestore.plurals import plural
from featurestore.registry.diff import changes
from featurestore.store import FeatureStore
from featurestore.training.manifest import Manifest, load_manifest
from featurestore.training.snapshot import TIMESTAMP
from featurestore.training.spine import chunks_of
from featurestore.training.training_frame import writable_target
from featurestore.types import parse_type

__all__ = ["FeatureDataModule", "FeatureTensors", "Ragged", "Shard", "Shuffle", "TimeSplit", "check"]

SPINE = "spine"
"""Under which key the manifest of a training set that was prepared has the digest of its spine."""

MADE_OF = ("service", "fingerprint", "sources", "timestamp", SPINE)
"""What of a manifest says whether a training set that is there is the one that is wanted."""

PREPARED = ("service", "fingerprint", "rows", SPINE)
"""What of it is the same on each machine that prepares one of its own."""

WAIT_SECONDS = 86_400.0
"""How long another process that prepares the same file is waited for."""

STAGES = {
    "fit": ("train", "validate"),
    "validate": ("validate",),
    "test": ("test",),
    None: ("train", "validate", "test"),
}
"""By Lightning's stage the parts that it needs, of those that the split has."""

LOADER = set(inspect.signature(DataLoader.__init__).parameters) - {
    "self", "dataset", "batch_size", "shuffle", "sampler", "batch_sampler", "collate_fn", "drop_last",
}  # fmt: skip
"""What is left to PyTorch's DataLoader."""

NO_HYPERPARAMETERS = (FeatureStore, FeatureTensors, TimeSplit)
"""What is never saved for one, beside frames and functions: a checkpoint stays plain."""


class FeatureDataModule(lightning.LightningDataModule):  # type: ignore[misc]  # the base class has no types
    """The features of a spine as of each row's time, in batches.

    `prepare_data` writes the training set, `setup` splits it by time, and the loaders read it row group by row group. A checkpoint
    says which features it was trained on; FingerprintError where a trainer goes on from it with others.

    store: a FeatureStore, or the path of a project. features: as for the store's verbs. spine: as for `get_historical_features`, or
    a function without arguments that gives it. path: the Parquet file; what lies there is kept if it is of the same features, files
    and spine. label: the spine's column that is to be predicted, or several, which come as a dict. shuffle: of the rows that train.
    buffer_rows: how many rows are mixed with each other. predict: rows of keys and request values for `Trainer.predict`, whose
    features are those of now. loader: for PyTorch's DataLoader, as num_workers.
    """

    def __init__(  # noqa: PLR0913 - each is an option
        self, store: FeatureStore | StorePath, features: Any, spine: Any, *, path: str | Path,
        label: str | Sequence[str] | None = None, split: TimeSplit | None = None, tensors: FeatureTensors | None = None,
        batch_size: int = 256, shuffle: bool = True, seed: int = 0, buffer_rows: int = 4 * GROUP_ROWS,
        timestamp: str = TIMESTAMP, predict: Any = None, env: str | None = None, **loader: Any,
    ) -> None:  # fmt: skip
        super().__init__()
        split, tensors = TimeSplit() if split is None else split, FeatureTensors() if tensors is None else tensors
        labels = [label] if isinstance(label, str) else list(label or ())
        for fits, said in (
            (isinstance(path, (str, Path)), f"path is a path, and not {shown(path)}"),
            (
                all(isinstance(name, str) for name in labels),
                f"label is a column of the spine, or a list of these, and not {shown(label)}",
            ),
            (isinstance(split, TimeSplit), f"split is a TimeSplit, and not {shown(split)}"),
            (isinstance(tensors, FeatureTensors), f"tensors is a FeatureTensors, and not {shown(tensors)}"),
            (_is_count(batch_size), f"batch_size is a number of rows, 1 or more, and not {shown(batch_size)}"),
            (_is_count(buffer_rows), f"buffer_rows is a number of rows, 1 or more, and not {shown(buffer_rows)}"),
            (seed == 0 or _is_count(seed), f"seed is a whole number, 0 or more, and not {shown(seed)}"),
        ):
            if not fits:
                raise RequestError(said)
        for name in loader.keys() - LOADER:
            raise TypeError(
                f"FeatureDataModule has no argument '{name}', and gives none of this name to a DataLoader.{did_you_mean(name, LOADER)}"
            )
        self.store, self.features, self.env = store, features, env
        self.spine = spine if callable(spine) else _spine(spine)
        self.path, self.timestamp = (
            Path(path).absolute(),
            timestamp,
        )  # whatever folder a process is in
        self.label = label if label is None or isinstance(label, str) else tuple(label)
        self.split, self.tensors = split, tensors
        self.batch_size, self.shuffle = batch_size, Shuffle(seed, buffer_rows) if shuffle else None
        self.predict = None if predict is None else taken(predict, "predict")
        self.loader = loader
        self.counts: dict[str, int] = {}
        """By part how many rows it has, and "gap"; empty before `setup`."""
        self._prepared: dict[str, Any] | None = None
        self._file: TrainingFile | None = None
        self._groups: dict[str, npt.NDArray[np.int64]] = {}
        self._trained: Manifest | None = None

    def prepare_data(self) -> None:
        """Write the training set, unless it is there. One process at a time does so; the others then have it."""
        if self.trainer is not None and self.trainer.predicting:
            return
        writable_target(self.path, "The training set")
        lock = self.path.with_name(f".{self.path.name}.lock")
        try:
            with exclusive(lock, doing="preparing a training set", wait_seconds=WAIT_SECONDS):
                self._prepared = self._prepare(opened(self.store, self.env))
        except BusyError as error:
            raise FeatureStoreError(f"The training set cannot be prepared: {error}") from None
        except OSError as error:
            raise FeatureStoreError(f"The training set cannot be prepared: {told(error, self.path)}") from error

    def _prepare(self, store: FeatureStore) -> dict[str, Any]:
        spine = _spine(self.spine()) if callable(self.spine) else self.spine
        # Of a path, as such a frame is answered when it is read, and this one is not.
        manifest = store.get_historical_features(self.path, self.features, timestamp=self.timestamp).manifest
        wanted = {**manifest, SPINE: _digest(spine)}
        if not self._is_there(wanted):
            frame = store.get_historical_features(spine, self.features, timestamp=self.timestamp)
            frame.manifest[SPINE] = wanted[SPINE]
            frame.to_parquet(self.path, group_rows=GROUP_ROWS)
        return _some(load_manifest(self.path), PREPARED)

    def _is_there(self, wanted: Mapping[str, Any]) -> bool:
        """Whether the training set that is wanted lies at the path. Raises ManifestError where something else does."""
        if not self.path.exists():
            return False
        within = TrainingFile.manifest_within(self.path)
        try:
            load_manifest(self.path)
        except ManifestError:  # whose writer was killed before the manifest beside it was
            return False
        is_final = not any(within.raw.get("spine_rows_past_the_last_complete_instant", {}).values())
        return is_final and _some(within, MADE_OF) == {name: wanted[name] for name in MADE_OF}

    def setup(self, stage: str | None = None) -> None:
        """Read how many rows each part has. Raises RequestError where one that the stage needs has none."""
        if stage == "predict":
            if self._trained is None and self.path.exists():
                self._trained = load_manifest(self.path)
            return
        prepared = self._prepared if self.trainer is None else self.trainer.strategy.broadcast(self._prepared)
        file = TrainingFile.open(self.path, self.timestamp)
        self._check_prepared(file.manifest, prepared)
        self._check_columns(file)
        parts = self.split.parts()
        found = file.counts(list(parts.values()))
        self._groups = dict(zip(parts, found.T, strict=True))
        self.counts = {name: int(counts.sum()) for name, counts in self._groups.items()}
        self.counts["gap"] = int(file.manifest.raw["rows"]) - sum(self.counts.values())
        for part in STAGES.get(stage, ()):
            if self.counts.get(part) == 0:
                raise RequestError(f"Part '{part}' has no row; {self._told()}. Of the split: {self.split}")
        self._file, self._trained = file, file.manifest
        for notice in self.notices:
            rank_zero_info(notice)

    @property
    def notices(self) -> tuple[str, ...]:
        """What is to be known of the rows and the tensors, one line each."""
        if self._file is None:
            return ()
        manifest = self._file.manifest
        types = {name: parse_type(of) for name, of in manifest.columns.items()}
        rounded = [name for name, of in types.items() if self.tensors.rounds(of) and name not in self.tensors.encode]
        lines = [f"Training set of {manifest}: {self._told()}", *manifest.raw.get("notices", ())]
        lines += [f"Rounded to {self.tensors.said()['dtype']}: {', '.join(rounded)}"] if rounded else []
        return tuple(lines)

    def _told(self) -> str:
        return ", ".join(
            f"{count} {plural(count, 'row')} in {'no part' if name == 'gap' else name}"
            for name, count in self.counts.items()
        )

    def _check_prepared(self, manifest: Manifest, prepared: Mapping[str, Any] | None) -> None:
        """FilesChangedError where the file is not what this run prepared, on the first rank, or in another process since."""
        differ = changes(prepared, _some(manifest, PREPARED)) if prepared is not None else ()
        if differ:
            raise FilesChangedError(
                f"{self.path} is not the training set that was prepared: {'; '.join(map(str, differ))}. Training sets that are prepared beside "
                "each other have a path each, and machines that share no disk prepare their own: prepare_data_per_node"
            )

    def _check_columns(self, file: TrainingFile) -> None:
        """What of the columns no batch could be made of, before there is one."""
        labels, rows = _names(self.label), int(file.manifest.raw["rows"])
        self.tensors.check_names([*file.manifest.columns, *labels])
        for name in labels:
            if name not in file.schema.names or name in file.manifest.columns:
                spine = [one for one in file.schema.names if one not in file.manifest.columns]
                raise NotFoundError(
                    f"The spine has no column '{name}' that is a label.{did_you_mean(name, spine, noun='Its columns')}"
                )
        for name in [*file.manifest.columns, *labels]:
            of = checked_type(name, file.schema.field(name).type)
            self.tensors.check(name, of, file.nulls.get(name, 0), rows, is_label=name in labels)

    def train_dataloader(self) -> DataLoader[Any]:
        """The rows that train, in another order each epoch unless shuffle=False."""
        return self._loader("train", self.shuffle)

    def val_dataloader(self) -> DataLoader[Any] | list[Any]:
        """The rows that validate; none where the split has no validate_from."""
        return self._loader("validate") if "validate" in self.split.parts() else []

    def test_dataloader(self) -> DataLoader[Any]:
        """The rows that test."""
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        """The features of `predict` as of now, of the version that the checkpoint or the training set names. They are looked up in
        this process, a batch at a time."""
        if self.predict is None:
            raise RequestError(
                "There are no rows to predict; FeatureDataModule(predict=…) takes keys and request values"
            )
        features = self.features if self._trained is None else self._trained
        rows = _OnlineRows(opened(self.store, self.env), features, self.predict, self.tensors)
        return DataLoader(rows, batch_size=self.batch_size, collate_fn=_as_it_is)

    def rows(self, part: str, *, shard: Shard | None = None, shuffle: Shuffle | None = None) -> TrainingBatches:
        """The batches of a part, "train", "validate" or "test"; shard: those of one rank. After `setup`."""
        if self._file is None:
            raise RequestError("The training set is not set up; a Trainer does it, or prepare_data() and setup()")
        if part not in self._groups:
            made = ", ".join(self._groups)
            raise RequestError(
                f"The split has no part '{part}', but {made}; TimeSplit(validate_from=…, test_from=…) makes others"
            )
        return TrainingBatches(
            Part(self._file, part, self.split.parts()[part], self._groups[part]), tensors=self.tensors, label=self.label,
            batch_size=self.batch_size, shard=Shard() if shard is None else shard, shuffle=shuffle,
        )  # fmt: skip

    def _loader(self, part: str, shuffle: Shuffle | None = None) -> DataLoader[Any]:
        sampler = None if self.trainer is None else self.trainer.distributed_sampler_kwargs
        shard = None if sampler is None else Shard(sampler["rank"], sampler["num_replicas"])
        loader = _Loader(self.rows(part, shard=shard, shuffle=shuffle), batch_size=None, **self.loader)
        loader.trainer = self.trainer
        return loader

    def state_dict(self) -> dict[str, Any]:
        """What a model is trained on, as plain JSON: service, fingerprint, columns and definition, split, label and tensors."""
        if self._file is None:
            return {}
        manifest = self._file.manifest
        return {
            "service": manifest.service,
            "fingerprint": manifest.fingerprint,
            "columns": dict(manifest.columns),
            "definition": manifest.definition,
            "timestamp": self.timestamp,
            "split": self.split.said(),
            "label": list(_names(self.label)),
            "tensors": self.tensors.said(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint. FingerprintError where it was trained on anything else than what `state_dict` says here."""
        self._trained = load_manifest(state_dict)
        here = self.state_dict()
        if not here:  # to predict, no training set is needed
            service = opened(self.store, self.env).catalog.service_of(self.features).name
            here = {**state_dict, "service": service, "tensors": self.tensors.said()}
        _refuse(changes(dict(state_dict), here), str(self._trained))

    def save_hyperparameters(
        self, *args: Any, ignore: Sequence[str] | str | None = None, frame: FrameType | None = None, logger: bool = True
    ) -> None:
        """As Lightning's, without stores, frames and functions, whatever they are called."""
        caller = inspect.currentframe()
        frame = caller.f_back if frame is None and caller is not None else frame
        ignored = [ignore] if isinstance(ignore, str) else list(ignore or ())
        for name, value in ({} if frame is None else frame.f_locals).items():
            if (
                isinstance(value, NO_HYPERPARAMETERS)
                or callable(value)
                or any(hasattr(value, way) for way in PYCAPSULES)
            ):
                ignored.append(name)
        super().save_hyperparameters(*args, ignore=ignored, frame=frame, logger=logger)

    def __getstate__(self) -> dict[str, Any]:
        env = self.store.config.environment if isinstance(self.store, FeatureStore) else self.env
        return {**self.__dict__, "store": path_of(self.store), "env": env}


class _OnlineRows(Dataset):  # type: ignore[misc]  # the base class has no types
    """Rows of keys and request values, whose features are looked up when a batch of them is asked for."""

    def __init__(self, store: FeatureStore, features: Any, rows: Any, tensors: FeatureTensors) -> None:
        self._store, self._asked, self._rows, self._tensors = store, features, rows, tensors

    def __len__(self) -> int:
        return len(self._rows)

    def __getitems__(self, places: list[int]) -> Features:
        rows = self._rows.iloc[places] if is_pandas(self._rows) else self._rows.take(pa.array(places))
        return self._tensors(self._store.get_online_features(rows, self._asked))


class _Loader(DataLoader):  # type: ignore[misc]  # the base class has no types
    """Tells its rows which epoch begins, as Lightning tells samplers, of which these have none; and goes on within an epoch."""

    trainer: Any = None
    _epoch, _given = 0, 0
    _resumed: tuple[int, int] | None = None

    def __iter__(self) -> Iterator[Any]:
        # With the first batch, and no sooner: a Trainer asks for the iterator before it knows which epoch it goes on with.
        now = self.dataset.epoch if self.trainer is None else self.trainer.current_epoch
        self._epoch, self._given = self._resumed or (now, 0)
        self._resumed = None
        self.dataset.set_epoch(self._epoch)
        for batch in islice(super().__iter__(), self._given, None):
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """The epoch, and how many of its batches were given; of one that is over, the next."""
        most = len(self) if self.trainer is None else min(len(self), self.trainer.num_training_batches)
        epoch, given = (self._epoch + 1, 0) if self._given >= most else (self._epoch, self._given)
        return {"epoch": epoch, "given": given, "of": len(self), "workers": self.num_workers}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on with the batch behind those that were given."""
        given = state_dict["given"]
        if given and (state_dict["of"], state_dict["workers"]) != (len(self), self.num_workers):
            rank_zero_warn(
                f"The checkpoint was written behind {given} of {state_dict['of']} {plural(state_dict['of'], 'batch', 'batches')} of an epoch, with {state_dict['workers']} {plural(state_dict['workers'], 'worker')}; with "
                f"{len(self)} {plural(len(self), 'batch', 'batches')} and {self.num_workers} {plural(self.num_workers, 'worker')} they hold other rows, so the epoch begins anew"
            )
            given = 0
        self._resumed = state_dict["epoch"], given


def check(
    checkpoint: str | Path | Mapping[str, Any], store: FeatureStore | StorePath, *, tensors: FeatureTensors | None = None,
    env: str | None = None,
) -> Manifest:  # fmt: skip
    """What a model was trained on, where it can be served that: the manifest, which a lookup takes in place of a service.

    checkpoint: the file of a Trainer that a FeatureDataModule was given to, or of a LightningModule one of whose hyperparameters is
    the data module's `state_dict()`; or what `torch.load` made of it. tensors: how features become tensors here. Raises
    ManifestError where it does not say what it was trained on, FingerprintError where that is not served, or `tensors` are others.
    """
    state = _state_in(checkpoint)
    manifest = load_manifest(state)
    if tensors is not None:
        _refuse(changes({"tensors": state.get("tensors")}, {"tensors": tensors.said()}), str(manifest))
    opened(store, env).lookup(manifest)
    return manifest


def _state_in(checkpoint: Any) -> Mapping[str, Any]:
    held, where = checkpoint, "The checkpoint"
    if isinstance(checkpoint, (str, Path)):
        where = str(checkpoint)
        try:
            held = torch.load(checkpoint, map_location="cpu", weights_only=True)
        except UnpicklingError as error:
            raise ManifestError(
                f"{where} cannot be read without running code that it brings: {str(error).splitlines()[0]}. If you trust it: "
                "check(torch.load(…, weights_only=False), store)"
            ) from None
        except (OSError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
            says = str(error) if isinstance(error, (OSError, RuntimeError)) else "its bytes are none of PyTorch's"
            raise ManifestError(f"{where} is no checkpoint that can be read: {says}") from None
    if not isinstance(held, Mapping):
        raise ManifestError(
            f"A checkpoint is the path of a file, or what torch.load made of one, and not {shown(held)}"
        )
    own = held.get("hyper_parameters")
    found = [one for one in [*held.values(), *(own.values() if isinstance(own, Mapping) else ())] if _is_state(one)]
    if not found:
        raise ManifestError(
            f"{where} does not say what it was trained on; a Trainer that was given a FeatureDataModule writes it, as does "
            "save_hyperparameters of a module that takes the data module's state_dict()"
        )
    for other in found[1:]:
        _refuse(changes(dict(found[0]), dict(other)), str(load_manifest(found[0])))
    return dict(found[0])


def _is_state(value: Any) -> bool:
    return isinstance(value, Mapping) and {"service", "fingerprint", "columns", "tensors"} <= value.keys()


def _refuse(differ: Sequence[Any], trained: str) -> None:
    """FingerprintError where anything differs."""
    if differ:
        text = "\n".join(f"  {change}" for change in differ)
        raise FingerprintError(
            f"The checkpoint was trained on {trained}, and what is at hand is not that. Take what it was trained on, or train anew. What "
            f"differs:\n{text}",
            changes=differ,
        )


def _spine(rows: Any) -> Any:
    """A path, from whatever folder it is read, or a frame of any library."""
    if isinstance(rows, (str, Path)):
        return rows if is_url(str(rows)) else str(Path(rows).absolute())
    return taken(rows, "The spine")


def _is_count(value: object) -> bool:
    return type(value) is int and value > 0


def _digest(spine: Any) -> str:
    """A digest of all rows of a spine, of which a chunk at a time is read."""
    digest = hashlib.blake2b(digest_size=16)
    for chunk in chunks_of(spine):
        digest.update(content_digest(chunk.table).encode())
    return digest.hexdigest()


def _some(manifest: Manifest, names: Sequence[str]) -> dict[str, Any]:
    return {name: manifest.raw.get(name) for name in names}


def _names(label: str | Sequence[str] | None) -> Sequence[str]:
    return (label,) if isinstance(label, str) else label or ()


def _as_it_is(batch: Any) -> Any:
    return batch
