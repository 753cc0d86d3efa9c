"""apply: carry out the steps of a plan, once, and only while it is still what would be planned."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from featurestore.errors import PlanOutdatedError, SourceError
from featurestore.registry.documents import catalog_of, digest_of
from featurestore.registry.rollout import Free, Published, free_version
from featurestore.registry.steps import FreeOnline, KeepVersion, Plan, Refill, RetireVersion
from featurestore.registry.store import Registry, ServiceVersion
from featurestore.sources.offline import Offline


@dataclass(frozen=True)
class AppliedVersion:
    """What apply did."""

    number: int
    """The registry's version now."""
    changed: bool
    """Whether this call made it."""
    freed: tuple[tuple[str, str, int], ...] = ()
    """Views whose old versions were deleted online: name, fingerprint and the number of keys of each."""
    waiting: tuple[FreeOnline, ...] = ()
    """Versions to be deleted online once what replaces them is served."""
    refill: tuple[Refill, ...] = ()
    """Views that materialize has to fill before they can be served."""
    kept: tuple[KeepVersion, ...] = ()
    retired: tuple[RetireVersion, ...] = ()


def _never(_view: str, _fingerprint: str) -> bool:
    return False


def apply_plan(
    plan: Plan,
    registry: Registry,
    *,
    free: Free,
    published: Published = _never,
    again: Plan | None = None,
    note: str = "",
) -> AppliedVersion:
    """Make the plan's document the registry's current version, then free what is served no more.

    again: the same plan made once more just now; where its digest differs, the definitions or a source's columns changed
    since `plan` was shown. Applying a plan that was applied already, by whomever, changes nothing and frees what is left.

    Raises PlanOutdatedError, with nothing done, where the registry or the definitions are not those of the plan.
    """
    if again is not None and again.digest != plan.digest:
        raise PlanOutdatedError(
            f"The plan shown ({plan.digest[:8]}, against version {plan.base}) is not what would be done now "
            f"({again.digest[:8]}, against version {again.base}): a definition, a source's columns or the registry "
            "changed since. Look at the new plan, and apply that"
        )
    number, changed = _commit(plan, registry, note)
    wanted = [step for step in plan.steps if isinstance(step, FreeOnline)]
    freed, left = [], set(registry.leftovers())
    for step in wanted:
        ready = step.replaced_by is None or published(step.view, step.replaced_by)
        if ready and (step.view, step.fingerprint) in left:
            freed.append(free_version(registry, free, step.view, step.fingerprint))
    done = {(view, fingerprint) for view, fingerprint, _ in freed}
    return AppliedVersion(
        number,
        changed,
        tuple(freed),
        waiting=tuple(step for step in wanted if (step.view, step.fingerprint) in left - done),
        refill=tuple(step for step in plan.steps if isinstance(step, Refill)),
        kept=tuple(step for step in plan.steps if isinstance(step, KeepVersion)),
        retired=tuple(step for step in plan.steps if isinstance(step, RetireVersion)),
    )


def first_sight(plan: Plan, offline: Offline) -> None:
    """Journal the files that lie in the sources whose rows are known from their arrival; RegistryError where it fails."""
    for source in catalog_of(plan.document).sources.values():
        if source.arrives:
            with contextlib.suppress(SourceError):  # a source of an earlier version whose files are gone
                offline.see(source, must=True)


def _commit(plan: Plan, registry: Registry, note: str) -> tuple[int, bool]:
    """The registry's version with the plan's document, and whether this call made it rather than one before or beside it."""
    keep, retire = _versions(plan)
    if not _is_applied(plan, registry):
        try:
            number = registry.commit(plan.document, expected=plan.base, note=note, keep=keep, retire=retire)
        except PlanOutdatedError:
            if not _is_applied(plan, registry):
                raise
        else:
            return number, True
    return registry.generation(), False


def _versions(plan: Plan) -> tuple[list[ServiceVersion], list[ServiceVersion]]:
    """The service versions that the plan's steps keep and retire."""
    return (
        [step.version for step in plan.steps if isinstance(step, KeepVersion)],
        [step.version for step in plan.steps if isinstance(step, RetireVersion)],
    )


def _is_applied(plan: Plan, registry: Registry) -> bool:
    current = registry.current()
    if current.number not in {plan.base, plan.base + 1} or current.digest != digest_of(plan.document):
        return False
    keep, retire = map(set, _versions(plan))
    kept = {one.named for one in registry.kept()}
    return keep <= kept and not retire & kept
