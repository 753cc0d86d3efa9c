"""Files that are not what they are said to be: what is told of them, in words of our own instead of a library's."""

from __future__ import annotations

import re
from pathlib import Path

from featurestore.declare.sources import is_url
from featurestore.lazy import duckdb

HEAD, TAIL = 64, 4
"""Bytes at a file's ends that are looked at."""

SHORTEST = 12
"""Bytes that the least Parquet file has."""

PARQUET, ENCRYPTED = b"PAR1", b"PARE"

BOM = b"\xef\xbb\xbf"
"""What some programs write before UTF-8."""

KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "compressed with gzip; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd; unpack it first"),
    (
        b"ARROW1",
        "an Arrow (Feather) file; write it as Parquet, as pyarrow.feather.read_table and pyarrow.parquet.write_table do",
    ),
    (b"FEA1", "an old Feather file; write it as Parquet"),
    (b"ORC", "an ORC file; write it as Parquet, as pyarrow.orc.read_table and pyarrow.parquet.write_table do"),
    (b"Obj\x01", "an Avro file; write it as Parquet"),
    (b"PK\x03\x04", "a ZIP archive, or a spreadsheet; write its rows as Parquet"),
    (b"SQLite format 3", "a SQLite database; write its rows as Parquet"),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself with git lfs pull"),
)
"""How files of other kinds begin, and what they are."""


def no_parquet(path: str, error: Exception, *, of_source: bool = False) -> str:
    """Why a file cannot be read as Parquet, by how it begins and ends. error: what the reader said of it. of_source: it may be
    declared as what it is."""
    if is_url(path):
        return f"{path} cannot be read as Parquet: {_plain(str(error))}"
    file = Path(path)
    try:
        size = file.stat().st_size
        with file.open("rb") as opened:
            head = opened.read(HEAD)
            opened.seek(max(0, size - TAIL))
            tail = opened.read(TAIL)
    except OSError as own:
        return f"{path} cannot be read: {own.strerror}"
    if not size:
        return f"{path} is empty: 0 bytes"
    if tail == ENCRYPTED:
        return f"{path} is encrypted, and cannot be read; write it without encryption"
    if head.startswith(PARQUET):
        if tail == PARQUET and isinstance(error, NotImplementedError):
            return (
                f"{path} has what Arrow does not read: {_plain(str(error))}. Write it without that, or as another type"
            )
        if tail != PARQUET or size < SHORTEST:
            return f"{path} begins as a Parquet file and does not end as one: it was not written, or copied, to its end"
        return f"{path} is damaged: {_plain(str(error))}"
    return f"{path} is no Parquet file, but {kind_of(head, of_source=of_source)}"


def no_database(path: str, error: duckdb.Error) -> str:
    """Why a file cannot be opened as a DuckDB database. error: what the engine said of it."""
    text = str(error)
    if "Unique file handle conflict" in text:
        return (
            f"{path} is open in this process, by duckdb.connect(…); close that connection, or give a copy of the file"
        )
    if "Could not set lock" in text:
        holder = re.search(r"held in (.*?) \(PID (\d+)\)", text)
        who = f"process {holder[2]} ({holder[1]})" if holder else "another process"
        return f"{path} is open for writing in {who}; close it there, or give a copy of the file"
    try:
        with Path(path).open("rb") as opened:
            head = opened.read(HEAD)
    except OSError as own:
        return f"{path} cannot be read: {own.strerror}"
    if not head:
        return f"{path} is empty: 0 bytes"
    if head[8:12] != b"DUCK":
        what = "a Parquet file; declare it as a ParquetSource" if head.startswith(PARQUET) else kind_of(head)
        return f"{path} is no DuckDB file, but {what}"
    said = engine_words(error)
    return said if said.startswith(path) else f"{path} cannot be opened: {said}"


def engine_words(error: duckdb.Error) -> str:
    """What the engine says, in one line, without the class of the error and the SQL that it was about."""
    text = _plain(str(error).split("\n\nLINE ")[0])
    cut = re.search(r'Could not read enough bytes from file "(.*)": ', text)
    if cut is not None:
        return f"{cut[1]} is shorter than it says: it was not written, or copied, to its end"
    return re.sub(r"^(?:[A-Z]\w+ ){1,3}Error: ", "", text)


def _plain(text: str) -> str:
    return " ".join(text.split())


def is_json(head: bytes) -> bool:
    """Whether what begins so is perhaps JSON."""
    return head.removeprefix(BOM).lstrip()[:1] in {b"{", b"["}


def kind_of(head: bytes, *, of_csv: str = "pd.read_csv(…).to_parquet(…)", of_source: bool = False) -> str:
    """What a file is that begins so, and what to do with it. of_csv: the call that makes Parquet of it where it is CSV.
    of_source: it may be declared as what it is."""
    known = next((what for begin, what in KINDS if head.startswith(begin)), None)
    if known is not None:
        return known
    if head[8:12] == b"DUCK":
        return "a DuckDB file; declare it as a TableSource"
    try:
        text = head.decode("utf-8-sig", errors="strict" if len(head) < HEAD else "ignore").strip()
    except UnicodeDecodeError:
        return "bytes of another kind"
    if not text or not all(sign.isprintable() or sign.isspace() for sign in text):
        return "bytes of another kind"
    if is_json(head):
        if of_source and text[0] == "{":
            return "text, as JSON is; where each line is an object, declare it as a JsonLinesSource"
        return "text, as JSON is; write it as Parquet, as pd.read_json(…).to_parquet(…) does"
    if text[0] == "<":
        return "text, as HTML and XML are: perhaps an error page that was saved"
    if of_source:
        return "text, as CSV is; declare it as a CsvSource"
    return f"text, as CSV is; write it as Parquet, as {of_csv} does"
