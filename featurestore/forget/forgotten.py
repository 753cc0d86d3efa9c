"""What a call of forget did, or would do."""

from __future__ import annotations

from dataclasses import dataclass

from featurestore.report import Report, Reported, ReportTable


@dataclass(frozen=True)
class Forgotten(Reported):
    """How much of a key was erased; which key, it does not say."""

    entity: str
    """The name of the entity whose key it was."""
    columns: tuple[str, ...]
    """The key columns that were given."""
    at: int
    """Rows of it that were learned by then (µs) do not count any more."""
    records: dict[str, int]
    """By view, how many records were online, over all versions of it."""
    log_rows: dict[str, int]
    """By push source, how many rows of its log were emptied."""
    late_rows: dict[str, int]
    """The same of the rows that came too late to count, that are in quarantine, and that were taken back."""
    served_rows: int
    """How many rows the serving log had."""
    refilled: tuple[str, ...]
    """The views of other keys that counted rows of it, and were filled again."""
    sources: tuple[str, ...]
    """The sources that are the user's to erase: until they are, rows of the key in them do not count."""
    notices: tuple[str, ...] = ()
    """What else is to be known, a sentence each."""
    dry_run: bool = False
    """Nothing was done; it is what would be."""

    def report(self) -> Report:
        """What goes, by place."""
        rows: list[tuple[object, ...]] = [("online", view, count) for view, count in self.records.items()]
        rows += [("push log", source, count) for source, count in self.log_rows.items()]
        rows += [("late, in quarantine or taken back", source, count) for source, count in self.late_rows.items()]
        rows.append(("serving log", "", self.served_rows))
        key = f"a key of entity '{self.entity}' by {', '.join(self.columns)}"
        title = f"Would forget {key}:" if self.dry_run else f"Forgot {key}:"
        notes = list(self.notices)
        if self.refilled:
            filled = "would be filled again" if self.dry_run else "were filled again"
            notes.append(f"Views that counted rows of it under other keys, and {filled}: {', '.join(self.refilled)}.")
        if self.sources:
            notes.append(
                f"Yours to erase, and not counted until then: rows in {', '.join(self.sources)}, and training frames that were written."
            )
        return Report(title, (ReportTable(("where", "what", "rows"), rows), *notes))
