"""Every key of featurestore.toml with a wrong value, a wrong unit and a typo: the file, the line, the key, and what would be right.

The keys are those of the tables: one without a case here fails the test.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from featurestore import FeatureStore
from featurestore.config import Config, load_config
from featurestore.errors import ConfigError
from featurestore.settings import (
    JwtConfig,
    MaterializeConfig,
    OfflineConfig,
    ServerConfig,
    ServingLogConfig,
    StatisticsConfig,
)
from tests.small import hours, table, view_of

TABLES: dict[str, Any] = {
    "offline": OfflineConfig,
    "materialize": MaterializeConfig,
    "server": ServerConfig,
    "jwt": JwtConfig,
    "serving_log": ServingLogConfig,
    "statistics": StatisticsConfig,
}
TEXT = (("3", "must be text in quotes"), ("[1]", "must be text in quotes"))
SHARE = (
    ("2.0", "must be at most 1"),
    ("-0.1", "must be at least 0"),
    ('"1%"', "must be a number"),
    ("[1]", "must be a number"),
)
WHOLE = (('"x"', "must be a whole number"), ("1.5", "must be a whole number"), ("true", "must be a whole number"))
POSITIVE = (*WHOLE, ("0", "must be at least 1"), ("-3", "must be at least 1"))

SIZES = ("body_bytes", "row_bytes", "manifest_bytes", "lookup_rows", "push_rows", "features", "key_bytes", "answer_bytes",
         "header_bytes", "connections", "requests", "bytes_in_flight")  # fmt: skip
SECONDS = ("request_seconds", "idle_seconds", "answer_seconds", "lookup_seconds", "push_seconds")

CASES: dict[str, tuple[tuple[str, str], ...]] = {
    "project": (*TEXT, ('"a-b"', "must be a name: letters, digits and underscores, beginning with a letter")),
    "registry": (*TEXT, ('"mysql://x"', "a registry is a path, sqlite:///path or postgresql://…"), ('""', "a path must be given")),
    "online": (*TEXT, ('"localhost:6379"', "must be a URL such as lmdb://.featurestore/online or redis://localhost:6379/0")),
    "logs": (*TEXT, ('""', "a path must be given")),
    "push_log": (
        ("3", "must be text in quotes"),
        ('"redis://x"', "must be a postgresql:// URL"),
        ('"postgresql://x/y"', "is for several machines, which share no lmdb:// folder: it needs an online store in Redis"),
    ),
    "compact_after": (*WHOLE, ("-1", "must be at least 0")),
    "lock_timeout": (('"60s"', "must be a number"), ("0", "must be more than 0"), ("[1]", "must be a number")),
    "definitions": (('"*.py"', "must be a list"), ("[3]", "must be text in quotes"), ('["/a/*.py"]', "must be a pattern relative to the file")),
    "sources": (('"x"', "must be a table"), ("{rows = 3}", "must be text in quotes")),
    "brokers": (('"x"', "must be a table"), ("{events = 3}", "must be a table"), ("{events = {url = [1]}}", "must be text in quotes")),
    "databases": (('"x"', "must be a table"), ("{shop = 3}", "must be text in quotes")),
    "catalogs": (('"x"', "must be a table"), ('{lake = "x"}', "must be a table"), ("{lake = {uri = 3}}", "must be text in quotes")),
    "offline": (("3", "must be a table"),),
    "materialize": (("3", "must be a table"),),
    "server": (
        ("3", "must be a table"),
        ('{tls_key = "a.pem"}', "must have both of tls_certificate and tls_key, or neither"),
        ('{client_ca = "a.pem"}', "client_ca needs tls_certificate and tls_key"),
    ),
    "jwt": (("3", "must be a table"), ('{issuer = "a"}', "must have jwks, issuer and audience")),
    "serving_log": (("3", "must be a table"),),
    "offline.memory_limit": TEXT,
    "offline.threads": POSITIVE,
    "materialize.chunk_keys": POSITIVE,
    "materialize.processes": POSITIVE,
    "offline.spill": TEXT,
    "offline.copies": TEXT,
    "offline.tiles": (("true", "must be text in quotes, or false"), ("3", "must be text in quotes, or false")),
    "server.host": TEXT,
    "server.port": (*WHOLE, ("65536", "must be at most 65535"), ("-1", "must be at least 0")),
    "server.workers": POSITIVE,
    "server.authentication": (('"on"', "must be 'required' or 'off'"), ("true", "must be 'required' or 'off'")),
    "server.when_unavailable": (('"default"', "must be 'raise' or 'defaults'"), ("true", "must be 'raise' or 'defaults'")),
    "server.log_format": (('"yaml"', "must be 'text' or 'json'"), ("true", "must be 'text' or 'json'")),
    "server.access_log": (('"on"', "must be 'off', 'stdout' or 'stderr'"), ("true", "must be 'off', 'stdout' or 'stderr'")),
    "server.console": (('"yes"', "must be 'on' or 'off'"), ("true", "must be 'on' or 'off'")),
    "server.traces": (('"on"', "must be 'off' or 'otlp'"), ("true", "must be 'off' or 'otlp'")),
    "server.tls_certificate": (*TEXT, ('""', "a path must be given")),
    "server.tls_key": (*TEXT, ('""', "a path must be given")),
    "server.client_ca": (*TEXT, ('""', "a path must be given")),
    "jwt.jwks": (
        *TEXT, ('""', "a path must be given"),
        *((f'"{url}"', "must be a file, or a URL that begins with https://") for url in ("http://issuer.example/keys", "ftp://a/b", "http://localhost.example/")),
    ),
    "jwt.issuer": TEXT,
    "jwt.audience": (("3", "must be a list"), ("[]", "must have one at least"), ("[3]", "must be text in quotes")),
    "jwt.algorithms": (('"RS256"', "must be a list"), ('["none"]', "must be 'RS256', 'RS384'"), ('["HS256"]', "must be 'RS256', 'RS384'"), ("[]", "must have one at least")),
    "jwt.leeway_seconds": (('"30s"', "must be a number"), ("-1", "must be at least 0"), ("301", "must be at most 300")),
    "jwt.name_claim": TEXT,
    "jwt.scopes_claim": TEXT,
    "jwt.scopes": (('"x"', "must be a table"), ('{reader = "read"}', "must be a list"), ('{reader = ["raed"]}', "must be 'read', 'push', 'materialize', 'metrics' or 'admin'")),
    "jwt.only_claim": TEXT,
    "server.compatible": (('"feast"', "must be a list"), ("[3]", "must be "), ('["sagmaker"]', "must be ")),
    "server.hosts": (('"x"', "must be a list"), ("[3]", "must be text in quotes"), ('["x:80"]', "must be a host name without a port")),
    "server.drain_seconds": (('"5s"', "must be a number"), ("-1", "must be at least 0"), ("3601", "must be at most 3600")),
    **{f"server.{name}": POSITIVE for name in SIZES},
    **{f"server.{name}": (('"20s"', "must be a number"), ("0", "must be more than 0")) for name in SECONDS},
    "serving_log.folder": TEXT,
    "serving_log.rate": SHARE,
    "serving_log.rates": (('"x"', "must be a table"), ("{model = 2}", "must be at most 1")),
    "serving_log.by": (('"row"', "must be 'request' or 'key'"), ("3", "must be 'request' or 'key'")),
    "serving_log.bys": (('"x"', "must be a table"), ('{model = "row"}', "must be 'request' or 'key'")),
    "statistics": (("3", "must be a table"),),
    "statistics.enabled": (('"no"', "must be true or false"), ("0", "must be true or false")),
    "statistics.keep": POSITIVE,
    "statistics.keep_hours": POSITIVE,
    "serving_log.retention": (*TEXT, ('"30 days"', "must be a duration such as '30d' or '12h'"), ('"30"', "must be a duration")),
    "serving_log.max_bytes": (*POSITIVE, ('"1GB"', "must be a whole number")),
    "serving_log.ship_to": (*TEXT, ('"served"', "must be a folder in an object store, such as s3://bucket/served"), ('"s3://a:b@c/d"', "must be a folder")),
}  # fmt: skip
FOREIGN = re.compile(r"Input should|Value error|valid (string|tuple|number)|pydantic")


def refused(folder: Path, *lines: str, env: str | None = None) -> str:
    """The message about a file of these lines, which begins with the file."""
    file = folder / "featurestore.toml"
    file.write_text("\n".join([*lines, ""]))
    with pytest.raises(ConfigError) as caught:
        load_config(folder, env)
    told = str(caught.value)
    assert told.startswith(f"{file}: "), told
    assert not FOREIGN.search(told), told
    return told.removeprefix(f"{file}: ")


def project(key: str) -> list[str]:
    return [] if key == "project" else ['project = "a"']


def test_every_key_has_its_cases() -> None:
    keys = {name for name in Config.model_fields if name not in {"root", "environment"}}
    keys |= {f"{table}.{name}" for table, kind in TABLES.items() for name in kind.model_fields}
    assert keys == CASES.keys()


@pytest.mark.parametrize("key", CASES)
def test_a_wrong_value_names_the_file_the_line_and_the_key(key: str, tmp_path: Path) -> None:
    """However the key is written: with its table, below the table's name, and in an environment."""
    table, _, name = key.rpartition(".")
    for value, says in CASES[key]:
        told = refused(tmp_path, "# a comment", *project(key), f"{key} = {value}")
        assert re.match(rf"{re.escape(key)}[\w.\[\]]*: ", told), told
        assert says in told, told
        assert told.endswith(f" (at line {3 - (key == 'project')})"), told
        if table:
            told = refused(tmp_path, *project(key), f"[{table}]", f"{name} = {value}")
            assert says in told
            assert told.endswith(" (at line 3)"), told
        told = refused(tmp_path, 'project = "a"', "[env.prod]", "", f"{key} = {value}", env="prod")
        assert told.startswith(f"env.prod.{key}"), told
        assert says in told, told
        assert told.endswith(" (at line 4)"), told


