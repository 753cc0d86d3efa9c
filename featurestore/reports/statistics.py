"""Statistics that are kept, found again by what they are of; and those of served hours, made of the serving log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from featurestore.declare.problems import shown
from featurestore.declare.sources import is_url
from featurestore.errors import NotFoundError, RequestError, did_you_mean
from featurestore.lazy import pa
from featurestore.project import Project
from featurestore.registry.frames import named_columns
from featurestore.registry.kept_statistics import GatheredFeatures
from featurestore.reports.audit.logged import answered, chunks
from featurestore.semantics.service import ResolvedService
from featurestore.serving.log.segments import HOUR_US, live
from featurestore.serving.log.upkeep import SETTLED_US
from featurestore.serving.served_rows import feature_column
from featurestore.statistics.feature_statistics import KeptStatistics, Statistics

ALL = 1 << 40
"""More rows than are ever kept."""


@dataclass(frozen=True)
class StatisticsAsked:
    """What statistics to find: of a view's runs, of a service's frames and hours, of one run, or of one frame. All where nothing is said.

    feature: of this alone, "view:feature" or an on-demand feature's name. since: those of an instant (µs) and later. limit: so many at most.
    """

    feature: str | None = None
    view: str | None = None
    service: str | None = None
    run: int | None = None
    training_set: str | Path | None = None
    since: int | None = None
    limit: int = 20


def statistics(project: Project, asked: StatisticsAsked) -> Statistics:
    """Kept statistics, the newest first. Raises RequestError where words exclude each other, and NotFoundError where nothing is kept of what
    bears a name, nor is anything defined that does."""
    if type(asked.limit) is not int or (asked.run is not None and type(asked.run) is not int):
        raise RequestError(f"limit and run are whole numbers, and not {shown(asked.limit)} and {shown(asked.run)}")
    if not isinstance(asked.training_set, str | Path | None) or not str(asked.training_set):
        raise RequestError(f"training_set is a path or a URL, and not {shown(asked.training_set)}")
    given = {name: getattr(asked, name) for name in ("view", "service", "run", "training_set")}
    said = [name for name, value in given.items() if value is not None]
    if len(said) > 1:
        raise RequestError(f"{said[0]} and {said[1]} exclude each other; say one of {', '.join(given)}")
    if asked.limit < 1:
        raise RequestError(f"limit is 1 or more, and not {asked.limit}")
    registry = project.registry
    most = asked.limit if asked.feature is None and asked.service is None else ALL
    if asked.run is not None:
        found = registry.statistics(kind="run", place=str(asked.run), since=asked.since, limit=most)
    elif asked.training_set is not None:
        place = str(asked.training_set)
        place = place if is_url(place) else str(Path(place).absolute())
        found = registry.statistics(kind="training_set", place=place, since=asked.since, limit=most)
    elif asked.view is not None:
        found = registry.statistics(kind="run", subject=asked.view, since=asked.since, limit=most)
    else:
        found = registry.statistics(subject=asked.service, since=asked.since, limit=most)
    if asked.service is not None:
        found = [kept for kept in found if kept.kind != "run"]
    if asked.feature is not None:
        found = list(_of_feature(found, asked.feature))
    if not found:
        _check_known(project, asked)
    return Statistics(tuple(found[: asked.limit]))


def _of_feature(found: Iterable[KeptStatistics], name: str) -> Iterator[KeptStatistics]:
    for kept in found:
        own = tuple(feature for feature in kept.features if feature.feature == name)
        if own:
            yield replace(kept, features=own)


def _check_known(project: Project, asked: StatisticsAsked) -> None:
    definitions = project.definitions
    if asked.view is not None:
        definitions.view(asked.view)
    if asked.service is not None and asked.service not in definitions.services:
        raise NotFoundError(
            f"There is no feature service '{asked.service}'.{did_you_mean(asked.service, definitions.services)}"
        )
    if asked.feature is not None:
        if ":" in asked.feature:
            definitions.view_and_feature(asked.feature)
        elif asked.feature not in definitions.on_demand:
            raise NotFoundError(
                f"There is no on-demand feature '{asked.feature}'; a view's feature is \"view:feature\"."
                f"{did_you_mean(asked.feature, definitions.on_demand)}"
            )


class _ServedHour(NamedTuple):
    """An hour of a service version that is over. begins: µs."""

    begins: int
    service: str
    fingerprint: str
    files: tuple[Path, ...]


def describe_served_hours(project: Project, between: Callable[[], None] = lambda: None) -> int:
    """Keep statistics of each hour of the serving log that is over and has none; of how many hours.

    An hour is looked at when it is merged, five minutes after its end: what is written later is not in it. between: called on the way; what it
    raises ends the work. What goes wrong is counted, and stops nobody.
    """
    keeper = project.statistics
    if not keeper.is_on:
        return 0
    described, failures = 0, keeper.failures
    try:
        hours = _hours(project)
    except Exception as error:  # noqa: BLE001 - a registry that does not answer, for one
        keeper.failed(error)
        return 0
    for hour in hours:
        try:
            gathered = _gathered(project, hour, between)
        except InterruptedError:
            raise
        except FileNotFoundError:  # the log's retention took a file that was listed
            continue
        except Exception as error:  # noqa: BLE001 - as above
            keeper.failed(error)
            break
        if gathered is None or not gathered[0]:  # of a file that goes on into other hours
            continue
        keeper.keep(keeper.described("hour", hour.service, hour.fingerprint, at=hour.begins, gathered=gathered))
        if keeper.failures > failures:
            break
        described += 1
    return described


def _hours(project: Project) -> list[_ServedHour]:
    """The hours of which none are kept, the oldest first; of a service as many as are to be kept."""
    folder, now, most = project.serving_log.folder, project.now(), project.config.statistics.keep_hours
    kept = project.registry.described_hours()
    found: dict[str, list[_ServedHour]] = {}
    for version in sorted(folder.glob("*/*/")) if folder.is_dir() else ():
        service, fingerprint = version.parent.name, version.name
        files: dict[int, list[Path]] = {}
        for file in live(version):
            for hour in range(file.first // HOUR_US, file.last // HOUR_US + 1):
                files.setdefault(hour * HOUR_US, []).append(file.path)
        of_service = found.setdefault(service, [])
        of_service += [
            _ServedHour(begins, service, fingerprint, tuple(paths))
            for begins, paths in files.items()
            if begins + HOUR_US + SETTLED_US <= now and (service, fingerprint, begins) not in kept
        ]
    chosen = []
    for service, hours in found.items():
        before = sorted((begins for name, _, begins in kept if name == service), reverse=True)
        oldest = before[most - 1] if len(before) >= most else None
        newest = sorted((hour for hour in hours if oldest is None or hour.begins > oldest), reverse=True)[:most]
        chosen += newest
    return sorted(chosen)


def _gathered(project: Project, hour: _ServedHour, between: Callable[[], None]) -> GatheredFeatures | None:
    found = project.registry.find_service(hour.service, hour.fingerprint)
    if found is None:
        return None
    version = found.service(hour.service)
    gathering = project.statistics.gather(named_columns(version))
    if gathering is None:
        return None
    damaged: list[Path] = []
    columns = {feature_column(column.name) for column in version.columns}
    until = hour.begins + HOUR_US
    texts = {feature_column(column.name) for column in version.columns if column.type.kind in {"String", "Bytes"}}
    read = chunks(hour.files, hour.begins, until, damaged=damaged.append, columns=columns, dictionaries=texts)
    for rows, _ in read:
        told = answered(rows)
        gathering.add(partial(_columns, told, version), told.num_rows)
        between()
    return gathering.gathered()


def _columns(rows: pa.Table, version: ResolvedService) -> dict[str, pa.ChunkedArray]:
    """The service's columns as they were served, by their names; none of another type than they have."""
    found, columns = {}, dict(zip(rows.column_names, rows.columns, strict=True))
    for column in version.columns:
        logged = columns.get(feature_column(column.name))
        if logged is None:
            continue
        of = logged.type.value_type if pa.types.is_dictionary(logged.type) else logged.type
        if of == column.type.arrow:
            found[column.name] = logged
    return found
