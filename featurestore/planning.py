"""Plans as a store makes and carries them out: of the definitions at hand, or of some that are given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from featurestore.catalog import Catalog
from featurestore.declare.declaration import Declaration
from featurestore.declare.problems import shown
from featurestore.errors import DeclarationError
from featurestore.loading.files import definition_files, refuse_unloaded
from featurestore.project import Project
from featurestore.registry.apply import AppliedVersion, apply_plan, first_sight
from featurestore.registry.delete_online import free_project
from featurestore.registry.documents import KINDS, empty_document, view_fingerprints
from featurestore.registry.plan import make_plan
from featurestore.registry.rollout import Rollout, held_views
from featurestore.registry.steps import Plan
from featurestore.serving.log.serving_log import rows_served

LOOKS_BACK_US = 86_400_000_000
"""How far back into the serving log a plan counts the rows that a version served."""


class Planning:
    """Makes plans, and remembers how each one that was shown is made again, so that an outdated one is refused."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._made: dict[str, Callable[[], Plan]] = {}

    def plan(
        self, definitions: Iterable[Any] | None, *, accept_types: bool = False, keep: bool, retire: str | Sequence[str]
    ) -> Plan:
        """The plan of the definitions given, which removes nothing, or of all at hand; see FeatureStore.plan."""
        listed = _listed(definitions)
        if listed is None:
            self._refuse_losses()
        rollout = self._rollout(keep=keep, retire=retire)

        def make() -> Plan:
            return make_plan(
                self._project.catalog if listed is None else Catalog.of(listed),
                self._project.registry,
                offline=self._project.offline,
                remove_missing=listed is None,
                accept_types=accept_types,
                rollout=rollout,
            )

        plan = make()
        self._made[plan.digest] = make
        return plan

    def _refuse_losses(self) -> None:
        """DeclarationError where definitions would be removed because the files that declare them are not loaded."""
        config, at_hand = self._project.config, self._project.catalog
        applied = self._project.registry.current().document
        removed = {kind: applied[kind].keys() - getattr(at_hand, kind).keys() for kind in KINDS}
        if config.definitions is not None or not any(removed.values()):
            return
        files = definition_files(config)
        refuse_unloaded(files, config.root, removed)
        if not files.loaded and at_hand == Catalog():
            raise DeclarationError(
                f"{config.root} has neither definitions.py nor a package features/, so this plan would remove all that is "
                "applied. featurestore teardown does that"
            )

    def _rollout(self, *, keep: bool, retire: str | Sequence[str]) -> Rollout:
        """What is to be done with versions of services; retire: one name, or several."""
        log, since = self._project.serving_log.folder, self._project.now() - LOOKS_BACK_US

        def served(service: str, fingerprint: str) -> int | None:
            return rows_served(log, service, fingerprint, since=since) if log.exists() else None

        return Rollout(keep, (retire,) if isinstance(retire, str) else tuple(retire), served)

    def apply(
        self, definitions: Iterable[Any] | Plan | None, *, note: str, accept_types: bool = False, keep: bool,
        retire: str | Sequence[str],
    ) -> AppliedVersion:  # fmt: skip
        """Carry out a plan that was made, or the one of these definitions; see FeatureStore.apply."""
        if isinstance(definitions, Plan):
            if accept_types or keep or retire:
                raise ValueError("accept_types, keep and retire are said when the plan is made: apply(plan(keep=True))")
            make = self._made.get(definitions.digest)
            return self._apply(definitions, note, again=None if make is None else make())
        listed = _listed(definitions)
        plan = self.plan(listed, accept_types=accept_types, keep=keep, retire=retire)
        if listed is not None:
            self._project.add(listed)
        return self._apply(plan, note)

    def _apply(self, plan: Plan, note: str, *, again: Plan | None = None) -> AppliedVersion:
        project = self._project
        applied = apply_plan(
            plan,
            project.registry,
            free=project.materializer.free,
            published=project.serving.is_published,
            again=again,
            note=note,
        )
        first_sight(plan, project.offline)
        project.serving.reload()
        return applied

    def teardown(self) -> int:
        """Free everything of the project online and remove all definitions from the registry; how many keys there were."""
        project, registry = self._project, self._project.registry
        current, kept = registry.current(), registry.kept()
        held = [(held.view.name, held.view.fingerprint) for held in held_views(registry)]
        versions = {*view_fingerprints(current.document).items(), *held, *registry.leftovers()}
        deleted = free_project(project.online, registry, project.config.project, versions)
        if kept or current.document != empty_document():
            retired = [one.named for one in kept]
            registry.commit(empty_document(), expected=current.number, note="teardown", retire=retired)
        for view, fingerprint in registry.leftovers():
            registry.freed(view, fingerprint)
        project.serving.reload()
        return deleted


def _listed(definitions: object) -> list[Any] | None:
    """The definitions that are given, one alone too; None where none are."""
    if definitions is None or isinstance(definitions, Declaration):
        return None if definitions is None else [definitions]
    if isinstance(definitions, str) or not isinstance(definitions, Iterable):
        raise DeclarationError(
            f"A plan is of a list of definitions, such as [view, service], and not of {shown(definitions)}"
        )
    return list(definitions)
