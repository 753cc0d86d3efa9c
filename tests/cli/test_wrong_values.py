"""What is typed wrongly on a command line is told by its option, in words of our own."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from featurestore.cli import app
from featurestore.cli.pushing import BATCH_ROWS
from featurestore.errors import DeclarationError
from featurestore.reports.simulation import Faults
from tests.small import hours, table

ROWS = table(cart=["a"], customer=["ann"], at=[hours(0)], amount=[1.0])


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "shop"
    assert CliRunner().invoke(app, ["init", str(folder)]).exit_code == 0
    assert CliRunner().invoke(app, ["apply", "--repo", str(folder)]).exit_code == 0
    return folder


def told(shop: Path, *args: str, given: bytes | None = None) -> str:
    """What a command that must fail says, on one line."""
    done = CliRunner().invoke(app, [*args, "--repo", str(shop)], input=given)
    assert done.exit_code in {1, 2}, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    text = " ".join(done.stderr.split())
    assert not re.search(r"Input should|Traceback|pydantic|Arrow|magic bytes", text), text
    return text


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["serve", "--port", "x"], "'--port': must be a whole number"),
        (["serve", "--port", "99999999"], "'--port': must be at most 65535"),
        (["serve", "--workers", "0"], "'--workers': must be at least 1"),
        (["explain", "customer_orders", "customer=a", "--at", "noon"], "--at: 'noon' is no instant such as 2025-01-31T06:30:00Z"),
        (["snapshot", "order_model", "--at", "noon", "-o", "x.parquet"], "--at: 'noon' is no instant"),
        (["audit", "--minimum-compared", "3"], "it is a word of --fail-on-skew; give both"),
        (["audit", "--until", "now"], "--until: 'now' is no instant"),
        (["audit", "--since", "2026-13-01"], "--since: '2026-13-01' is no instant"),
        (["audit", "--since", "1 day"], "'1 day' cannot be read. Write whole numbers with units"),
        (["explain", "customer_orders", "ann"], "'ann' must be written name=value"),
        (["explain", "customer_ordres", "customer=ann"], "Did you mean 'customer_orders'?"),
        (["explain", "customer_orders", "custmer=ann"], "Did you mean 'customer'?"),
        (["online", "order_modle"], "Did you mean 'order_model'?"),
        (["show", "order_modle"], "Did you mean 'order_model'?"),
        (["materialize", "customer_ordres"], "Did you mean 'customer_orders'?"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_told_by_its_option(shop: Path, args: list[str], says: str) -> None:
    assert says in told(shop, *args)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["customer_ordres"],
            "Did you mean 'customer_orders'? Feature services: cart_model, order_model. Feature views:",
        ),
        (["amount"], "Did you mean 'customer_orders:amount'?"),
        (["customer_ordres:amount"], "Did you mean 'customer_orders'?"),
        (["customer_orders:amuont"], "FeatureView 'customer_orders': no feature 'amuont'. Did you mean 'amount'?"),
        (
            ["customer_orders", "customer_orders:items"],
            "The features asked for: column 'customer_orders__items' is listed",
        ),
    ],
)
@pytest.mark.parametrize(
    "command",
    [
        "historical data/spine.parquet {} -o {}/out.parquet",
        "snapshot {} --at 2025-01-05T00:00:00Z",
        "online {} customer=ann",
    ],
)
def test_wrong_words_for_features_are_told_alike(shop: Path, command: str, words: list[str], says: str) -> None:
    """In every command that takes them, and no file is named but that of the definitions."""
    args = command.replace("data", f"{shop}/data").format(" ".join(words), shop).split()
    text = told(shop, *args)
    assert says in text
    assert {Path(place).name for place in re.findall(r"[^\s(]+\.py(?=:)", text)} <= {"definitions.py"}


def test_no_file_is_named_as_the_place_of_an_option(shop: Path) -> None:
    """What a command declares itself is declared in no file of the user's; a definition that is wrong is in one."""
    assert ".py" not in told(shop, "simulate", "--fail", "3")
    assert ".py" not in told(shop, "simulate", "--late", "2:1h")
    with pytest.raises(DeclarationError) as refused:
        Faults(fail=3)
    assert (refused.value.place, refused.value.problem) == (
        f"tests/cli/test_wrong_values.py:{refused.traceback[0].lineno + 1}",
        "Faults: fail: must be at most 1.0, and is 3",
    )
    assert str(refused.value) == f"{refused.value.problem} ({refused.value.place})"


