"""The registry keeps of forgotten keys what finds them again, and no key."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from featurestore.errors import RegistryError
from featurestore.registry.activity import Activity
from featurestore.registry.forgotten import Forgetting
from featurestore.registry.store import Registry
from featurestore.semantics.forgotten import ForgottenKey, ForgottenKeys
from tests.registry.older import make_older
from tests.registry.places import by_hand

KEY = ForgottenKey("customer", ("customer", "number"), "ab12", 7)


@pytest.fixture
def registry(place: Path | str) -> Iterator[Registry]:
    made = Registry(place)
    yield made
    made.close()


def test_what_is_known_of_a_key_is_written_over(registry: Registry) -> None:
    """The last word on it counts; readers are told of it from the first on, whether it is erased by then or not."""
    assert (registry.forgotten_keys(), registry.forgettings()) == (None, [])
    secret = registry.forget_secret()
    assert (registry.forget_secret(), len(secret), registry.forgotten_keys()) == (secret, 32, None)
    begun = Forgetting(KEY, refill=("branches",), sources=("orders",))
    registry.put_forgetting(begun)
    assert registry.forgettings() == [begun]
    assert registry.forgotten_keys() == ForgottenKeys(secret, (KEY,))
    done = replace(begun, key=KEY._replace(at=9), done_at=10, refill=())
    registry.put_forgetting(done, [Activity("forget", "customer")])
    assert registry.forgettings() == [done]
    assert [one.what for one in registry.activity()] == ["forget"]


def test_what_was_changed_is_an_error(registry: Registry) -> None:
    """Never a key that counts again: neither where a bit of a digest changed, nor where the secret is gone."""
    registry.forget_secret()
    registry.put_forgetting(Forgetting(KEY))
    by_hand(registry.place, "UPDATE forgotten SET digest = 'ab13'")
    with pytest.raises(RegistryError, match="a forgotten key of entity 'customer' is not what was written"):
        registry.forgotten_keys()
    by_hand(registry.place, "UPDATE forgotten SET digest = 'ab12'", "DELETE FROM forget_secret")
    with pytest.raises(RegistryError, match="the secret of its forgotten keys is gone"):
        registry.forgotten_keys()


def test_a_registry_of_before_knows_of_none(tmp_path: Path) -> None:
    """And learns of some when they are written."""
    registry = Registry(tmp_path / "registry.db")
    registry.forget_secret()
    make_older(tmp_path / "registry.db", 6)
    assert registry.forgotten_keys() is None
    registry.forget_secret()
    registry.put_forgetting(Forgetting(KEY))
    assert registry.forgettings() == [Forgetting(KEY)]
