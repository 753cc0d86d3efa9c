"""Training sets: the frames that were written, the manifest of one, and what differs between two."""

from __future__ import annotations

from typing import Any

import orjson

from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageTable, moment
from featurestore.errors import FeatureStoreError, NotFoundError
from featurestore.registry.diff import changes
from featurestore.registry.frames import WrittenFrame
from featurestore.report import plain
from featurestore.store import FeatureStore


def training(store: FeatureStore, asked: PageRequest) -> PageModel:
    """The registry's journal of frames. path: one of them, whose manifest is shown, and how it compares with what is applied, as
    `featurestore manifest FILE` says it; beside: another one, which is compared with it.

    Only files that are in the journal are read.
    """
    frames = store.registry.frames()
    service, path, beside = asked.word("service"), asked.word("path"), asked.word("beside")
    rows = [_row(frame, path) for frame in frames if service is None or frame.service == service]
    header = ("written at", "service", "fingerprint", "rows", "file", "compare with the one shown")
    tables = [PageTable("frames", "Training sets that were written", header, rows, "None was written to a file.")]
    values: dict[str, Any] = {
        "path": path,
        "beside": beside,
        "manifest": None,
        "check": None,
        "why": None,
        "service": service,
    }
    if path is not None:
        try:
            shown = _manifest(store, frames, path)
            values |= {
                "manifest": orjson.dumps(plain(shown), option=orjson.OPT_INDENT_2).decode(),
                "check": store.check_manifest(path).report().text(),
            }
            if beside is not None:
                found = changes(plain(_manifest(store, frames, beside)), plain(shown))
                differs = [(one.field, one.before or "", one.after or "") for one in found]
                tables.insert(
                    0, PageTable("differences", "What differs", ("field", "in the other one", "in this one"), differs)
                )
        except NotFoundError:
            raise
        except FeatureStoreError as error:
            values["why"] = str(error)
    return PageModel("training.html", "Training sets", values, tables)


def _row(frame: WrittenFrame, path: str | None) -> tuple[object, ...]:
    compares: object = ""
    if path is not None and path != frame.path:
        compares = PageLink("compare", "training", "", {"path": path, "beside": frame.path})
    service: object = frame.service if frame.service == "adhoc" else PageLink(frame.service, "service", frame.service)
    where = PageLink(frame.path, "training", "", {"path": frame.path})
    return moment(frame.written), service, frame.fingerprint[:12], frame.rows, where, compares


def _manifest(store: FeatureStore, frames: tuple[WrittenFrame, ...], path: str) -> dict[str, Any]:
    """The manifest of a frame of the journal; NotFoundError for every other path."""
    if path not in {frame.path for frame in frames}:
        raise NotFoundError(f"No training set was written to {path[:200]}, as far as the registry knows")
    return store.load_manifest(path).raw


PAGE = PageKind("training", "Training sets", training)
