"""Assets and checks of Dagster: what is online, what a model learns from, and the audit as a gate between them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import dagster as dg

from featurestore.clock import to_datetime
from featurestore.declare.problems import shown
from featurestore.errors import DeclarationError
from featurestore.integrations.opened import StorePath, opened
from featurestore.integrations.training_sets import facts
from featurestore.reports.audit.report import check_minimum
from featurestore.store import FeatureStore
from featurestore.training.snapshot import TIMESTAMP

ONLINE = "online_features"


def online_features(
    store: FeatureStore | StorePath, *, name: str = ONLINE, views: Iterable[str] | None = None,
    deps: Iterable[Any] = (), **words: Any,
) -> dg.AssetsDefinition:  # fmt: skip
    """An asset that is the online store: it is materialized by computing what is due.

    views: only these. deps: the assets that the sources are made of. words: of `dagster.asset`, such as retry_policy and
    group_name. Its metadata has, for each view, the instants that were
    completed, and the keys and the fingerprint of the last. With partitions of times, use `training_set`: what is online has one state.
    """
    if isinstance(views, str):
        raise DeclarationError(f"views is a list of names, and not {views!r}; [{views!r}] is one of one view")
    chosen = None if views is None else list(views)
    words = {"description": "The values of the feature store that are served now.", **words}

    @dg.asset(name=name, deps=list(deps), **words)  # type: ignore[untyped-decorator]  # Dagster's decorators have no types
    def materialized() -> dg.MaterializeResult[Any]:
        runs = opened(store).materialize(chosen, progress=False)
        told: dict[str, Any] = {"completed instants": len(runs)}
        for run in runs:
            as_of = f"{to_datetime(run.instant):%Y-%m-%dT%H:%M:%SZ}"
            told[run.view] = {"as_of": as_of, "keys": run.keys, "fingerprint": run.fingerprint}
        return dg.MaterializeResult(metadata=told)

    return materialized


def training_set(  # noqa: PLR0913 - each is an option
    store: FeatureStore | StorePath, features: Any, *, path: str | Path, name: str = "training_set",
    spine: Callable[[], Any] | None = None, partitions: dg.TimeWindowPartitionsDefinition | None = None,
    timestamp: str = TIMESTAMP, deps: Iterable[Any] = (), **words: Any,
) -> dg.AssetsDefinition:  # fmt: skip
    """An asset that is a training frame, written as Parquet with its manifest.

    spine: gives the rows that are asked for, `timestamp` the column of their times. Without it every key is asked for at the end of each partition, so that a back-fill of
    partitions is a history of all keys. path: of the file; with partitions `{partition}` in it stands for the partition's
    key. words: of `dagster.asset`, such as retry_policy and group_name. Its metadata has rows, service, fingerprint, and a digest of the whole content.
    """
    if (spine is None) == (partitions is None):
        raise DeclarationError("A training set has a spine, or partitions, at whose ends every key is asked for")
    if not callable(spine) and spine is not None:
        raise DeclarationError(
            f"spine is a function that gives the rows, called when the asset runs, and not {shown(spine)}"
        )
    if partitions is not None and not isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        raise DeclarationError(
            f"partitions are of time, such as DailyPartitionsDefinition, and not {shown(partitions)}"
        )
    if partitions is not None and "{partition}" not in str(path):
        raise DeclarationError(f"path is {str(path)!r}; a training set of partitions has {{partition}} in it")

    words = {"description": f"What a model learns from: {features}", **words}

    @dg.asset(name=name, deps=list(deps), partitions_def=partitions, **words)  # type: ignore[untyped-decorator]  # Dagster's decorators have no types
    def written(context) -> dg.MaterializeResult[Any]:  # type: ignore[no-untyped-def]  # Dagster reads no annotation that is text
        project, target = opened(store), str(path)
        if spine is None:
            frame = project.snapshot(features, at=context.partition_time_window.end)
            target = target.replace("{partition}", context.partition_key)
        else:
            frame = project.get_historical_features(spine(), features, timestamp=timestamp)
        return dg.MaterializeResult(metadata=_told(frame.to_parquet(target)))

    return written


def audit_check(
    store: FeatureStore | StorePath, *, asset: Any = ONLINE, since: str | None = "1d", service: str | None = None,
    minimum_compared: int = 1, blocking: bool = True, name: str = "audit", **words: Any,
) -> dg.AssetChecksDefinition:  # fmt: skip
    """A check that fails where a served value is not what training says, beyond the `skew_budget` of its service.

    blocking: whether assets that depend on `asset` then wait. since, service: as of `FeatureStore.audit`. minimum_compared: how many
    values have to be compared; 0 lets through where nothing was, as before anybody was served. The description says why it failed.
    name: of the check, where an asset has several, such as one for each service. words: of `dagster.asset_check`.
    """
    check_minimum(minimum_compared)
    words = {"description": "What was served is what training says.", **words}

    @dg.asset_check(asset=asset, name=name, blocking=blocking, **words)  # type: ignore[untyped-decorator]  # Dagster's decorators have no types
    def audited() -> dg.AssetCheckResult:
        found = opened(store).audit(since=since, service=service)
        metadata: dict[str, Any] = {"compared": found.compared, "exact": found.exact, "skewed": found.skewed}
        metadata |= {"rewritten": found.rewritten, "causes": found.causes, "damaged": dict(found.damaged)}
        metadata["report"] = dg.MetadataValue.text(found.report().text())
        reasons = found.reasons_to_stop(minimum_compared)
        return dg.AssetCheckResult(passed=not reasons, description="; ".join(reasons) or None, metadata=metadata)

    return audited


def _told(path: Path | str) -> dict[str, Any]:
    told = facts(path)
    return {"dagster/row_count": told.pop("rows"), **told, "path": dg.MetadataValue.path(str(path))}
