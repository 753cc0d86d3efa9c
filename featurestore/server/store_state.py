"""The state of the store, of the journal of runs and of the logs, for Prometheus: what anybody is told who asks now."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from featurestore.errors import FeatureStoreError, OnlineStoreError
from featurestore.registry.records import RunRecord
from featurestore.reports.audit.last_audit import last_audits
from featurestore.reports.drift.last_drift import last_drifts
from featurestore.reports.status import PushStatus
from featurestore.store import FeatureStore

VERSION = ("view", "fingerprint")
"""The labels of a version of a view. There are as many as are applied, and kept beside those."""

JOURNAL_RUNS = 1_000
"""Runs of the journal that are looked through at once for the last one of each view."""


class StoreState(Collector):
    """What the store says of itself, whichever process is asked, at the time of asking."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store

    def collect(self) -> Iterator[Metric]:
        """The families of metrics. What cannot be read is left out, and said by featurestore_readable."""
        build = _gauge("build_info", "The version that answers", "version")
        build.add_metric([version("featurestore")], 1)
        yield build
        readable = _gauge("readable", "Whether what these metrics tell could be read", "part")
        parts = {
            "status": self._views, "serving_log": self._serving_log, "runs": self._runs, "audit": self._audits,
            "drift": self._drifts,
        }  # fmt: skip
        for part, read in parts.items():
            families, is_read = _read(read)
            yield from families
            readable.add_metric([part], is_read)
        yield readable

    def _views(self) -> Sequence[Metric]:
        served = _gauge("view_served_timestamp_seconds", "The instant that a view's values are true for", *VERSION)
        behind = _gauge("view_behind_seconds", "By how much that is before the instant it should be", *VERSION)
        stale = _gauge("view_stale", "1 where a view is stale or has no values", *VERSION)
        age = _gauge(
            "view_source_age_seconds", "Age of the newest row of the source of a view that says freshness", *VERSION
        )
        allowed = _gauge("view_freshness_seconds", "How old that row may be, as the view says", *VERSION)
        pending = _gauge("push_pending_rows", "Rows in the log that are not in the records yet", "source")
        size = _gauge("push_log_bytes", "Bytes of a push log", "source")
        aside = _gauge("quarantined_rows", "Pushed rows that are kept aside in quarantine", "source")
        running = _gauge("materialize_run_keys", "Keys that a run of materialize that goes on is to write", *VERSION)
        written = _gauge("materialize_run_written_keys", "Keys of these that it has written", *VERSION)
        streams = _stream_families()
        pushes = {}
        for view in self._store.status():
            if view.unavailable is not None:
                raise OnlineStoreError(view.unavailable)
            if view.pushes is not None:
                pushes[view.pushes.source] = view.pushes
            version = [view.view, view.fingerprint]
            stale.add_metric(version, view.state != "fresh")
            if view.served is not None:
                served.add_metric(version, view.served / 1e6)
                behind.add_metric(version, max(0, view.wanted - view.served) / 1e6)
            if view.run is not None and view.run.keys is not None:
                running.add_metric(version, view.run.keys)
                written.add_metric(version, view.run.written)
            if view.freshness is not None and view.age is not None:
                age.add_metric(version, view.age / 1e6)
                allowed.add_metric(version, view.freshness / 1e6)
        for source, log in pushes.items():
            assert log.pending is not None
            pending.add_metric([source], log.pending)
            size.add_metric([source], log.bytes)
            aside.add_metric([source], log.quarantined)
            _add_stream(streams, log)
        return served, behind, stale, age, allowed, running, written, pending, size, aside, *streams.values()

    def _runs(self) -> Sequence[Metric]:
        """The last run of materialize of each applied view, of which the registry has a journal, whichever process ran it."""
        applied = self._store.registry.current().document["views"]
        last: dict[str, RunRecord] = {}
        for run in self._store.registry.runs(limit=JOURNAL_RUNS):
            if run.status == "complete":
                last.setdefault(run.view, run)
        for name in applied:
            if name not in last:  # its last run is an old one
                last.update(
                    {run.view: run for run in self._store.registry.runs(name, limit=1) if run.status == "complete"}
                )
        texts: dict[str, tuple[str, Callable[[RunRecord], float]]] = {
            "success_timestamp_seconds": ("When the last run of materialize that filled a view ended", lambda run: run.finished / 1e6),
            "seconds": ("How long that run took", lambda run: (run.finished - run.started) / 1e6),
            "rows": ("Rows that it read", lambda run: run.rows),
            "keys": ("Keys that it wrote", lambda run: run.keys),
        }  # fmt: skip
        families = []
        for name, (text, read) in texts.items():
            family = _gauge(f"materialize_last_{name}", text, *VERSION)
            for view, run in last.items():
                if view in applied:
                    family.add_metric([view, run.fingerprint], read(run))
            families.append(family)
        unmet = _gauge("view_unmet_rows", "Rows that did not meet an expectation at that run", *VERSION, "expectation")
        for view, run in last.items():
            for expectation, rows in run.detail.get("unmet", {}).items() if view in applied else ():
                unmet.add_metric([view, run.fingerprint, expectation], rows)
        return [*families, unmet]

    def _audits(self) -> Sequence[Metric]:
        """What the last audit of each service found, whichever process made it."""
        values = _gauge(
            "audit_values", "Values that the last audit compared, by how they came out", "service", "outcome"
        )
        early = _gauge("audit_early_rows", "Rows that it found served for an instant to come", "service")
        at = _gauge("audit_timestamp_seconds", "When it was made", "service")
        applied = self._store.registry.current().document["services"]  # one that is retired is not audited any more
        audits = last_audits(self._store.config.serving_log.folder)
        for service, found in audits.items():
            if service not in applied:
                continue
            for outcome in ("exact", "rewritten", "skewed"):
                values.add_metric([service, outcome], found.counts[outcome])
            early.add_metric([service], found.early)
            at.add_metric([service], found.at / 1e6)
        return values, early, at

    def _drifts(self) -> Sequence[Metric]:
        """What the last comparison of each service with a baseline found, whichever process made it."""
        labels = ("service", "feature", "measure")
        distance = _gauge("drift", "How far served values were from the baseline at the last comparison", *labels)
        limit = _gauge("drift_limit", "How far they may be, as the service says", *labels)
        at = _gauge("drift_timestamp_seconds", "When they were compared", "service")
        applied = self._store.registry.current().document["services"]
        for service, found in last_drifts(self._store.config.serving_log.folder).items():
            if service not in applied:
                continue
            at.add_metric([service], found.at / 1e6)
            for family, of in ((distance, found.distances), (limit, found.limits)):
                for feature, measures in of.items():
                    for measure, value in measures.items():
                        family.add_metric([service, feature, measure], value)
        return distance, limit, at

    def _serving_log(self) -> Sequence[Metric]:
        losses = self._store.serving_log_losses()
        texts = {
            "offered": "Requests that were to be logged",
            "written": "Requests that were logged",
            "dropped": "Requests that were not logged, since memory or the disk was full",
            "lost": "Requests that were not logged, since a process ended before",
        }
        counted = [
            CounterMetricFamily(f"featurestore_serving_log_{name}", text, value=getattr(losses, name))
            for name, text in texts.items()
        ]
        waiting = _gauge("serving_log_waiting", "Requests that wait in memory to be logged")
        waiting.add_metric([], max(0, losses.offered - losses.written - losses.dropped - losses.lost))
        return [*counted, waiting]


