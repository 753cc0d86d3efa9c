"""What logged rows are compared by: the rows of sources, and what the journals say of a view.

On one machine both lie in the project. Where an engine compares, they are taken there first, and go along.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from featurestore.declare.push import PushSource
from featurestore.lazy import pa
from featurestore.project import Project
from featurestore.reports.audit.history import file_source, other_versions, stays_of
from featurestore.reports.journals import Completions, completions_of
from featurestore.semantics.view import ResolvedView
from featurestore.sources.arrivals import Stay
from featurestore.sources.log.returns import Return
from featurestore.sources.offline import Offline
from featurestore.sources.session import Session
from featurestore.sources.source_files import SourceFile
from featurestore.types import LAST_MICRO


@dataclass(frozen=True)
class ViewEvidence:
    """What the journals say of one view version."""

    runs: Completions
    """When each of its instants was complete."""

    stays: tuple[Stay, ...]
    """When the files of its source were there."""

    returns: tuple[Return, ...]
    """When the online store was found to have gone back, of a view that pushes keep."""

    erased_until: int | None
    """Until when (µs) rows of forgotten keys were erased; None where none were."""

    others: Iterable[ResolvedView]
    """The other versions of it that were ever applied, newest first."""


def evidence_of(project: Project, view: ResolvedView) -> ViewEvidence:
    """What there is of a view version now. Raises RegistryError and LogError."""
    source, offline = view.source, project.offline
    returns = offline.log(source).returns() if view.is_pushed and isinstance(source, PushSource) else []
    erased = [one for one in project.registry.forgettings() if source.name in one.sources]
    until = max((LAST_MICRO if one.done_at is None else one.done_at for one in erased), default=None)
    of = file_source(source)
    stays = () if of is None else stays_of(of, offline)
    return ViewEvidence(completions_of(project, view), stays, tuple(returns), until, other_versions(project, view))


@dataclass(frozen=True)
class Ground:
    """What logged rows are compared by. evidence: of a view. files, rows: by source what its sessions read, where that is not what lies
    there now."""

    offline: Offline
    evidence: Callable[[ResolvedView], ViewEvidence]
    files: Mapping[str, tuple[SourceFile, ...]] = field(default_factory=dict)
    rows: Mapping[str, pa.Table] = field(default_factory=dict)

    @classmethod
    def of(cls, project: Project) -> Ground:
        """What lies in a project now."""
        return cls(project.offline, partial(evidence_of, project))

    @contextmanager
    def session(self, files: Mapping[str, tuple[SourceFile, ...]] | None = None) -> Iterator[Session]:
        """A session over the rows. files: of some sources, to be read instead."""
        with self.offline.session(files={**self.files, **(files or {})}, rows=self.rows) as session:
            yield session
