"""A plan: the steps from what was applied to what is declared, as they are printed.

`apply` stores the document of a plan as a whole and frees what it may; materialize does the refills, and the deletions that
wait for them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any, ClassVar

from featurestore.plurals import plural
from featurestore.registry.diff import Change, changes, code_changes
from featurestore.registry.documents import BESIDE, KINDS, Document, Record, view_fingerprints
from featurestore.registry.store import KeptVersion, ServiceVersion
from featurestore.report import Report, Reported, ReportTable, plain
from featurestore.semantics.view import fingerprint_of


@dataclass(frozen=True)
class _WholeDefinition:
    """A definition that is there only before, or only after. `kind` is a part of the document: "views", "services", …"""

    kind: str
    name: str
    fingerprint: str

    SIGN: ClassVar[str]

    def lines(self) -> list[str]:
        """What is printed of it."""
        return [f"{self.SIGN} {self.name}"]


class AddDefinition(_WholeDefinition):
    """A definition that was not there."""

    SIGN = "+"


class RemoveDefinition(_WholeDefinition):
    """A definition that is declared no more."""

    SIGN = "-"


@dataclass(frozen=True)
class ChangeValue:
    """A definition whose values may be others from now on."""

    kind: str
    name: str
    before: str
    after: str
    changes: tuple[Change, ...]
    code: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What is printed of it: each field, and of an on-demand feature's code each line."""
        head = f"~ {self.name}  {self.before[:8]} → {self.after[:8]}"
        return [head, *(f"    {change}" for change in self.changes), *(f"    {line}" for line in self.code)]


@dataclass(frozen=True)
class ChangeLabel:
    """A change that changes no value: description, owner, tags, where the data lies, how a file stores the same type."""

    kind: str
    name: str
    changes: tuple[Change, ...]

    def lines(self) -> list[str]:
        """What is printed of it."""
        return [f"~ {self.name}  no value changes", *(f"    {change}" for change in self.changes)]


@dataclass(frozen=True)
class Refill:
    """A view version that has no values online until materialize has filled it for the first time."""

    view: str
    fingerprint: str
    reason: str

    def lines(self) -> list[str]:
        """What is printed of it."""
        return [f"refill {self.view} {self.fingerprint[:8]}: {self.reason}"]


@dataclass(frozen=True)
class FreeOnline:
    """The online keys of a view version that is served no more; `replaced_by` must be served before they are freed."""

    view: str
    fingerprint: str
    replaced_by: str | None = None

    def lines(self) -> list[str]:
        """What is printed of it."""
        when = f"once {self.replaced_by[:8]} is served" if self.replaced_by else "it was removed"
        return [f"free {self.view} {self.fingerprint[:8]}: {when}"]


@dataclass(frozen=True)
class KeepVersion:
    """A service version that another takes the place of, and that is served on to clients that name its fingerprint.

    code: its on-demand features whose code changes: only a process that has the code as it was can evaluate them.
    """

    service: str
    fingerprint: str
    code: tuple[str, ...] = ()

    @property
    def version(self) -> ServiceVersion:
        """The service version."""
        return ServiceVersion(self.service, self.fingerprint)

    def lines(self) -> list[str]:
        """What is printed of it."""
        head = f"keep {self.service} {self.fingerprint[:8]}: served on to clients that name its fingerprint"
        return [head, *(f"    only by a process that has the code of {name} as it was" for name in self.code)]


@dataclass(frozen=True)
class RetireVersion:
    """A service version that is served no more. frees: the names of its views that are freed then; the others are read by
    services that stay. successor: the version that takes its place, None where no service of the name is left.

    rows: how many rows of it were logged as served in the last day, None where nothing is logged; no part of a digest.
    """

    service: str
    fingerprint: str
    successor: str | None
    frees: tuple[str, ...]
    rows: int | None = field(default=None, compare=False)

    @property
    def version(self) -> ServiceVersion:
        """The service version."""
        return ServiceVersion(self.service, self.fingerprint)

    def lines(self) -> list[str]:
        """What is printed of it."""
        if not self.frees:
            when = "nothing is freed; clients that name it are answered while its views are read by others"
        elif self.successor is None:
            when = "no service of that name is left"
        else:
            when = f"freed once its successor {self.successor[:8]} is served"
        head = f"retire {self.service} {self.fingerprint[:8]}: {when}"
        return (
            [head]
            if not self.rows
            else [
                head,
                f"    {self.rows:,} {plural(self.rows, 'row of it was', 'rows of it were')} logged in the last day",
            ]
        )


