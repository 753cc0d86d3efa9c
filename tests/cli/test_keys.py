"""`featurestore keys`: what is printed, where secrets go, and what is refused."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path

import pytest

from featurestore.access.api_keys import is_secret_of
from featurestore.registry.store import Registry
from tests.cli.test_commands import examples, run

SECRET = re.compile(r"fsk_[0-9a-f]{12}_[\w-]{43}")


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A repository whose definitions fail: nothing about keys runs them."""
    (tmp_path / "featurestore.toml").write_text('project = "shop"\nregistry = "registry.db"\n')
    (tmp_path / "definitions.py").write_text("raise RuntimeError\n")
    return tmp_path


def test_the_examples_run_in_order(repo: Path) -> None:
    for args in [*examples("keys", "create"), *examples("keys", "rotate"), *examples("keys", "list")]:
        assert run(repo, *args).stdout
    assert run(repo, *examples("keys", "revoke")[0]).stdout.startswith("revoked: fsk_")
    assert run(repo, *examples("keys", "revoke")[0]).stdout == "'web' was revoked before.\n"
    listed = json.loads(run(repo, "keys", "list", "--json").stdout)
    assert [(key["name"], key["state"], key["only_on"]) for key in listed] == [
        ("web", "revoked", None),
        ("collector", "live", ["source:carts"]),
        ("web", "revoked", None),
    ]


def test_a_secret_is_shown_once(repo: Path) -> None:
    """By create and rotate; never by list, revoke or an error."""
    first = json.loads(run(repo, "keys", "create", "web", "--scope", "read", "--json").stdout)["secret"]
    second = SECRET.search(run(repo, "keys", "rotate", "web").stdout)
    assert second is not None
    by_id = {key.id: key for key in Registry(repo / "registry.db").api_keys()}
    for secret in (first, second[0]):
        assert is_secret_of(secret, by_id[secret.split("_")[1]])
    told = [run(repo, "keys", "list"), run(repo, "keys", "list", "--json"), run(repo, "keys", "revoke", first, code=1)]
    told.append(run(repo, "keys", "revoke", "web", "--json"))
    for done in told:
        assert not SECRET.search(done.stdout + done.stderr)


def test_a_key_file_is_its_owner_s_alone(repo: Path) -> None:
    """And made once: whoever runs the command again has the same key."""
    file = repo / "web.key"
    done = run(repo, "keys", "create", "web", "--scope", "read", "-o", "web.key")
    assert not SECRET.search(done.stdout)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (key,) = Registry(repo / "registry.db").api_keys()
    assert is_secret_of(file.read_text().strip(), key)
    assert "nothing was done" in run(repo, "keys", "create", "web", "--scope", "read", "-o", "web.key").stdout
    assert Registry(repo / "registry.db").api_keys() == [key]
    run(repo, "keys", "rotate", "web", "-o", "web.key")
    newest = Registry(repo / "registry.db").api_keys()[-1]
    assert is_secret_of(file.read_text().strip(), newest)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    run(repo, "keys", "revoke", "web")
    run(repo, "keys", "create", "web", "--scope", "read", "-o", "web.key")  # the key in it opens nothing any more
    assert is_secret_of(file.read_text().strip(), Registry(repo / "registry.db").api_keys()[-1])


def test_no_file_of_something_else_is_written_over(repo: Path) -> None:
    """And where the file cannot be written, no key is made."""
    (repo / "notes.txt").write_text("mine")
    done = run(repo, "keys", "create", "web", "--scope", "read", "-o", "notes.txt", code=1)
    assert "notes.txt is there, and holds no key" in done.stderr
    assert (repo / "notes.txt").read_text() == "mine"
    done = run(repo, "keys", "create", "web", "--scope", "read", "-o", "no/such/web.key", code=1)
    assert "no/such/web.key cannot be written: there is no folder no/such" in " ".join(done.stderr.split())
    assert Registry(repo / "registry.db").api_keys() == []