def _stream_families() -> dict[str, Metric]:
    part = ("source", "partition")
    return {
        "lag": _gauge("stream_lag_messages", "Messages of a partition of a stream that are not read yet", *part),
        "behind": _gauge("stream_behind_seconds", "For how long a partition has not been read up to its end", *part),
        "read": _gauge("stream_is_read", "1 where a consumer reads the partition", *part),
        "taken": CounterMetricFamily("featurestore_stream_messages", "Messages that were read", labels=part),
        "lost": CounterMetricFamily(
            "featurestore_stream_lost_messages", "Messages that were gone before they were read", labels=part
        ),
        "poison": _gauge("stream_poison_messages", "Messages that could not be taken and are kept aside", "source"),
    }


def _add_stream(families: Mapping[str, Metric], log: PushStatus) -> None:
    """What there is to tell of the stream of a push source, if it has one that was ever read."""
    for one in log.partitions:
        values = {
            "lag": one.lag, "behind": None if one.behind is None else one.behind / 1e6, "read": int(one.consumer is not None),
            "taken": one.taken, "lost": one.lost,
        }  # fmt: skip
        for name, value in values.items():
            if value is not None:
                families[name].add_metric([log.source, str(one.partition)], value)  # type: ignore[attr-defined]  # a family of gauges
    if log.partitions:
        families["poison"].add_metric([log.source], log.poison)  # type: ignore[attr-defined]  # a family of gauges


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"featurestore_{name}", text, labels=labels)


def _read(read: Callable[[], Iterable[Metric]]) -> tuple[Iterable[Metric], bool]:
    try:
        return read(), True
    except (FeatureStoreError, OSError):
        return (), False