@pytest.mark.parametrize("size", ["4 apples", "4", "much"])
def test_a_size_that_is_none_names_its_key(size: str, tmp_path: Path) -> None:
    """It is the engine's to read, which does so when something is read for the first time."""
    (tmp_path / "featurestore.toml").write_text(f'project = "a"\noffline.memory_limit = "{size}"\n')
    view = view_of(table(thing=[1], at=[hours(-1)], x=[1.0]), ["x"])
    with (
        FeatureStore(tmp_path) as store,
        pytest.raises(ConfigError, match="must be a size such as '4GB' or '80%'") as caught,
    ):
        store.plan([view])
    assert "offline.memory_limit" in str(caught.value)


@pytest.mark.parametrize("key", CASES)
def test_a_typo_says_which_key_is_meant_and_where(key: str, tmp_path: Path) -> None:
    table, _, name = key.rpartition(".")
    typo = name[:2] + name[1:] if len(name) > 2 else name * 2
    below = [f"[{table}]"] if table else []
    told = refused(tmp_path, *project(key), *below, f"{typo} = 1")
    assert f"{'.'.join(filter(None, [table, typo]))}: there is no such key. " in told
    assert len(name) < 3 or f"Did you mean '{name}'?" in told, told
    assert told.endswith(f" (at line {len(project(key)) + len(below) + 1})"), told