def test_words_of_a_simulation_are_told_by_their_options(shop: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("cart,customer\n")
    for args, says in (
        (["--fail", "3"], "--fail: must be at most 1.0, and is 3"),
        (["--pause", "x"], "--pause: Duration 'x' cannot be read"),
        (["--late", "2:1h"], "--late: must be at most 1.0"),
        (["--late", "0.1:x"], "--late: Duration 'x' cannot be read"),
        (["--late", "x"], "--late 'x' must be written SHARE:DURATION, such as 0.01:2h"),
        (["--lookups", "-1"], "'--lookups': must be at least 0"),
        (["--rows", f"carts={tmp_path}/rows.csv"], "rows.csv is no Parquet file, but text, as CSV is"),
        (["--rows", f"carts={tmp_path}"], "is a folder; give one file"),
        (["--rows", f"carts={tmp_path}/none"], f"There is no {tmp_path}/none"),
    ):
        assert says in told(shop, "simulate", *args)


def test_a_service_that_nobody_applied_is_not_audited_in_silence(shop: Path) -> None:
    assert "No feature service 'order_modle' was applied. Did you mean 'order_model'?" in told(
        shop, "audit", "--service", "order_modle"
    )
    assert CliRunner().invoke(app, ["audit", "--service", "order_model", "--repo", str(shop)]).exit_code == 0


def test_nothing_applied_is_said_where_there_is_nothing_to_materialize(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["init", str(tmp_path / "shop")]).exit_code == 0
    done = CliRunner().invoke(app, ["--repo", str(tmp_path / "shop"), "materialize"])
    assert done.stdout == f"Nothing is applied.\nNext: featurestore --repo {tmp_path / 'shop'} apply\n"
    (tmp_path / "featurestore.toml").write_text('project = "empty"\n')
    done = CliRunner().invoke(app, ["--repo", str(tmp_path), "materialize"])
    assert done.stdout == f"Nothing is applied.\nNext: featurestore --repo {tmp_path} plan\n"


def test_another_kind_of_name_is_told_as_what_it_is(shop: Path) -> None:
    for command in ("materialize", "verify", "availability", "explain"):
        assert "'order_model' is a feature service. Known: customer_carts" in told(shop, command, "order_model")


def test_a_pushed_file_that_is_none_says_what_is_wrong(shop: Path, tmp_path: Path) -> None:
    """Cut off, damaged within its footer, and no JSON."""
    path = tmp_path / "rows.parquet"
    pq.write_table(ROWS, path)
    whole = path.read_bytes()
    for data, says in (
        (whole[:-9], "rows.parquet begins as a Parquet file and does not end as one"),
        (whole[:-60] + bytes(52) + whole[-8:], "rows.parquet is damaged"),
        (b'{"cart": "a"}\n{"cart" "a"}\n', "rows.parquet, line 2 is no JSON"),
        (b"{" + b" " * 200 + b"}\n\nnull,\n", "rows.parquet, line 3 is no JSON"),
        (b'[{"cart": "a"},', "rows.parquet is no JSON list"),
        (
            b"PK\x03\x04" + bytes(60),
            "it is a ZIP archive, or a spreadsheet; write its rows as Parquet. A file of rows is JSON lines",
        ),
        (b"no", "has no rows to push"),
    ):
        path.write_bytes(data)
        assert says in told(shop, "push", "carts", str(path))
    assert f"{tmp_path} is a folder; push one file" in told(shop, "push", "carts", str(tmp_path))
    for name in (str(tmp_path / "none"), '{"cart": "c1"}'):
        assert f"There is no file {name}; - takes rows from standard input" in told(shop, "push", "carts", name)


def test_a_pushed_csv_file_is_told_with_the_call_that_makes_parquet_of_it(shop: Path, tmp_path: Path) -> None:
    """That call, run as it stands, makes a file that is pushed with all its types."""
    rows, now = tmp_path / "rows.csv", datetime.now(UTC)
    rows.write_text(f"cart,customer,at,amount\n017,ann,{now.isoformat()},1.5\n018,,{now.isoformat()},\n")
    text = told(shop, "push", "carts", str(rows))
    assert f"{rows} has no rows to push; it is text, as CSV is" in text
    assert text.endswith("A file of rows is JSON lines, a JSON list or Parquet")
    call = re.search(r"as (pd\.read_csv\(.*\.to_parquet\(.*?\)) does", text)
    assert call, text
    eval(call[1], {"pd": pd, "str": str})
    assert pq.read_table(tmp_path / "rows.parquet")["cart"].to_pylist() == ["017", "018"]
    done = CliRunner().invoke(app, ["push", "carts", str(tmp_path / "rows.parquet"), "--repo", str(shop)])
    assert done.stdout.startswith("2 accepted, 0 unchanged, 0 late\n1 of the accepted rows has no key"), done.output
    assert "pd.read_csv('rows.csv', parse_dates=['at']" in told(shop, "push", "carts", given=rows.read_bytes())


def test_rows_of_a_file_that_begins_with_a_byte_order_mark_are_pushed(shop: Path, tmp_path: Path) -> None:
    rows, now = tmp_path / "rows.jsonl", datetime.now(UTC).isoformat()
    for text in (f'{{"cart": "m1", "at": "{now}"}}', f'[{{"cart": "m1", "at": "{now}"}}]'):
        rows.write_bytes(b"\xef\xbb\xbf" + text.encode())
        done = CliRunner().invoke(app, ["push", "carts", str(rows), "--repo", str(shop)])
        assert done.exit_code == 0, done.output


def test_rows_that_came_too_late_are_told(shop: Path, tmp_path: Path) -> None:
    """Of all parts of a file together: every row, or how many."""
    rows, now = tmp_path / "late.jsonl", datetime.now(UTC)
    late = [
        {"cart": f"l{n}", "customer": "ann", "at": (now - timedelta(days=8)).isoformat()} for n in range(BATCH_ROWS + 1)
    ]
    says = "came too late, and is never served nor trained on: it happened more than 7d ago"
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in late))
    done = CliRunner().invoke(app, ["push", "carts", str(rows), "--repo", str(shop)])
    assert done.stdout.startswith(f"0 accepted, 0 unchanged, {len(late)} late\nevery row {says}"), done.output
    late[0]["at"] = now.isoformat()
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in late))
    done = CliRunner().invoke(app, ["push", "carts", str(rows), "--json", "--repo", str(shop)])
    told = json.loads(done.stdout)
    assert (told["accepted"], told["late"]) == (1, BATCH_ROWS)
    assert told["notices"][0].startswith(f"{BATCH_ROWS} rows {says}")


