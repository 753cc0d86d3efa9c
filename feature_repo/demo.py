"""A year of flights, a model, and a week of serving it, with the usual pandas shortcut beside the store.

    python -m feature_repo.demo

It prepares the data, applies the definitions, builds the training frame as of each flight's scheduled departure up to
30 November, and fits the model. Then it replays the next seven days on a clock that it sets: every hour the jobs
run that are due, and every flight is looked up over HTTP at the minute of its scheduled departure. At the end every served
value is compared, bit for bit, with what training says for that flight and minute; one that differs makes it fail.
Last, a day's landings are pushed one by one, and what lookups between them are served is compared in the same way.
The store's own audit, which reads what was logged of the requests, has to come to the same numbers.
The repository that served the week stays, and the last line says how to look at it in a browser.
"""

import contextlib
import os
import shlex
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
from rich.console import Console
from rich.table import Table

from feature_repo import pushed, shortcut
from feature_repo.comparison import differing
from feature_repo.model import Model, Quality, evaluate, fit, measure
from feature_repo.prepare import prepare
from featurestore import FeatureStore, ManualClock
from featurestore.reports.audit import Audit
from featurestore.types import from_json

HERE = Path(__file__).parent
SERVICE = "delay_model"
START = datetime(2013, 12, 1, tzinfo=ZoneInfo("America/New_York"))
HOUR = timedelta(hours=1)
WEEK = 7 * 24
KEPT = HERE / ".featurestore" / "demo"
"""Where the repository stays that served the week, until the next demonstration."""

INPUTS = ["carrier", "tailnum", "origin", "dest", "month", "hour", "weekday", "distance"]
FACTS = ["aircraft_facts__", "origin__", "dest__"]

Ask = Callable[[list[dict[str, Any]]], dict[str, Any]]


class Promise(NamedTuple):
    """One way of making features: what it measured offline, and what it was worth when served."""

    promised: Quality
    achieved: Quality


@dataclass
class Replay:
    """What was served: rows of values in their JSON forms, in the order of the flights, and the work that it took."""

    rows: list[list[Any]] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    requests: int = 0
    runs: int = 0
    late_answers: int = 0


@dataclass(frozen=True)
class Outcome:
    """What the demonstration found. `differing` counts the served values without training's bits, by column; `pushes`
    has the same of the day whose landings were pushed. audits: what the store says itself, of both."""

    flights: int
    values: int
    differing: dict[str, int]
    audits: tuple[Audit, Audit]
    store: Promise
    shortcut: Promise
    running: Promise
    pushes: pushed.Pushes


@contextlib.contextmanager
def repository(data: Path, clock: ManualClock, *, kept: Path | None = None) -> Iterator[FeatureStore]:
    """The definitions beside this file over `data`, with an empty registry and online store that vanish afterwards, unless they
    are kept in a folder, in the place of those that were kept there before."""
    with contextlib.ExitStack() as stack:
        if kept is not None and kept.exists():
            shutil.rmtree(kept)
        folder = kept or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flights-")))
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("featurestore.toml", "definitions.py"):
            shutil.copy(HERE / file, folder / file)
        (folder / "data").symlink_to(data.absolute(), target_is_directory=True)
        with FeatureStore(folder, clock=clock) as store:
            yield store


def flights_of(data: Path) -> pd.DataFrame:
    """The flights that arrived, in the order of the schedule: `INPUTS`, `flight_id`, `sched_dep` and the label `late`."""
    flights = pd.read_parquet(data / "flights.parquet", columns=["flight_id", "sched_dep", *INPUTS, "late"])
    return flights.dropna(subset=["late"]).sort_values(["sched_dep", "flight_id"], ignore_index=True)


def between(flights: pd.DataFrame, start: datetime | None, end: datetime) -> pd.DataFrame:
    """The flights scheduled in `start <= sched_dep < end`."""
    chosen = flights["sched_dep"] < end
    if start is not None:
        chosen &= flights["sched_dep"] >= start
    return flights[chosen].reset_index(drop=True)


