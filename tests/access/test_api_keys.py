"""API keys in the registry: made, told, rotated, revoked; and a registry of before them."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.access.api_keys import create_key, is_secret_of, key_id, revoke_key, rotate_key
from featurestore.access.principal import EVERYBODY, SCOPES, Principal
from featurestore.clock import wall_clock
from featurestore.errors import ConfigError, ForbiddenError, NotFoundError, RegistryError
from featurestore.registry.documents import empty_document
from featurestore.registry.store import SCHEMA, Registry
from tests.registry.older import make_older
from tests.registry.places import by_hand

HOUR_US = 3_600_000_000


@pytest.fixture
def registry(place: Path | str) -> Registry:
    return Registry(place)


def test_a_key_is_told_by_its_secret_and_the_registry_has_none(registry: Registry) -> None:
    """What is on the disk has the id, and neither the secret nor a part of it."""
    made = create_key(registry, "web", ["push", "read"], only_on=["service:a"], lasts_us=HOUR_US)
    (key,) = registry.api_keys()
    assert key == made.key
    assert (key.name, key.scopes, key.only_on) == ("web", ("read", "push"), ("service:a",))
    assert key.expires_at == key.created_at + HOUR_US
    assert key_id(made.secret) == key.id
    assert is_secret_of(made.secret, key)
    assert not is_secret_of(made.secret[:-1] + ("A" if made.secret[-1] != "A" else "B"), key)
    random = made.secret.rpartition(key.id)[2][1:]
    assert len(random) == 43  # 256 bits
    if isinstance(registry.place, Path):
        kept = b"".join(file.read_bytes() for file in registry.place.parent.iterdir())
    else:
        kept = repr(by_hand(registry.place, "SELECT k::text, encode(k.hash, 'escape') FROM api_keys k")).encode()
    assert key.id.encode() in kept
    assert random[:12].encode() not in kept
    assert made.secret not in repr(made)
    assert repr(made.key.hash) not in repr(made)


def test_secrets_differ(registry: Registry) -> None:
    secrets = {create_key(registry, f"k{number}", ["read"]).secret for number in range(20)}
    assert len(secrets) == 20


@pytest.mark.parametrize(
    ("name", "scopes", "only", "says"),
    [
        ("two words", ["read"], None, "is no name of a key"),
        ("", ["read"], None, "is no name of a key"),
        ("web", [], None, "must have a scope"),
        ("web", ["raed"], None, r"no scope 'raed'\. Did you mean 'read'\?"),
        ("web", ["read"], ["delay_model"], "nothing that a key can be limited to"),
        ("web", ["read"], ["service:"], "nothing that a key can be limited to"),
        ("web", ["read", "admin"], ["service:a"], "for the whole project"),
    ],
)
def test_a_key_that_means_nothing_is_refused(
    registry: Registry, name: str, scopes: list[str], only: list[str] | None, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        create_key(registry, name, scopes, only_on=only)
    assert registry.api_keys() == []


def test_one_live_key_bears_a_name(registry: Registry) -> None:
    """Also of several processes at once; a revoked key's name is free again."""
    create_key(registry, "web", ["read"])
    with pytest.raises(ConfigError, match="keys rotate web"):
        create_key(registry, "web", ["read"])
    revoke_key(registry, "web")
    made: list[str] = []

    def race() -> None:
        try:
            made.append(create_key(Registry(registry.place), "web", ["read"]).secret)
        except ConfigError:
            pass

    threads = [threading.Thread(target=race) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1


def test_a_rotated_key_is_valid_for_the_overlap(registry: Registry) -> None:
    """The new one has its scopes and limits, and lasts as long as it did; the old one never lasts longer than it would have."""
    old = create_key(registry, "web", ["read"], only_on=["view:v"], lasts_us=HOUR_US)
    new = rotate_key(registry, "web", overlap_us=60_000_000)
    assert (new.key.scopes, new.key.only_on) == (("read",), ("view:v",))
    assert new.key.expires_at == new.key.created_at + HOUR_US
    found = {key.id: key for key in registry.api_keys()}
    ends = found[old.key.id].expires_at
    assert ends == new.key.created_at + 60_000_000
    assert found[old.key.id].is_live(ends - 1)
    assert not found[old.key.id].is_live(ends)
    rotate_key(registry, "web", overlap_us=HOUR_US * 24)
    assert {key.id: key for key in registry.api_keys()}[old.key.id].expires_at == ends
    rotate_key(registry, "web", overlap_us=0)
    assert [key.state(wall_clock()) for key in registry.api_keys()] == ["expired"] * 3 + ["live"]
    revoke_key(registry, "web")
    with pytest.raises(NotFoundError, match="not live any more"):
        rotate_key(registry, "web", overlap_us=0)


def test_a_key_is_revoked_by_name_with_all_its_secrets_or_by_id_alone(registry: Registry) -> None:
    first = create_key(registry, "web", ["read"]).key
    second = rotate_key(registry, "web", overlap_us=HOUR_US).key
    assert [key.id for key in revoke_key(registry, f"fsk_{first.id}")] == [first.id]
    assert {key.id: key.state(wall_clock()) for key in registry.api_keys()} == {first.id: "revoked", second.id: "live"}
    assert [key.id for key in revoke_key(registry, "web")] == [second.id]
    assert revoke_key(registry, "web") == []
    with pytest.raises(NotFoundError, match="There is no key 'wed'. Keys: web"):
        revoke_key(registry, "wed")


def test_a_secret_that_is_given_for_a_name_is_not_printed(registry: Registry, tmp_path: Path) -> None:
    secret = create_key(Registry(tmp_path / "other.db"), "web", ["read"]).secret
    with pytest.raises(NotFoundError) as caught:
        revoke_key(registry, secret)
    random = secret.split("_", 2)[2]  # which may have an underscore itself
    assert random[:8] not in str(caught.value)


def test_when_a_key_was_used_never_goes_back(registry: Registry) -> None:
    key = create_key(registry, "web", ["read"]).key
    for at in (5, 9, 7):
        registry.note_used({key.id: at})
    assert registry.api_keys() == [replace(key, used_at=9)]


def test_a_key_that_changed_on_the_disk_opens_nothing(registry: Registry) -> None:
    """Nobody is let in by it, nor told a wrong list."""
    create_key(registry, "web", ["read"])
    by_hand(registry.place, """UPDATE api_keys SET scopes = '["admin"]'""")
    with pytest.raises(RegistryError, match=r"is damaged: API key \w+ is not what was written"):
        registry.api_keys()


def test_a_registry_of_before_keys_has_none_and_is_upgraded_by_the_first(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry.db")
    registry.commit(empty_document(), expected=0, note="before")
    make_older(registry.place, 4)
    before = registry.place.read_bytes()
    assert registry.api_keys() == []
    assert registry.place.read_bytes() == before
    made = create_key(registry, "web", ["read"])
    assert registry.api_keys() == [made.key]
    assert registry.current().note == "before"
    assert by_hand(registry.place, "PRAGMA user_version") == [(SCHEMA,)]


def test_a_principal_may_what_its_scopes_and_limits_say() -> None:
    """And is told which of them is missing."""
    reader = Principal("key:web", frozenset({"read"}), frozenset({"service:a", "view:v"}))
    assert reader.may("read")
    assert reader.may("read", "service:a", "view:v")
    assert not reader.may("read", "service:a", "service:b")
    assert not reader.may("read", "view:a")  # a name alone says too little: it may be a view's too
    assert not reader.may("push", "service:a")
    with pytest.raises(ForbiddenError, match=r"takes the scope 'push'; key:web has: read") as caught:
        reader.must("push")
    assert caught.value.scope == "push"
    with pytest.raises(ForbiddenError, match=r"scope 'read' for service 'b'; key:web is limited to others"):
        reader.must("read", "service:a", "service:b")
    reader.must("read", "service:a")
    everything = Principal("key:root", frozenset({"admin"}))
    assert [scope for scope in SCOPES if everything.may(scope)] == ["metrics", "admin"]
    assert not Principal("key:prometheus", frozenset({"metrics"})).may("admin")
    for scope in SCOPES:
        EVERYBODY.must(scope, "service:a")
