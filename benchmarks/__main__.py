"""python -m benchmarks [training|materialize|statistics|lookup|http|console|client|serving-log|imports|windows|tiles|fast-paths|push|refresh|audit|explain|object-store|scale|growth|estimate|backfill|cluster|capacity|engines|all]

[--small] [--pairs N] [--json]
"""

from enum import Enum
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from benchmarks import report
from benchmarks.comparisons import GROUPS, Comparison
from benchmarks.data import dataset, located
from benchmarks.pairs import Figures, JobError, alternate

Group = Enum("Group", {name: name for name in (*GROUPS, "all")}, type=str)


def _measured(comparison: Comparison, root: str, pairs: int, console: Console) -> list[list[Figures]]:
    with console.status(escape(comparison.name)) as status, comparison.setup(root) as told:
        jobs = [job.told(told) for job in comparison.jobs]
        return alternate(
            jobs,
            pairs,
            warmups=comparison.warmups,
            progress=lambda text: status.update(escape(f"{comparison.name}: {text}")),
        )


def main(
    group: Annotated[Group, typer.Argument(help="What to measure.")] = Group["all"],
    small: Annotated[bool, typer.Option("--small", help="A tenth of the data: to see that it runs.")] = False,
    pairs: Annotated[int, typer.Option(min=1, help="Rounds that count, after one that does not.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on stdout, as soon as they are known.")] = False,
) -> None:
    """Measure the product beside what one would write by hand, in turn, each call in a process of its own."""
    console = Console(stderr=True)
    # but for 7 GB of data, and clusters that take the extra `platforms`
    chosen = [name for name in GROUPS if name not in {"growth", "engines"}] if group.value == "all" else [group.value]
    needs_data = not {*chosen} <= {
        "imports",
        "push",
        "console",
        "fast-paths",
        "object-store",
        "scale",
        "growth",
        "estimate",
        "backfill",
        "cluster",
        "capacity",
        "engines",
    }
    with console.status("generating the data, unless it is there"):
        root = str((dataset if needs_data else located)(small=small).root)
    made, failures = report.table(), 0
    for comparison in (comparison for name in chosen for comparison in GROUPS[name](root)):
        try:
            rounds = _measured(comparison, root, pairs, console)
        except JobError as error:
            failures += 1
            console.print(f"{comparison.name}: not measured. {error}", style="red", markup=False)
            continue
        if as_json:
            report.write_json(comparison, rounds)
        else:
            report.add(made, comparison, rounds)
    if not as_json and made.row_count:
        report.show(made)
    raise typer.Exit(1 if failures else 0)


if __name__ == "__main__":
    typer.run(main)