@contextlib.contextmanager
def served(store: FeatureStore, fingerprint: str) -> Iterator[Ask]:
    """Serve the store over HTTP on loopback, in this process so that it shares the clock; yields what asks it."""
    import httpx
    import uvicorn

    from featurestore.server import create_app

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(create_app(store, authentication=False), log_level="warning", access_log=False)
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RuntimeError("The server did not start; its own message is above.")
            time.sleep(0.01)
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=30) as client:

            def ask(rows: list[dict[str, Any]]) -> dict[str, Any]:
                request = {"service": SERVICE, "fingerprint": fingerprint, "rows": rows}
                response = client.post("/v1/online-features", json=request)
                if response.is_error:
                    raise RuntimeError(f"The server answered {response.status_code}: {response.text}")
                answer: dict[str, Any] = response.json()
                return answer

            yield ask
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        listener.close()


def replay(
    store: FeatureStore,
    clock: ManualClock,
    flights: pd.DataFrame,
    ask: Ask,
    *,
    hours: int,
    score: Callable[[list[list[Any]]], np.ndarray],
) -> Replay:
    """Live through the hours from START on: run what is due, look each flight up at its departure, score hour by hour.

    Every job of the definitions starts on the hour, so that is when the clock stops for `materialize`.
    """
    done, views = Replay(), [item.view.name for item in store.catalog.service_of(SERVICE).selections()]
    rows = flights[INPUTS].astype(object).where(flights[INPUTS].notna(), None).to_dict("records")
    departures: dict[datetime, list[int]] = {}
    for place, instant in enumerate(flights["sched_dep"]):
        departures.setdefault(instant.to_pydatetime(), []).append(place)
    waiting = sorted(departures, reverse=True)
    for number in range(hours):
        hour = START + number * HOUR
        clock.set(hour)
        done.runs += len(store.materialize(views, progress=False))
        first = len(done.rows)
        while waiting and waiting[-1] < hour + HOUR:
            instant = waiting.pop()
            clock.set(instant)
            answer = ask([rows[place] for place in departures[instant]])
            done.rows += answer["rows"]
            done.requests += 1
            done.late_answers += any(answer["stale"].values())
        if len(done.rows) > first:
            done.scores.append(score(done.rows[first:]))
    return done


def table_of(rows: list[list[Any]], types: dict[str, Any]) -> pa.Table:
    """Served rows in their JSON forms as a table with training's columns and types."""
    columns = zip(*rows, strict=True)
    return pa.table(
        {
            name: pa.array([from_json(of, value) for value in values], of.arrow)
            for (name, of), values in zip(types.items(), columns, strict=True)
        }
    )