def test_no_key_that_nobody_can_tell_again_is_written_over(repo: Path) -> None:
    """Of another name, or of another registry; neither by create nor by rotate, and then no key is made."""
    run(repo, "keys", "create", "wa", "--scope", "read", "-o", "wa.key")
    run(repo, "keys", "create", "wb", "--scope", "read", "-o", "wb.key")
    secret, before = (repo / "wa.key").read_text(), Registry(repo / "registry.db").api_keys()
    (repo / "other.key").write_text("fsk_000000000000_" + "A" * 43)
    (repo / "notes.txt").write_text("mine")
    for file, says in (
        ("wa.key", "wa.key holds the live key 'wa', and nobody can tell it again"),
        ("other.key", "other.key holds a key that this registry does not have"),
        ("notes.txt", "notes.txt is there, and holds no key"),
        (".", ". cannot be read: Is a directory"),
    ):
        for words in (["create", "wc", "--scope", "read"], ["rotate", "wb"], ["rotate", before[1].id]):
            assert says in " ".join(run(repo, "keys", *words, "-o", file, code=1).stderr.split())
    assert (repo / "wa.key").read_text() == secret
    assert (repo / "notes.txt").read_text() == "mine"
    assert Registry(repo / "registry.db").api_keys() == before
    run(repo, "keys", "revoke", "wa")
    run(repo, "keys", "create", "wc", "--scope", "read", "-o", "wa.key")  # the key in it opens nothing any more


def test_a_limit_to_what_is_not_applied_is_taken_with_a_notice(
    repo: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    done = run(repo, "keys", "create", "web", "--scope", "read", "--only", "service:nosuch", "--json")
    assert done.stderr == "No service nosuch is applied now; the key counts for it once there is one.\n"
    assert json.loads(done.stdout)["only_on"] == ["service:nosuch"]
    applied = tmp_path_factory.mktemp("applied")
    run(applied, "init", "shop")
    shop = applied / "shop"
    run(shop, "apply", "--yes")
    document = Registry(shop / ".featurestore" / "registry.db", project="shop").current().document
    words = [f"service:{name}" for name in document["services"]] + [f"source:{name}" for name in document["sources"]]
    words += [f"view:{name}" for kind in ("views", "on_demand") for name in document[kind]]
    assert len(words) > 3
    limits = [word for limit in words for word in ("--only", limit)]
    assert run(shop, "keys", "create", "web", "--scope", "read", *limits).stderr == ""


def test_a_mistyped_secret_is_neither_shown_nor_kept(repo: Path) -> None:
    """As a name, or where a name is asked for."""
    secret = json.loads(run(repo, "keys", "create", "web", "--scope", "read", "--json").stdout)["secret"]
    before, part = Registry(repo / "registry.db").api_keys(), secret[20:40]
    for typed in (secret, secret + "x", secret[:-1], secret[1:], secret.upper(), f"Bearer {secret}", secret[:30]):
        for words in (["create", typed, "--scope", "read"], ["rotate", typed], ["revoke", typed]):
            done = run(repo, "keys", *words, code=1)
            told = (done.stdout + done.stderr).replace("\n", "").lower()
            assert part[:10].lower() not in told
    assert Registry(repo / "registry.db").api_keys() == before
    run(repo, "keys", "create", "fsk_web", "--scope", "read", code=1)
    assert run(repo, "keys", "revoke", f"fsk_{before[0].id}").stdout == f"revoked: fsk_{before[0].id}\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["create", "web", "--scope", "raed"], "Did you mean 'read'?"),
        (["create", "web", "--scope", "read,push"], "repeat --scope, as --scope read --scope push"),
        (["create", "web", "--scope", "read", "--expires", "90"], "Duration '90' cannot be read"),
        (["create", "web", "--scope", "read", "--only", "carts"], "nothing that a key can be limited to"),
        (["rotate", "web"], "There is no key 'web'. Keys: none."),
    ],
)
def test_what_is_wrong_is_said(repo: Path, words: list[str], says: str) -> None:
    code = 2 if {"--expires", "read,push"} & {*words} else 1
    assert says in " ".join(run(repo, "keys", *words, code=code).stderr.split())
