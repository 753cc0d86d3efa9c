"""What becomes of a repository of Feast's, as it is told: on a terminal, as JSON, and in the README of what is written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from featurestore.migrate.export_recipes import Export
from featurestore.migrate.frame_differences import CAUSES, UNEXPLAINED, DifferingCell, FrameDifferences
from featurestore.migrate.move_result import MeaningDifference, Refusal
from featurestore.plurals import plural
from featurestore.report import Report, Reported, ReportTable


@dataclass(frozen=True)
class ImportReport(Reported):
    """What became of a repository of Feast's: what was written, what differs, what is refused, and the proof."""

    project: str
    """The project's name here."""
    feast: str
    """The version of Feast that read it."""
    read_from: str
    """ "files" or "registry"."""
    out: str
    written: dict[str, int]
    """How many definitions were written, by kind."""
    declared: dict[str, int]
    """How many Feast declares, by kind."""
    differences: list[MeaningDifference]
    refused: list[Refusal]
    exports: list[Export]
    absent: list[str]
    """Libraries that its files import and that are not installed beside Feast: stand-ins took their place."""
    compared: list[FrameDifferences] | None
    """The proof, view by view; None where none was made."""
    files: list[str] = field(default_factory=list)

    @property
    def unexplained(self) -> int:
        """Values that differ for no known cause."""
        return sum(one.causes.get(UNEXPLAINED, 0) for one in self.compared or ())

    @property
    def without_rows(self) -> list[str]:
        """The sources, by their names here, of which no rows are at hand: to be exported, or files that are not there."""
        missing = [one.about for one in self.differences if one.matter == "no data"]
        return sorted({*(one.source for one in self.exports), *missing})

    def report(self) -> Report:
        """What is shown of it on a terminal."""
        parts: list[str | ReportTable | Report] = [_summary(self)]
        rows = [[one.about, one.matter, one.there, one.here, one.why] for one in self.differences]
        if rows:
            parts.append(
                Report("What means another thing here", (ReportTable(("of", "what", "Feast", "here", "why"), rows),))
            )
        if self.refused:
            refused = [[one.kind, one.name, one.why, one.instead] for one in self.refused]
            parts.append(Report("Refused", (ReportTable(("kind", "name", "why", "instead"), refused),)))
        if self.exports:
            parts.append(
                Report(
                    "To be exported first",
                    tuple(f"{one.source} ({one.system}): {one.commands}" for one in self.exports),
                )
            )
        parts += [Report("Proof", tuple(_proof_parts(self)))]
        return Report(f"Feast's project {self.project}", tuple(parts))

    def markdown(self) -> str:
        """The README of what is written."""
        return "\n".join(_markdown(self)) + "\n"


def _summary(report: ImportReport) -> str:
    written = ", ".join(f"{count} {kind}" for kind, count in report.written.items())
    declared = ", ".join(f"{count} {kind}" for kind, count in report.declared.items())
    return f"Feast {report.feast} declares {declared}. Written into {report.out}: {written}. Refused: {len(report.refused)}."


def _proof_parts(report: ImportReport) -> Iterator[str | ReportTable]:
    if report.compared is None:
        yield "No frames were compared: no rows are at hand, or --no-prove said so."
        return
    yield _proof_sentence(report)
    rows = [[one.name, one.rows, one.cells, one.equal, _causes(one), one.problem or ""] for one in report.compared]
    yield ReportTable(("view", "rows", "values", "equal", "differ, by cause", "not compared"), rows)


def _proof_sentence(report: ImportReport) -> str:
    frames = report.compared or []
    cells, equal = sum(one.cells for one in frames), sum(one.equal for one in frames)
    explained = cells - equal - report.unexplained
    return (
        f"Training frames of both stores over sample spines: {equal:,} of {cells:,} {plural(cells, 'value is', 'values are')} equal; {explained:,} differ for a "
        f"known cause, {report.unexplained:,} for none."
    )


def _causes(one: FrameDifferences) -> str:
    return ", ".join(f"{cause} {count:,}" for cause, count in sorted(one.causes.items()))


def _markdown(report: ImportReport) -> Iterator[str]:
    yield from (f"# {report.project}", "", f"Written by `featurestore import-feast`. {_summary(report)}", "")
    yield from _next_steps(report)
    if report.exports:
        yield from (
            "## To be exported first",
            "",
            "Only files are read here. Run these, and put what they write into the folders below this one.",
            "",
        )
        for one in report.exports:
            yield from (f"### {one.source}: {one.system}, into `{one.folder}/`", "", "```text", one.commands, "```", "")
    yield from (
        "## What means another thing here",
        "",
        "| of | what | Feast | here | why |",
        "| --- | --- | --- | --- | --- |",
    )
    yield from (_row(one.about, one.matter, one.there, one.here, one.why) for one in report.differences)
    yield ""
    yield from ("## Refused", "")
    if report.refused:
        yield from ("| kind | name | why | instead |", "| --- | --- | --- | --- |")
        yield from (_row(one.kind, one.name, one.why, one.instead) for one in report.refused)
    else:
        yield "Nothing."
    if report.absent:
        yield from (
            "",
            f"Not installed beside Feast, and imported by its files, so that stand-ins took their place: {', '.join(report.absent)}.",
        )
    yield from ("", *_markdown_proof(report))


def _next_steps(report: ImportReport) -> Iterator[str]:
    yield from ("## Next", "")
    if report.without_rows:
        sources = ", ".join(report.without_rows)
        yield f"First the rows of {sources}: none are at hand. Export them as below, or put the files where `definitions.py` says."
        yield ""
    yield "```text"
    yield from (
        "featurestore plan          # what apply would do, and what the rules cost",
        "featurestore apply",
        "featurestore materialize",
    )
    yield from ("```", "")


def _markdown_proof(report: ImportReport) -> Iterator[str]:
    yield from ("## Proof", "")
    if report.compared is None:
        yield "No frames were compared: no rows are at hand, or `--no-prove` said so."
        return
    yield from (_proof_sentence(report), "")
    yield from (
        "| view | rows | values | equal | differ, by cause | not compared |",
        "| --- | --- | --- | --- | --- | --- |",
    )
    yield from (
        _row(one.name, one.rows, one.cells, one.equal, _causes(one), one.problem or "") for one in report.compared
    )
    causes = sorted({cause for one in report.compared for cause in one.causes})
    if causes:
        yield from ("", "| cause | what it is |", "| --- | --- |")
        yield from (_row(cause, CAUSES[cause]) for cause in causes)
        yield from (
            "",
            "The first value of each feature that differs, by cause:",
            "",
            "| of | key | at | Feast | here | cause |",
            "| --- | --- | --- | --- | --- | --- |",
        )
        first: dict[tuple[str, str], DifferingCell] = {}
        for one in report.compared:
            for cell in one.examples:
                first.setdefault((cell.of, cell.cause), cell)
        yield from (
            _row(cell.of, cell.key, cell.at, repr(cell.feast), repr(cell.here), cell.cause) for cell in first.values()
        )


def _row(*cells: object) -> str:
    return "| " + " | ".join(" ".join(str(cell).replace("|", "\\|").split()) for cell in cells) + " |"