def demonstrate(
    console: Console, *, data: Path | None = None, train_from: datetime | None = None, hours: int = WEEK,
    kept: Path | None = None,
) -> Outcome:  # fmt: skip
    """Train on what departs before START (and from `train_from` on), replay the `hours` after it, and compare.

    data: the folder of the Parquet files, prepared there first; feature_repo/data by default. kept: where the repository stays in
    which the week was served.
    """
    log = _Log(console)
    data = prepare(data)
    flights = flights_of(data)
    training, week = between(flights, train_from, START), between(flights, START, START + hours * HOUR)
    log(f"{len(flights):,} flights from New York in 2013 are Parquet, with true event times")
    clock = ManualClock(START)
    with repository(data, clock, kept=kept) as store:
        applied = store.apply(note="demonstration")
        log(
            f"applied {len(store.catalog.views)} feature views and {len(store.catalog.services)} services: version {applied.number}"
        )
        frame = store.get_historical_features(training[["sched_dep", *INPUTS]], SERVICE, timestamp="sched_dep")
        log(f"a training frame of {len(frame):,} flights × {len(frame.types)} features, each as of its departure")
        if kept is not None:
            frame.to_parquet(kept / "training.parquet")
        model = fit(frame.features, training["late"])
        log("fitted the model to it")
        with served(store, frame.manifest["fingerprint"]) as ask:
            done = replay(store, clock, week, ask, hours=hours, score=lambda rows: _score(model, rows, frame.types))
        log(
            f"replayed {hours} hours: {done.runs:,} jobs, {len(done.rows):,} flights looked up over HTTP in "
            f"{done.requests:,} requests; answers older than their refresh asks for: {done.late_answers:,}"
        )
        truth = store.get_historical_features(week[["sched_dep", *INPUTS]], SERVICE, timestamp="sched_dep")
        audit = store.audit()
    found = table_of(done.rows, truth.types)
    wrong = differing(found, truth.to_arrow().select(list(truth.types)))
    values = found.num_rows * found.num_columns
    log(
        f"compared {values:,} served values with training's: {sum(wrong.values()):,} differ; the audit of the serving log finds "
        f"{audit.compared:,} and {audit.compared - audit.exact:,}"
    )
    ours = Promise(evaluate(model, truth.features, week["late"]), measure(np.concatenate(done.scores), week["late"]))
    theirs, running = _shortcut(data, training, week, _facts(frame, training), _facts(truth, week))
    log("trained and served the pandas shortcut")
    clock = ManualClock(START)
    with repository(data, clock) as store:
        pushes = pushed.replay(store, clock, data, start=START, hours=min(hours, 24))
        audits = (audit, store.audit())
    log(
        f"pushed {pushes.before:,} landings of the days before and {pushes.landings:,} one by one, looked {pushes.values:,} values "
        f"up in {pushes.lookups:,} lookups between them: {sum(pushes.differing.values()):,} differ; the audit finds "
        f"{audits[1].compared:,} and {audits[1].compared - audits[1].exact:,}"
    )
    return Outcome(len(week), values, wrong, audits, ours, theirs, running, pushes)


def _score(model: Model, rows: list[list[Any]], types: dict[str, Any]) -> np.ndarray:
    return model.score(table_of(rows, types).to_pandas(types_mapper=pd.ArrowDtype))


def _facts(frame: Any, flights: pd.DataFrame) -> pd.DataFrame:
    """The features without time, by flight: a join on a key is the same for everybody, so the shortcut gets them too."""
    names = [name for name in frame.types if name.startswith(tuple(FACTS))]
    return frame.features[names].set_axis(flights["flight_id"])


def _shortcut(
    data: Path, training: pd.DataFrame, week: pd.DataFrame, before: pd.DataFrame, facts: pd.DataFrame
) -> tuple[Promise, Promise]:
    """The shortcut, served with the newest daily averages and with averages that run through the day."""
    offline = shortcut.offline(data).set_index("flight_id")
    columns = [*shortcut.FEATURES, *facts.columns]

    def features(frame: pd.DataFrame, flights: pd.DataFrame, extra: pd.DataFrame) -> pd.DataFrame:
        return frame.loc[flights["flight_id"]].join(extra)[columns]

    model = fit(features(offline, training, before), training["late"])
    promised = evaluate(model, features(offline, week, facts), week["late"])
    start, end = pd.Timestamp(week["sched_dep"].min()), pd.Timestamp(week["sched_dep"].max()) + HOUR
    achieved = []
    for running in (False, True):
        then = shortcut.served(data, start, end, running=running).set_index("flight_id")
        achieved.append(evaluate(model, features(then, week, facts), week["late"]))
    return Promise(promised, achieved[0]), Promise(promised, achieved[1])


