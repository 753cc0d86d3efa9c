"""Commands about logs: push, take-back, compact."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from featurestore.cli.application import AsJson, opened
from featurestore.cli.output import print_json, print_table
from featurestore.errors import FeatureStoreError, LogError, OnlineStoreError, PushError
from featurestore.lazy import pa, pq
from featurestore.plurals import plural

if TYPE_CHECKING:
    from featurestore.declare.sources import Source

BATCH_ROWS = 5_000
"""Rows that are kept at a time; a mistake leaves those of the parts before it kept."""

AGAIN = "pushing the file again is safe where the source has an identity"

FORMATS = "JSON lines, a JSON list or Parquet"
"""What a file of rows may be."""


def push(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="A push source.")],
    file: Annotated[Path, typer.Argument(metavar="[FILE]", help=f"{FORMATS}; - for standard input.")] = Path("-"),
    as_json: AsJson = False,
) -> None:
    """Keep the rows of a file: on the disk, and seen by the next lookup, when it returns.

    Values in JSON have the same forms as over HTTP.

    Example: featurestore push carts data/carts.jsonl
    """
    from featurestore.push.pushed import Pushed

    counts = "accepted", "unchanged", "late", "quarantined", "without_key"
    told, naive = dict.fromkeys(counts, 0), dict[str, None]()
    lateness = first = under_way = 0
    unmet: dict[str, None] = {}
    with opened(context) as store, _opened(file) as stream:
        try:
            for rows, count, plain in _batches(stream, str(file), store.catalog.sources.get(source)):
                under_way = count
                pushed = store.push(source, rows, json=plain)
                told = {name: many + getattr(pushed, name) for name, many in told.items()}
                naive |= dict.fromkeys(pushed.naive)
                unmet |= dict.fromkeys(pushed.unmet)
                lateness = pushed.lateness or lateness
                first, under_way = first + count, 0
        except (PushError, OnlineStoreError, LogError) as error:
            raise error.saying(_placed(error, first, told["accepted"])) from None
        except KeyboardInterrupt:
            perhaps = f", and perhaps the {under_way} after them" if under_way else ""
            typer.echo(
                f"Interrupted. The first {first} {plural(first, 'row')} of {file} {plural(first, 'stays', 'stay')} pushed{perhaps}; {AGAIN}",
                err=True,
            )
            raise
    without_key, quarantined = told.pop("without_key"), told.pop("quarantined")
    whole = Pushed(**told).telling(
        without_key=without_key, naive=tuple(naive), lateness=lateness, quarantined=quarantined, unmet=tuple(unmet)
    )
    told |= {"quarantined": quarantined} if quarantined else {}
    if as_json:
        print_json(whole.to_dict())
        return
    typer.echo(", ".join(f"{count} {name}" for name, count in told.items()))
    for notice in whole.notices:
        typer.echo(notice)


def _placed(error: FeatureStoreError, first: int, kept: int) -> str:
    """The error of a batch, with where the batch begins and what is kept of the others."""
    if not first:
        return str(error)
    return (
        f"{error}; it is counted from row {first} of the file. The rows before that one stay pushed, {kept} of them accepted: "
        f"{AGAIN}"
    )


def _opened(file: Path) -> BinaryIO:
    if str(file) == "-":
        return sys.stdin.buffer
    if file.is_dir():
        raise PushError(f"{file} is a folder; push one file of it after the other")
    if not file.exists():
        raise PushError(f"There is no file {file}; - takes rows from standard input")
    return file.open("rb")


def _batches(stream: BinaryIO, name: str, source: Source | None) -> Iterator[tuple[Any, int, bool]]:
    """The rows a batch at a time: rows as push takes them, how many, and whether values are in their JSON forms."""
    from featurestore.sources.unreadable import BOM, HEAD, PARQUET, is_json

    head = stream.read(HEAD)
    if head.startswith(PARQUET):
        import io

        data = head + stream.read()
        try:
            reader = pq.ParquetFile(io.BytesIO(data))
            for batch in reader.iter_batches(BATCH_ROWS):
                yield pa.Table.from_batches([batch]), batch.num_rows, False
        except (pa.ArrowException, OSError):
            cut = "begins as a Parquet file and does not end as one: it was not written, or copied, to its end"
            raise PushError(f"{name} {'is damaged' if data.endswith(PARQUET) else cut}") from None
        return
    if head.strip() and not is_json(head):
        raise PushError(_unknown_kind(head, name, source))
    together: list[Any] = []
    for row in _json_rows(head.removeprefix(BOM), stream, name):
        together.append(row)
        if len(together) == BATCH_ROWS:
            yield together, len(together), True
            together = []
    if together:
        yield together, len(together), True


def _unknown_kind(head: bytes, name: str, source: Source | None) -> str:
    """What is told of a file that is neither Parquet nor JSON; of CSV with the call that makes Parquet of it."""
    from featurestore.declare.push import PushSource
    from featurestore.sources.unreadable import kind_of

    path, said = Path("rows.csv" if name == "-" else name), ""
    types = source.columns if isinstance(source, PushSource) else {}
    times = [column for column, of in types.items() if of.kind == "Timestamp"]
    texts = [column for column, of in types.items() if of.kind == "String"]
    if times:
        said += f", parse_dates={times}"
    if texts:
        said += f", dtype={{{', '.join(f'{column!r}: str' for column in texts)}}}"
    call = f"pd.read_csv({str(path)!r}{said}).to_parquet({str(path.with_suffix('.parquet'))!r})"
    return f"{name} has no rows to push; it is {kind_of(head, of_csv=call)}. A file of rows is {FORMATS}"


def _json_rows(head: bytes, stream: BinaryIO, name: str) -> Iterator[Any]:
    """The rows of a JSON list, or of one JSON value a line; PushError names the line that is none."""
    import orjson

    if head.lstrip()[:1] == b"[":
        try:
            yield from orjson.loads(head + stream.read())
        except orjson.JSONDecodeError as error:
            raise PushError(f"{name} is no JSON list: {error}") from None
        return
    for number, line in enumerate(_lines(head, stream), start=1):
        if not line.strip():
            continue
        try:
            yield orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise PushError(
                f'{name}, line {number} is no JSON: {error}. Each line is a row, such as {{"customer": "ann"}}, or the '
                "whole is a list of them"
            ) from None


def _lines(head: bytes, stream: BinaryIO) -> Iterator[bytes]:
    """The lines of a stream whose head was read."""
    *whole, rest = head.split(b"\n")
    yield from whole
    for piece in stream:
        yield rest + piece
        rest = b""
    yield rest


def take_back(
    context: typer.Context,
    source: Annotated[str, typer.Argument(help="A push source.")],
    as_json: AsJson = False,
) -> None:
    """Take rows out of a push log that a clock pushed which was ahead, and give up what is online of the source.

    Nothing can be pushed before the store's clock has come to the last row. The rows are put into a file.

    Example: featurestore take-back carts
    """
    with opened(context) as store:
        taken = store.take_back(source)
    if as_json:
        print_json({"rows": taken.rows, "file": None if taken.file is None else str(taken.file)})
        return
    beside = f"{taken.rows} {plural(taken.rows, 'row')} taken back" + (
        f", into {taken.file}; push that file again" if taken.file else ""
    )
    typer.echo(f"{beside}. Run featurestore materialize to fill the views over {source} where anything was ahead.")


def compact(
    context: typer.Context,
    sources: Annotated[list[str] | None, typer.Argument(help="Only these push sources; by default all.")] = None,
    as_json: AsJson = False,
) -> None:
    """Seal the full segments of push logs into Parquet, beside readers and writers, and delete what they replaced.

    Of all, also merge the past hours of the serving log, ship them to the object store that ship_to names, and delete what its
    retention and max_bytes say.

    Example: featurestore compact
    """
    with opened(context) as store:
        done = store.compact(sources)
        logs = not sources and store.config.serving_log.folder.is_dir()
        log, ship_to = store.compact_serving_log() if logs else None, store.config.serving_log.ship_to
    if as_json:
        print_json({**done, **({"serving log": log} if logs else {})})
    elif done:
        print_table(
            ("source", "segments sealed", "rows", "files deleted"), [(name, *one) for name, one in done.items()]
        )
    else:
        typer.echo("There is no push source.")
    if logs and not as_json:
        typer.echo(
            "serving log: another process is at it"
            if log is None
            else f"serving log: {log.merged} {plural(log.merged, 'file')} merged into {log.into}, {log.removed} merged {plural(log.removed, 'one')} removed, {log.deleted} "
            f"deleted by age or size, {log.freed} {plural(log.freed, 'byte')} freed"
            + (f", {log.shipped} shipped to {ship_to}" if ship_to is not None else "")
        )
