"""Training sets: the frames that were written, the manifest of one, and what differs between two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from featurestore.console.asked import frame_asked
from featurestore.console.page import PageKind, PageLink, PageModel, PageRequest, PageTable, moment
from featurestore.console.readable_store import ReadableStore
from featurestore.errors import FeatureStoreError
from featurestore.registry.diff import changes
from featurestore.registry.frames import WrittenFrame
from featurestore.report import plain, within


def training(store: ReadableStore, asked: PageRequest) -> PageModel:
    """The registry's journal of frames. path: one of them, whose manifest is shown, and how it compares with what is applied, as
    `featurestore manifest FILE` says it; beside: another one, which is compared with it.

    Only files that are in the journal are read.
    """
    frames, root = store.frames(), store.root
    service, path, beside = asked.word("service"), asked.word("path"), asked.word("beside")
    shown = None if path is None else frame_asked(path, frames, root)
    other = None if beside is None else frame_asked(beside, frames, root)
    rows = [_row(frame, shown, root) for frame in frames if service is None or frame.service == service]
    header = ("written at", "service", "fingerprint", "rows", "file", "compare with the one shown")
    tables = [
        PageTable(
            "frames",
            "Training sets that were written",
            header,
            rows,
            "None was written yet: get_historical_features(…).to_parquet(PATH) writes one",
        )
    ]
    values: dict[str, Any] = {
        "path": None,
        "beside": None if other is None else within(other.path, root),
        "manifest": None,
        "check": None,
        "why": None,
        "service": service,
    }
    if shown is not None:
        values["path"] = within(shown.path, root)
        try:
            manifest = store.manifest(shown.path)
            values |= {
                "manifest": orjson.dumps(plain(manifest), option=orjson.OPT_INDENT_2).decode(),
                "check": store.manifest_check(shown.path),
            }
            if other is not None:
                found = changes(plain(store.manifest(other.path)), plain(manifest))
                differs = [(one.field, one.before or "", one.after or "") for one in found]
                tables.insert(
                    0, PageTable("differences", "What differs", ("field", "in the other one", "in this one"), differs)
                )
        except FeatureStoreError as error:
            values["why"] = store.told(error)
    return PageModel("training.html", "Training sets", values, tables)


def _row(frame: WrittenFrame, shown: WrittenFrame | None, root: Path) -> tuple[object, ...]:
    compares: object = ""
    path = within(frame.path, root)
    if shown is not None and shown.path != frame.path:
        compares = PageLink("compare", "training", "", {"path": within(shown.path, root), "beside": path})
    service: object = frame.service if frame.service == "adhoc" else PageLink(frame.service, "service", frame.service)
    where = PageLink(path, "training", "", {"path": path})
    return moment(frame.written), service, frame.fingerprint[:12], frame.rows, where, compares


PAGE = PageKind("training", "Training sets", training)