class _Log:
    """Lines that say what was done and how long it took."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.then = time.perf_counter()

    def __call__(self, text: str) -> None:
        now = time.perf_counter()
        self.console.print(f"[dim]{now - self.then:5.1f} s[/dim]  {text}", highlight=False)
        self.then = now


def show(console: Console, outcome: Outcome) -> None:
    """Print the comparison, and what it means."""
    table = Table(title=f"Will it land more than 15 minutes late? {outcome.flights:,} flights from 1 December 2013 on")
    table.add_column("features made by")
    for column in ("AUC promised", "AUC served", "late among the flagged tenth, promised", "… served"):
        table.add_column(column, justify="right")
    for name, promise in (
        ("pandas shortcut", outcome.shortcut),
        ("pandas shortcut, running averages", outcome.running),
        ("featurestore", outcome.store),
    ):
        promised, achieved = promise
        table.add_row(
            name,
            f"{promised.auc:.3f}",
            f"{achieved.auc:.3f}",
            f"{promised.precision:.0%}",
            f"{achieved.precision:.0%}",
        )
    console.print()
    console.print(table)
    console.print(TEXT, highlight=False)
    pushes = outcome.pushes
    compared = Table("served, and compared with training", title="Every served value")
    for column in ("values", "differing"):
        compared.add_column(column, justify="right")
    compared.add_row("looked up at departure, refreshed hourly and daily", *_counts(outcome.values, outcome.differing))
    compared.add_row(
        f"rolling delays, {pushes.landings:,} landings pushed between lookups",
        *_counts(pushes.values, pushes.differing),
    )
    console.print(compared)
    wrong = outcome.differing | pushes.differing
    found = sum(audit.compared - audit.exact for audit in outcome.audits)
    if found or any(audit.skewed for audit in outcome.audits):
        console.print(f"[red]The audit found {found:,} that are not exact.[/red]", highlight=False)
    if wrong:
        listed = ", ".join(f"{name}: {count:,}" for name, count in wrong.items())
        console.print(f"[red]Served values without training's bits: {listed}[/red]", highlight=False)
    else:
        total = outcome.values + pushes.values
        console.print(f"[green]All {total:,} served values have training's bits.[/green]", highlight=False)


def _counts(values: int, wrong: dict[str, int]) -> tuple[str, str]:
    return f"{values:,}", f"{sum(wrong.values()):,}"


TEXT = """
[bold]Promised[/bold] is measured offline, before anything is served; [bold]served[/bold] is the same model on the values that were there at
each flight's scheduled departure. Model, flights and facts of aircraft and airports are the same in every row.

The shortcut joins each flight with the averages of its own date and with the flight before it in the schedule. Those averages
hold flights that land after it departs, mostly itself among them, and the flight before it may still be in the air.
Offline that looks best. Served, the day is not over: what is there is yesterday's row, and the model leans on a column
that no longer tells it the answer.

A team that computes today's average anew at each departure gets about as much out of the shortcut's model as the store gives, and has
a second implementation of the feature to keep. What is not kept is the promise: the number that decided to ship it.
The store measures beforehand what is served afterwards, because both are one function of key and instant.
"""


def how_to_look(kept: Path, at: datetime) -> str:
    """The line that says how the console is opened on what was made."""
    folder = shlex.quote(os.path.relpath(kept))
    instant = at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return f"Look at it: {shlex.quote(sys.executable)} -m featurestore --repo {folder} ui --at {instant} --open"


def main() -> int:
    """Run it; the exit code is 1 where a served value differs from training's."""
    console = Console()
    started = time.perf_counter()
    outcome = demonstrate(console, kept=KEPT)
    show(console, outcome)
    console.print(f"{time.perf_counter() - started:.0f} s in all.", highlight=False)
    console.print(how_to_look(KEPT, START + WEEK * HOUR - timedelta(minutes=1)), highlight=False, soft_wrap=True)
    same = sum(audit.exact for audit in outcome.audits) == outcome.values + outcome.pushes.values
    return 0 if same and not outcome.differing and not outcome.pushes.differing else 1


if __name__ == "__main__":
    sys.exit(main())
