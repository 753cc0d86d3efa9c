"""What `featurestore --help` and `--version` print."""

from __future__ import annotations

from importlib.metadata import version

import pytest
from typer.testing import CliRunner

from featurestore.cli import app
from featurestore.cli.application import GROUPS


def test_the_version_is_told() -> None:
    told = CliRunner().invoke(app, ["--version"])
    assert (told.exit_code, told.stdout) == (0, f"featurestore {version('featurestore')}\n")


def test_every_command_is_in_one_group() -> None:
    listed = [name for names in GROUPS.values() for name in names]
    every = [
        command.name or command.callback.__name__.replace("_", "-")
        for command in app.registered_commands
        if command.callback
    ] + [group.name or group.typer_instance.info.name for group in app.registered_groups if group.typer_instance]
    assert sorted(listed) == sorted(every)
    assert list(GROUPS) == ["Start", "Train", "Serve", "Look", "Operate"]


@pytest.mark.parametrize("columns", ["60", "80", "200"])
def test_no_sentence_is_cut(columns: str) -> None:
    told = CliRunner().invoke(app, ["--help"], env={"COLUMNS": columns}, terminal_width=int(columns)).stdout
    assert "..." not in told.replace("[ARGS]...", "")
    words = " ".join(told.split())
    for command in app.registered_commands:
        assert command.help is not None
        first = command.help.split("\n\n")[0].split(". ")[0].rstrip(".")
        assert " ".join(first.split()) in words, command.help
