"""python -m tests.any_request [--examples N] [--seed S]

Requests that Schemathesis makes of the description of the API, such as it allows and such as it does not, sent to every route of
a real server: with a key that may do everything, and without one. No answer may be a 5xx, or another than is described; what
the description allows is not refused as wrong. What breaks that is printed, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from featurestore import FeatureStore
from featurestore.access.api_keys import create_key
from tests.server.test_http import serving

DEFINITIONS = """
from featurestore import *
from featurestore.types import Float64, Int64, String, Timestamp

landings = PushSource("landings", schema={"carrier": String, "at": Timestamp, "arr_delay": Float64}, event_time="at")
carrier = Entity("carrier", key={"carrier": String})
carrier_delays = FeatureView("carrier_delays", entity=carrier, source=landings, features=["arr_delay"])

@on_demand(inputs=[carrier_delays["arr_delay"], Request("sched_minutes", Int64)], output=Float64)
def relative_delay(arr_delay, sched_minutes):
    return None if arr_delay is None or not sched_minutes else arr_delay / sched_minutes

delay_model = FeatureService("delay_model", features=[carrier_delays, relative_delay])
columns = {"swipe": String, "card": String, "at": Timestamp, "amount": Float64}
swipes = PushSource("swipes", schema=columns, event_time="at", identity="swipe", lateness="100000d")
card = Entity("card", key={"card": String})
amounts = FeatureView("amounts", entity=card, source=swipes, features=["amount"])
amount_model = FeatureService("amount_model", features=[amounts])
"""
"""What the description's examples ask for."""

ALLOWED = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", 401, 403, 404, 409, 422, 429]
"""
"""How a request may be answered that is as described: also with 422, since what a row must have is told by no description."""


def _asked(base_url: str, key: str | None, configured: Path, *, examples: int, seed: int) -> int:
    """The exit code of Schemathesis."""
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(configured), "run"]
    command += [f"{base_url}/openapi.json"]
    command += ["--phases", "examples,coverage,fuzzing", "--max-examples", str(examples), "--seed", str(seed)]
    print(f"--- {'without a key' if key is None else 'with a key'}", flush=True)
    return subprocess.run(
        [*command, *(() if key is None else ("-H", f"X-API-Key: {key}"))],
        check=False,
        timeout=3600,
        cwd=configured.parent,
    ).returncode


def main() -> int:
    """Send them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=50, help="requests of each route and kind")
    parser.add_argument("--seed", type=int, default=0)
    said = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "featurestore.toml").write_text('project = "requests"\n')
        Path(folder, "definitions.py").write_text(DEFINITIONS)
        configured = Path(folder, "schemathesis.toml")
        configured.write_text(ALLOWED)
        with FeatureStore(folder) as store:
            store.apply()
            store.materialize(progress=False)
            key = create_key(store.registry, "requests", ["read", "push", "admin"]).secret
            with serving(store, authentication=True) as client:
                base_url = str(client.base_url).rstrip("/")
                codes = [
                    _asked(base_url, one, configured, examples=said.examples, seed=said.seed) for one in (key, None)
                ]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
