"""Each command says which one comes next, where there is one, and whose definitions it has used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from featurestore.cli import app


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """What init writes."""
    assert run(None, "init", str(tmp_path / "shop"))[-1] == f"Next: cd {tmp_path / 'shop'} && featurestore plan"
    return tmp_path / "shop"


def run(repo: Path | None, *args: str) -> list[str]:
    """The lines that a command prints to stdout."""
    done = CliRunner().invoke(app, [*([] if repo is None else ["--repo", str(repo)]), *args])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def test_each_step_leads_to_the_next(shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an empty folder to a served value; with the repository and environment that the command was about."""
    staged = [f"Next: featurestore --repo {shop} --env staging apply"]
    assert run(shop, "--env", "staging", "plan")[-1:] == staged
    assert run(shop, "--env", "staging", "status") == ["Nothing is applied.", *staged]
    monkeypatch.chdir(shop)
    assert run(None, "plan")[-1] == "Next: featurestore apply"
    assert run(None, "apply", "--yes")[-1] == "Next: featurestore materialize"
    assert run(None, "status")[-1] == "Next: featurestore materialize"
    assert run(None, "materialize") == ["Next: featurestore online cart_model customer=…"]
    for last in ("plan", "apply", "materialize", "status"):
        assert "Next" not in run(None, last)[-1], last


def test_json_has_no_next_step(shop: Path) -> None:
    assert json.loads("\n".join(run(shop, "plan", "--json")))["steps"]
    assert json.loads("\n".join(run(shop, "status", "--json")))["differences"]["applied"] == 0
    assert json.loads("\n".join(run(shop, "materialize", "--json"))) == []


def test_status_tells_what_differs(shop: Path) -> None:
    """As text and as JSON."""
    run(shop, "apply", "--yes")
    definitions = (shop / "definitions.py").read_text()
    (shop / "definitions.py").write_text(definitions.replace('refresh="1h"', 'refresh="2h"'))
    told = "\n".join(run(shop, "status"))
    assert "(changed: customer_orders); this is of those that are applied" in told
    found = json.loads("\n".join(run(shop, "status", "--json")))["differences"]
    assert found == {"applied": 1, "changed": ["customer_orders"], "new": [], "gone": []}


def test_what_is_declared_and_not_applied_says_which_command_comes_first(shop: Path) -> None:
    """Where a lookup, a push or a run names it; not of a name that nothing bears."""
    carts = str(shop / "data/carts.jsonl")
    for args in (
        ["online", "order_model", "customer=ann", "amount=3"],
        ["push", "carts", carts],
        ["materialize", "customer_orders"],
    ):
        done = CliRunner().invoke(app, ["--repo", str(shop), *args])
        assert done.exit_code == 1
        assert f"'{args[1]}' was applied." in done.stderr
        assert "It is declared, and not applied yet: run featurestore apply." in done.stderr, done.output
    done = CliRunner().invoke(app, ["--repo", str(shop), "online", "order_modle", "customer=ann"])
    assert "It is declared" not in done.stderr