DefinitionStep = AddDefinition | ChangeValue | ChangeLabel | RemoveDefinition
VersionStep = KeepVersion | RetireVersion
Step = DefinitionStep | Refill | VersionStep | FreeOnline


@dataclass(frozen=True)
class Notice:
    """Something to know about a definition, computed from it or its data; it changes nothing and stops nothing.

    act: whether somebody should do something about it; else it is for information.
    """

    kind: str
    name: str
    text: str
    act: bool = False

    def __str__(self) -> str:
        return f"{KINDS[self.kind]} '{self.name}': {self.text}"


@dataclass(frozen=True)
class Plan(Reported):
    """What `apply` will do."""

    base: int
    """The registry's version that it was made against; 0 where nothing was applied."""
    document: Document
    """All definitions as they would be applied, as plain JSON."""
    steps: tuple[Step, ...]
    """What is done, in order; empty where there is nothing to do."""
    notices: tuple[Notice, ...] = ()
    """What is to be known of it."""
    kept: tuple[KeptVersion, ...] = ()
    """The service versions that were kept before and stay so."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do; notices may be there nevertheless."""
        return not self.steps

    @cached_property
    def digest(self) -> str:
        """Equal for two plans that do the same to the same version; what notices say about the data is no part of it."""
        return fingerprint_of(
            [self.base, self.document, [{**step, "rows": None} if "rows" in step else step for step in self._steps()]]
        )

    def _steps(self) -> list[dict[str, Any]]:
        return [{"step": type(step).__name__, **_plain(asdict(step))} for step in self.steps]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: base, digest, is_empty, steps, kept and notices; the document itself is left out."""
        return {
            "base": self.base,
            "digest": self.digest,
            "is_empty": self.is_empty,
            "steps": self._steps(),
            "kept": [{"service": kept.service, "fingerprint": kept.fingerprint} for kept in self.kept],
            "notices": plain(self.notices),
        }

    def of_kind(self, kind: str) -> tuple[DefinitionStep, ...]:
        """The steps about one part of the document."""
        return tuple(step for step in self.steps if isinstance(step, DefinitionStep) and step.kind == kind)

    def _sections(self) -> Iterator[tuple[str, list[str]]]:
        """Titles and the lines below them, in the order of printing, which is that of executing."""
        for kind, noun in KINDS.items():
            title = f"{noun[0].upper()}{noun[1:-1]}ies" if noun.endswith("y") else f"{noun[0].upper()}{noun[1:]}s"
            yield title, [line for step in self.of_kind(kind) for line in step.lines()]
        stays = [f"kept {kept.service} {kept.fingerprint[:8]}: since version {kept.version + 1}" for kept in self.kept]
        yield (
            "Versions",
            [line for step in self.steps if isinstance(step, VersionStep) for line in step.lines()] + stays,
        )
        others = [step for step in self.steps if isinstance(step, (Refill, FreeOnline))]
        yield "Online", [line for step in others for line in step.lines()]
        yield "Notices", list(_notice_lines(self.notices))

    def _summary(self) -> str:
        if self.is_empty:
            count = sum(len(self.document[kind]) for kind in KINDS)
            return f"Nothing to change: {count} definitions are as applied (version {self.base})."
        counts = [
            (sum(isinstance(step, of) for step in self.steps), what)
            for of, what in (
                (AddDefinition, "to add"),
                (ChangeValue, "to change"),
                (ChangeLabel, "to change without changing a value"),
                (RemoveDefinition, "to remove"),
                (KeepVersion, "to keep"),
                (RetireVersion, "to retire"),
                (Refill, "to refill"),
                (FreeOnline, "to free"),
            )
        ]
        return ", ".join(f"{count} {what}" for count, what in counts if count) + "."

    def report(self) -> Report:
        """The steps by the part that they are about, and how many of each kind there are."""
        sections = [
            Report(title, (ReportTable((), [(line,) for line in lines]),)) for title, lines in self._sections() if lines
        ]
        return Report(f"Plan {self.digest[:8]} against version {self.base}", (*sections, self._summary()))


def _notice_lines(notices: Iterable[Notice]) -> Iterator[str]:
    """The notices below what they are about, those to act upon first; what is said of several is said once."""
    names: dict[tuple[str, bool, str], list[str]] = {}
    for notice in notices:
        names.setdefault((notice.kind, notice.act, notice.text), []).append(notice.name)
    groups: dict[tuple[str, tuple[str, ...]], list[tuple[bool, str]]] = {}
    for (kind, act, text), about in names.items():
        groups.setdefault((kind, tuple(dict.fromkeys(about))), []).append((act, text))
    for (kind, about_all), said in groups.items():
        listed = ", ".join(f"'{name}'" for name in about_all)
        yield f"{plural(len(about_all), KINDS[kind])} {listed}"
        yield from (
            f"  {'act' if act else 'for information'}: {text}" for act, text in sorted(said, key=lambda one: not one[0])
        )


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    """A step's fields as plain JSON: each Change as its three texts."""
    if "changes" in fields:
        fields["changes"] = [list(change) for change in fields["changes"]]
    return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


