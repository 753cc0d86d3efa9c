"""What an audit leaves out is named whole: which version, how much of it, why, and what helps."""

from __future__ import annotations

from pathlib import Path

from featurestore import FeatureService, FeatureStore, ManualClock, RequestTime, on_demand
from featurestore.types import Int64
from tests.small import NOON, hours, table, view_of, write
from tests.test_explain_request import Trips, definitions


@on_demand(inputs=[RequestTime()], output=Int64)
def hour(now):
    return now.hour + 1


def test_a_version_whose_code_is_not_here_is_left_out_whole_and_that_is_said(tmp_path: Path) -> None:
    """After a function changed, the audit says that no value of the version before was compared, and where it can be."""
    trips = Trips(tmp_path)
    with trips.store:
        trips.store.materialize(progress=False)
        trips.serve()
        (version,) = trips.store.audit().features[:1]
    (service,) = definitions()
    with FeatureStore(tmp_path, clock=trips.clock) as store:
        store.apply([FeatureService("trip", features=[*service.features[:-1], hour])])
        audit = store.audit()
        assert audit.compared == 0
        ((title, why),) = audit.not_audited.items()
        assert title == f"trip {version.fingerprint}"
        assert why.startswith("no value of it was compared, those of its views neither: On-demand feature 'hour'")
        assert "audit where the code is that served it" in why
        assert f"{title} was not audited: no value of it" in str(audit)


def test_versions_of_one_service_are_told_apart(tmp_path: Path) -> None:
    """In every table, in the lines of examples and on the page; of a service that was served in one version the name is enough."""
    rows = write(tmp_path / "rows.parquet", table(thing=[1, 2], at=[hours(-2), hours(-2)], x=[1, 2]))
    (tmp_path / "featurestore.toml").write_text('project = "twice"\ndefinitions = []\n[serving_log]\nrate = 1.0\n')
    clock = ManualClock(NOON)
    with FeatureStore(tmp_path, clock=clock) as store:
        for ttl in ("1d", "2d"):
            view = view_of(rows, ["x"], refresh="1h", ttl=ttl)
            store.apply(
                [FeatureService("model", features=[view]), FeatureService("other", features=[view.alias("own")])]
            )
            store.materialize(progress=False)
            store.reload()
            for service in ("model", "other") if ttl == "1d" else ("model",):
                store.get_online_features([{"thing": 1}, {"thing": 2}], service)
        write(rows, table(thing=[1, 2], at=[hours(-2), hours(-2)], x=[1, 3]))
        audit = store.audit()
    found = [(feature.service, feature.fingerprint[:12]) for feature in audit.features]
    first, second = [f"model@{fingerprint}" for service, fingerprint in found if service == "model"]
    assert first != second
    for shown in audit.tables():
        assert sorted(str(row[0]) for row in shown.rows) == sorted([first, second, "other"])
    assert [(late.service, late.fingerprint[:12], late.requests) for late in audit.lateness] == [
        (*one, 2) for one in found
    ]
    examples = [line for line in str(audit).splitlines() if "training says 3" in line]
    assert sorted(line.split(" of ")[0] for line in examples) == sorted(
        [f"{first}: view__x", f"{second}: view__x", "own__x"]
    )
    page = audit.to_html()
    assert page.count(first) == page.count(second) == 3
