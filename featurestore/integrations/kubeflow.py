"""Components of Kubeflow Pipelines: definitions applied, the online store filled, training sets, and the audit as a gate.

The text of a component's function is what runs in its container, so each imports what it needs, and its annotations are no text.
"""

from dataclasses import dataclass
from typing import Any, List, Optional

from kfp import dsl
from kfp.dsl.pipeline_task import TaskState
from kfp.dsl.python_component import PythonComponent


class _Afresh(PythonComponent):  # type: ignore[misc]  # the base class has no types
    """A component that runs each time, whatever it was given before: what it reads is not among its inputs."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        task = super().__call__(*args, **kwargs)
        if task.state is TaskState.FUTURE:  # one that is no part of a pipeline has run by now
            task.set_caching_options(False)
        return task


@dataclass(frozen=True)
class Components:
    """What the steps of a pipeline are made of. Each takes `repo`, the project's folder in the container, and `env`."""

    apply: PythonComponent
    """Applies what the project declares; FeatureStoreError where it may not be. Output `applied`: version and services."""
    materialize: PythonComponent
    """Fills the online store with what is due of all views, or of `views`. Output `online`: how far each view has come."""
    training_set: PythonComponent
    """Output `training`: a training frame as Parquet, with its manifest, of the rows of `spine`, a Parquet file."""
    audit: PythonComponent
    """The gate: fails where a value that was served since `since` is not what training says, beyond the `skew_budget` of its
    service, or fewer than `minimum_compared` values were compared. Outputs `metrics` and `report`."""


def components(**words: Any) -> Components:
    """The components for an image that has the product and the project.

    words: of `kfp.dsl.component`, such as base_image, packages_to_install and install_kfp_package.
    """
    steps = (_apply, _materialize, _training_set, _audit)
    return Components(*(_Afresh(dsl.component(step, **words).component_spec, step) for step in steps))


def _apply(repo: str, applied: dsl.Output[dsl.Artifact], env: str = "", note: str = "") -> None:
    import json
    from pathlib import Path

    from featurestore import FeatureStore

    with FeatureStore(repo, env=env or None) as store:
        version = store.apply(note=note)
        records = store.registry.version(version.number).document["services"]
    services = {name: record["fingerprint"] for name, record in records.items()}
    applied.metadata.update(version=version.number, changed=version.changed, services=services)
    Path(applied.path).write_text(json.dumps(applied.metadata))


def _materialize(
    repo: str,
    online: dsl.Output[dsl.Artifact],
    env: str = "",
    views: Optional[List[str]] = None,
) -> None:
    import json
    from pathlib import Path

    from featurestore import FeatureStore

    with FeatureStore(repo, env=env or None) as store:
        runs = store.materialize(views or None, progress=False)
        states = [state.to_dict() for state in store.status()]
    print(*runs, sep="\n")
    told = {state["view"]: {name: state[name] for name in ("fingerprint", "state", "as_of")} for state in states}
    online.metadata.update(instants=len(runs), keys=sum(run.keys for run in runs), views=told)
    Path(online.path).write_text(json.dumps(states))


def _training_set(
    repo: str,
    service: str,
    spine: dsl.Input[dsl.Dataset],
    training: dsl.Output[dsl.Dataset],
    env: str = "",
    timestamp: str = "event_timestamp",
) -> None:
    from featurestore import FeatureStore
    from featurestore.integrations.training_sets import facts

    with FeatureStore(repo, env=env or None) as store:
        frame = store.get_historical_features(spine.path, service, timestamp=timestamp)
        training.metadata.update(facts(frame.to_parquet(training.path)))


def _audit(
    repo: str,
    metrics: dsl.Output[dsl.Metrics],
    report: dsl.Output[dsl.HTML],
    env: str = "",
    since: str = "1d",
    service: str = "",
    minimum_compared: int = 1,
) -> None:
    from pathlib import Path

    from featurestore import FeatureStore, FeatureStoreError

    with FeatureStore(repo, env=env or None) as store:
        found = store.audit(since=since or None, service=service or None)
    for count in ("compared", "exact", "rewritten", "skewed"):
        metrics.log_metric(count, getattr(found, count))
    print(found.report().text())
    Path(report.path).write_text(found.report().html(), encoding="utf-8")
    if reasons := found.reasons_to_stop(minimum_compared):
        raise FeatureStoreError(f"The audit stops the pipeline: {'; '.join(reasons)}")
