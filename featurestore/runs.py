"""Runs of materialize as a store makes them: of the views that are applied, by hand or whenever one is due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event

from featurestore.materialize.follow import FollowedProject, Follower
from featurestore.materialize.materialize import Run, RunEngine
from featurestore.materialize.progress import Progress
from featurestore.project import Project
from featurestore.registry.rollout import free_leftovers
from featurestore.said_once import SaidOnce
from featurestore.semantics.view import ResolvedView

MATERIALIZED = "those that are applied are materialized", "there is nothing to materialize"


class Runs:
    """Materializes applied views; see the methods of FeatureStore, whose words these are."""

    def __init__(self, project: Project, said: SaidOnce) -> None:
        self._project, self._said = project, said

    def materialize(
        self,
        views: Sequence[str] | None,
        *,
        full: bool,
        progress: bool,
        stop: Event | None = None,
        engine_of: Callable[[ResolvedView], RunEngine | None] = lambda _: None,
    ) -> list[Run]:
        """The runs of what is due, the records of a view being written where `engine_of` says; None: in this process."""
        self._say_differences()
        fill, stops = self._project.materializer.materialize, (stop or Event()).is_set
        runs: list[Run] = []
        for view in self._project.applied(views):
            runs += fill(view, full=full, progress=Progress(shown=progress, stop=stops), engine=engine_of(view))
        self._free_leftovers()
        return runs

    def follow(self, stop: Event, views: Sequence[str] | None, *, every_seconds: float) -> None:
        """Materialize whatever becomes due, until `stop` is set."""
        self._say_differences()
        project = self._project
        project.check_applied(views)
        followed = FollowedProject(
            project.registry, project.online, project.materializer, project.config.project, project.rebound, self._free_leftovers,
        )  # fmt: skip
        Follower(followed, views=views, every_seconds=every_seconds).follow(stop)

    def _say_differences(self) -> None:
        self._said.say(self._project.differences().told(*MATERIALIZED))

    def _free_leftovers(self) -> None:
        free, published = self._project.materializer.free, self._project.serving.is_published
        free_leftovers(self._project.registry, free=free, published=published)
