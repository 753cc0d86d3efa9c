"""How Ray spreads an audit: a task for some files of the serving log, which no row but counts and examples leaves."""

from __future__ import annotations

from dataclasses import dataclass

from featurestore.engines.audit_tasks import AuditTask
from featurestore.engines.ray.ray_rows import remote, result_of, worker_versions
from featurestore.engines.ray.ray_tasks import audit_group


@dataclass(frozen=True)
class RayAudits:
    """Runs audit tasks by Ray's workers: the `AuditMover` that Ray is."""

    def outcomes(self, task: AuditTask) -> list[bytes]:
        """What each group says, in their order."""
        import ray
        from ray import cloudpickle

        said, audit, versions = ray.put(cloudpickle.dumps(task)), remote(audit_group, task.limits), worker_versions()
        found: list[bytes] = result_of([audit.remote(said, versions, number) for number in range(len(task.groups))])
        return found