def steps_between(
    before: Document,
    after: Document,
    *,
    leftovers: Iterable[tuple[str, str]] = (),
    versions: Sequence[VersionStep] = (),
    kept_before: Iterable[tuple[str, str]] = (),
    kept_after: Iterable[tuple[str, str]] = (),
) -> tuple[Step, ...]:
    """The steps from one document to another.

    leftovers: view versions (name, fingerprint) whose keys an earlier apply was to free and did not, because it died.
    versions: what becomes of service versions. kept_before, kept_after: the view versions that kept service versions read before,
    and will read then.
    """
    definitions = [step for kind in KINDS for step in _definition_steps(kind, before[kind], after[kind])]
    old, new = view_fingerprints(before), view_fingerprints(after)
    online, live = {*old.items(), *kept_before}, {*new.items(), *kept_after}
    refills = [
        Refill(name, fingerprint, "its definition changes" if name in old else "it is new")
        for name, fingerprint in new.items()
        if (name, fingerprint) not in online
    ]
    gone = online - live
    dead = {version for version in leftovers if version[0] not in new and version not in live}
    frees = [FreeOnline(name, fingerprint, new.get(name)) for name, fingerprint in sorted(gone | dead)]
    return (*definitions, *refills, *versions, *frees)


def _definition_steps(kind: str, before: dict[str, Record], after: dict[str, Record]) -> Iterator[DefinitionStep]:
    for name in sorted({**before, **after}):
        if name not in before:
            yield AddDefinition(kind, name, after[name]["fingerprint"])
        elif name not in after:
            yield RemoveDefinition(kind, name, before[name]["fingerprint"])
        elif before[name]["fingerprint"] != after[name]["fingerprint"]:
            yield _change(kind, name, before[name], after[name])
        elif beside := changes(_written(before[name]), _written(after[name])):
            yield ChangeLabel(kind, name, beside)


def _written(record: Record) -> dict[str, Any]:
    """All that may differ between two records of one fingerprint; the listing of equal code differs by Python version."""
    declared = {
        name: value
        for name, value in record["declared"].items()
        if name != "source" or "code" not in record["declared"]
    }
    return {**declared, "raw": record.get("raw", {})}


def _change(kind: str, name: str, before: Record, after: Record) -> ChangeValue:
    old, new = before["definition"], after["definition"]
    found = _service_changes(old, new) if kind == "services" else changes(old, new)
    code: tuple[str, ...] = ()
    if kind == "on_demand":
        found = tuple(change for change in found if change.field != "code")  # two hashes; the lines say more
        code = code_changes(before["declared"]["source"], after["declared"]["source"])
    beside = changes(_beside(before), _beside(after))
    return ChangeValue(kind, name, before["fingerprint"], after["fingerprint"], (*found, *beside), code)


def _beside(record: Record) -> dict[str, Any]:
    return {word: value for word, value in record["declared"].items() if word in BESIDE}


def _service_changes(old: dict[str, Any], new: dict[str, Any]) -> tuple[Change, ...]:
    """A service's own changes; of a view or function that changed only the fingerprint, since it has its own step."""

    def short(definition: dict[str, Any]) -> dict[str, Any]:
        parts = {
            name: {**part, "view": f"{part['view']['view']} {fingerprint_of(part['view'])[:8]}"}
            for name, part in definition["parts"].items()
        }
        code = {name: {**item, "code": item["code"][:8]} for name, item in definition["on_demand"].items()}
        return {**definition, "parts": parts, "on_demand": code}

    return changes(short(old), short(new))
