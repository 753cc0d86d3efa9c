"""Figures for people (a table), for programs (JSON lines), and from those for a page (Markdown).

python -m benchmarks.report < figures.jsonl
"""

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.comparisons import Comparison, Line
from benchmarks.pairs import Figures, Spread, ratio, spread

Rounds = Sequence[list[Figures]]
"""For each job of a comparison its figures, one entry a round."""

COLUMNS = ("comparison", "figure", "job", "median", "spread", "against", "median", "ratio", "spread", "aim", "")


def lines_of(comparison: Comparison, rounds: Rounds) -> list[dict[str, Any]]:
    """A record for each line of the comparison, then one for each job with all that was measured."""
    records = []
    for line in comparison.lines:
        ours = spread(rounds[0], line.figure)
        record: dict[str, Any] = {"comparison": comparison.name, "figure": line.figure, "job": comparison.jobs[0].name}
        record |= {"ours": vars(ours), "pairs": len(rounds[0])}
        judged = ours
        if line.against is not None:
            judged = ratio(rounds[0], rounds[line.against], line.figure)
            record |= {"against": comparison.jobs[line.against].name, "ratio": vars(judged)}
            record["floor"] = vars(spread(rounds[line.against], line.figure))
        records.append(record | {"aim": line.aim, "reached": line.reached(judged.median)})
    for job, figures in zip(comparison.jobs, rounds, strict=True):
        records.append({"comparison": comparison.name, "job": job.name, "rounds": figures})
    return records


def write_json(comparison: Comparison, rounds: Rounds) -> None:
    for record in lines_of(comparison, rounds):
        print(json.dumps(record, ensure_ascii=False), flush=True)


def table() -> Table:
    made = Table(title="Medians, with the least and greatest of all rounds; ratios pair by pair")
    for number, name in enumerate(COLUMNS):
        made.add_column(name, justify="right" if number in {3, 4, 6, 7, 8} else "left")
    return made


def add(made: Table, comparison: Comparison, rounds: Rounds) -> None:
    """One row a line, then one for each job's time on the processors and its memory."""
    name = comparison.name
    for line in comparison.lines:
        made.add_row(name, *_cells(comparison, line, rounds))
        name = ""
    for job, figures in zip(comparison.jobs, rounds, strict=True):
        for figure in ("cpu_s", "peak_mb"):
            taken = spread(figures, figure)
            made.add_row(
                "", f"[dim]{figure}", f"[dim]{job.name}", f"[dim]{_text(taken.median)}", f"[dim]{_range(taken)}"
            )
    made.add_section()


def show(made: Table) -> None:
    Console(width=None if Console().is_terminal else 180).print(made)


def _cells(comparison: Comparison, line: Line, rounds: Rounds) -> list[str]:
    ours = spread(rounds[0], line.figure)
    cells = [line.figure, comparison.jobs[0].name, _text(ours.median), _range(ours)]
    judged = ours
    if line.against is None:
        cells += ["", "", "", ""]
    else:
        judged = ratio(rounds[0], rounds[line.against], line.figure)
        floor = spread(rounds[line.against], line.figure)
        cells += [comparison.jobs[line.against].name, _text(floor.median), _text(judged.median), _range(judged)]
    verdict = {None: "", True: "[green]reached", False: "[red]missed"}[line.reached(judged.median)]
    return [*cells, line.aim, verdict]


def _range(taken: Spread) -> str:
    return f"{_text(taken.least)} – {_text(taken.greatest)}"


def _text(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def markdown(records: Sequence[dict[str, Any]]) -> str:
    """The lines that `write_json` wrote as two Markdown tables: what is compared, and what each job used."""
    compared = ["| comparison | figure | featurestore | against | ratio | aim | |", "| --- " * 7 + "|"]
    used = ["| comparison | job | cpu_s | peak_mb |", "| --- " * 4 + "|"]
    for record in records:
        if "rounds" in record:
            taken = [_cell(spread(record["rounds"], figure)) for figure in ("cpu_s", "peak_mb")]
            used.append(f"| {record['comparison']} | {record['job']} | {' | '.join(taken)} |")
            continue
        cells = [record["comparison"], record["figure"], _cell(Spread(**record["ours"])), "", "", record["aim"]]
        if "against" in record:
            cells[3:5] = [
                f"{record['against']} {_cell(Spread(**record['floor']))}", _cell(Spread(**record["ratio"]))
            ]  # fmt: skip
        cells.append({None: "", True: "reached", False: "missed"}[record["reached"]])
        compared.append(f"| {' | '.join(cells)} |")
    return "\n".join([*compared, "", *used])


def _cell(taken: Spread) -> str:
    return f"{_text(taken.median)} ({_range(taken)})"


if __name__ == "__main__":
    print(markdown([json.loads(line) for line in sys.stdin if line.startswith("{")]))