REFUSING = """
from featurestore import Count, Entity, FeatureView, InRange, PushSource
from featurestore.types import Float64, String, Timestamp

carts = PushSource(
    "carts",
    schema={"cart": String, "customer": String, "at": Timestamp, "amount": Float64},
    event_time="at",
    identity="cart",
    expectations=[InRange("amount", at_least=0)],
)
view = FeatureView(
    "recent", entity=Entity("customer", key={"customer": String}), source=carts, features={"n": Count(window="1d")}
)
"""


def test_a_pushed_row_that_is_refused_for_what_it_says_is_told_by_its_number(tmp_path: Path) -> None:
    """Also of a later batch, with where that begins; such an error has more to it than its message."""
    (tmp_path / "featurestore.toml").write_text('project = "refusing"\n')
    (tmp_path / "definitions.py").write_text(REFUSING)
    assert CliRunner().invoke(app, ["apply", "--repo", str(tmp_path)]).exit_code == 0
    now = datetime.now(UTC)
    rows = [{"cart": f"c{n}", "customer": "ann", "at": now.isoformat(), "amount": 1.0} for n in range(BATCH_ROWS + 2)]
    rows[-1]["amount"] = -5.0
    refused = "row 1, column 'amount': -5.0 does not meet InRange('amount', at_least=0)"
    few = "\n".join(json.dumps(row) for row in rows[-2:])
    assert told(tmp_path, "push", "carts", "-", given=few.encode()).endswith(refused)
    many = "\n".join(json.dumps(row) for row in rows)
    said = told(tmp_path, "push", "carts", "-", given=many.encode())
    assert f"{refused}; it is counted from row {BATCH_ROWS} of the file. The rows before that one stay pushed" in said
