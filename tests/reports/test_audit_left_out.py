"""What an audit leaves out is named whole: which version, how much of it, why, and what helps."""

from __future__ import annotations

from pathlib import Path

from featurestore import FeatureService, FeatureStore, RequestTime, on_demand
from featurestore.types import Int64
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
