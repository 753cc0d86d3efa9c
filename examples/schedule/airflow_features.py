"""A DAG that materializes what is due each hour, and audits what was served. featurestore lies in an environment of its own."""

import os
from datetime import timedelta

import pendulum
from airflow.sdk import dag, task

FEATURESTORE = os.environ.get("FEATURESTORE", "/opt/featurestore/bin/featurestore --repo /srv/shop")


@dag(
    schedule="@hourly",
    start_date=pendulum.datetime(2026, 1, 1),
    catchup=False,  # a run fills what lookups ask for now; the hours before it are asked for by nobody any more
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(seconds=30), "retry_exponential_backoff": True},
)
def features() -> None:
    """Materialize, then audit: exit code 3, and a task that failed, where a value that was served was not training's, or nobody was served."""

    @task.bash
    def materialize() -> str:
        return f"{FEATURESTORE} materialize --quiet"

    @task.bash(retries=0)
    def audit() -> str:
        return f"{FEATURESTORE} audit --since 2h --fail-on-skew"

    materialize() >> audit()


features()
