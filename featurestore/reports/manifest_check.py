"""Check a manifest: is what a model was trained on what is applied, what is at hand and what is served, and what differs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from featurestore.declare.services import ADHOC
from featurestore.errors import FeatureStoreError, FingerprintError
from featurestore.project import Project
from featurestore.registry.diff import Change, changes
from featurestore.registry.store import ServiceVersion
from featurestore.report import Report, Reported, plain_fields
from featurestore.serving.feature_list import selections_of
from featurestore.training.manifest import Manifest, library_versions

AppliedState = Literal["applied", "kept", "replaced", "never applied"]


@dataclass(frozen=True)
class ManifestCheck(Reported):
    """A manifest compared with a store."""

    manifest: Manifest
    state: AppliedState
    """What the registry says of its service version."""
    refusal: str | None
    """Why it is refused when it is presented; None where it is served."""
    unfilled: tuple[str, ...]
    """Those of its views that have no values online yet."""
    applied: tuple[Change, ...] | None
    """What differs in the service that is applied now; None where there is none of the name, or its definition is not known."""
    at_hand: tuple[Change, ...] | None
    """The same of the service that is declared here; of a list of features, of what it would give now."""
    libraries: dict[str, tuple[str | None, str | None]]
    """Name → the version that it was made with and the version here, where they differ; None where it is not there."""
    notes: tuple[str, ...] = ()
    """What could not be compared, and why."""

    @property
    def same(self) -> bool:
        """Whether the definitions that are applied are those of the manifest."""
        return self.state == "applied"

    @property
    def served(self) -> bool:
        """Whether a lookup that presents the manifest gets values now."""
        return self.refusal is None and not self.unfilled

    def refuse_others(self, title: str) -> None:
        """FingerprintError where the definitions at hand give other values than those of the manifest, or are not there. title:
        what was made of it, for the message."""
        if self.at_hand or (self.at_hand is None and self.state not in ("applied", "kept")):
            differs = "".join(f"\n  {change}" for change in self.at_hand or ()) or "".join(
                f"\n  {note}" for note in self.notes
            )
            raise FingerprintError(
                f"{title} is of {self.manifest}, and the definitions at hand are not those; make it anew, or take the definitions "
                f"that it was made with{differs and f'. What changed since:{differs}'}",
                changes=self.at_hand or (),
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        own = ("state", "served", "refusal", "unfilled", "applied", "at_hand", "libraries", "notes")
        return {**plain_fields(self.manifest, "service", "fingerprint"), **plain_fields(self, *own)}

    def report(self) -> Report:
        """What is the same, and what differs."""
        lines = []
        if self.unfilled:
            lines.append(f"  without values online: {', '.join(self.unfilled)}; run featurestore materialize")
        for title, found in (("applied", self.applied), ("at hand", self.at_hand)):
            lines.append(f"  {title}: {'nothing to compare' if found is None else 'other' if found else 'the same'}")
            lines += [f"    {change}" for change in found or ()]
        lines += [
            f"  library {name}: made with {made or 'none'}, here {here or 'none'}"
            for name, (made, here) in self.libraries.items()
        ]
        lines += [f"  {note}" for note in self.notes]
        return Report(f"Manifest {self.manifest}: {self.state}, {'served' if self.served else 'not served'}", lines)


def check_manifest(manifest: Manifest, project: Project) -> ManifestCheck:
    """Compare a manifest with what is applied, at hand and online. Raises RegistryError, OnlineStoreError."""
    version = project.serving.present(manifest)
    found = project.registry.find_service(*version)
    definition = manifest.definition
    if definition is None and found is not None:
        definition = found.document["services"][version.service]["definition"]
    record = project.registry.current().document["services"].get(version.service)
    refusal, unfilled = None, []
    try:
        unfilled = project.serving.unfilled(project.serving.lookup(*version).service)
    except FingerprintError as error:
        refusal = str(error)
    at_hand, notes = None, []
    try:
        declared: Any = project.catalog.services.get(version.service)
        if declared is None and version.service == ADHOC and definition is not None:
            declared = selections_of(definition, project.definitions)
        if declared is not None:
            at_hand = _changes(definition, project.service(declared).definition)
    except FeatureStoreError as error:
        notes.append(f"the service at hand cannot be settled: {error}")
    here = library_versions()
    made = manifest.versions
    return ManifestCheck(
        manifest,
        _state(version, project, known=found is not None),
        refusal,
        tuple(unfilled),
        None if record is None else _changes(definition, record["definition"]),
        at_hand,
        {name: (made.get(name), here.get(name)) for name in {**made, **here} if made.get(name) != here.get(name)},
        tuple(notes),
    )


def _changes(definition: dict[str, Any] | None, other: dict[str, Any]) -> tuple[Change, ...] | None:
    return None if definition is None else changes(definition, other)


def _state(version: ServiceVersion, project: Project, *, known: bool) -> AppliedState:
    record = project.registry.current().document["services"].get(version.service)
    if record is not None and record["fingerprint"] == version.fingerprint:
        return "applied"
    if any(kept.named == version for kept in project.registry.kept()):
        return "kept"
    return "replaced" if known else "never applied"
