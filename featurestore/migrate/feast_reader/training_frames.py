"""Training frames that Feast makes over spines, of a store in a folder of its own."""

from __future__ import annotations

import importlib
import json
import tempfile
from pathlib import Path
from typing import Any

from featurestore.migrate.feast_reader import CONTRACT
from featurestore.migrate.feast_reader.failures import told
from featurestore.migrate.feast_reader.found_objects import FoundObjects
from featurestore.migrate.feast_reader.repository import declared


def frames(request: dict[str, Any]) -> dict[str, Any]:
    """For each of the asks a frame, or why there is none; of a store in a folder of its own."""
    import feast

    pd = importlib.import_module("pandas")

    real = feast.FeatureStore
    loaded = declared(request)
    answers: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, ask in enumerate(request["asks"]):
            answer: dict[str, Any] = {"error": None}
            try:
                store = _opened(real, Path(folder) / str(number), Path(request["repo"]))
                store.apply(_needed(loaded, ask["views"]))
                spine = pd.read_parquet(ask["spine"])
                spine["event_timestamp"] = spine["event_timestamp"].astype("datetime64[ns, UTC]")
                found = store.get_historical_features(
                    entity_df=spine, features=ask["features"], full_feature_names=True
                ).to_df()
                _written(found, ask["answer"])
            except Exception as error:  # noqa: BLE001 - whatever Feast raises is its answer
                answer["error"] = told(error)
            answers.append(answer)
    return {"contract": CONTRACT, "answers": answers}


def _opened(real: Any, folder: Path, repo: Path) -> Any:
    """A store of Feast's own over the files of a repository; all that it writes lies in a folder."""
    from feast.repo_config import RepoConfig

    folder.mkdir()
    config = RepoConfig(
        project="sample",
        provider="local",
        registry=str(folder / "registry.db"),
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        offline_store={"type": "file"},
        entity_key_serialization_version=3,
    )
    config.repo_path = repo
    return real(config=config)


def _needed(loaded: FoundObjects, names: list[str]) -> list[Any]:
    """The views, on-demand views and entities that are asked for."""
    chosen = [one for kind in ("views", "on_demand") for one in loaded.objects[kind] if one.name in names]
    entities = {name for view in chosen for name in getattr(view, "entities", None) or []}
    found: list[Any] = [one for one in loaded.objects["entities"] if one.name in entities]
    return found + chosen


def _written(frame: Any, path: str) -> None:
    """As Parquet; what it cannot hold as it is goes as JSON."""
    try:
        frame.to_parquet(path)
    except Exception:  # noqa: BLE001 - Arrow raises several kinds where a column has no one type
        for name in frame.columns:
            if frame[name].dtype == object:
                frame[name] = [json.dumps(value, default=str) for value in frame[name]]
        frame.to_parquet(path)
