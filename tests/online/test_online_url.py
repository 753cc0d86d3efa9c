"""Opening a store by its URL, and what is wrong with a URL."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from featurestore.errors import ConfigError
from featurestore.online import STORES, open_online
from featurestore.online.url import byte_count, seconds, whole_number


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis:localhost", "begins with a scheme"),
        ("data/online", "begins with a scheme"),
        (
            "ldmb://data",
            r"the scheme 'ldmb'\. Did you mean 'lmdb'\? Schemes: lmdb, redis, redis\+cluster, redis\+sentinel, rediss, ",
        ),
        ("lmdb://", "names a directory"),
        ("lmdb://d?mapsize=1GiB", r"no option 'mapsize'\. Did you mean 'map_size'\? Options: lock_timeout, map_size\."),
        ("lmdb://d?map_size=1GiB&map_size=2GiB", "'map_size'.* twice"),
        ("lmdb://d?map_size=lots", "'lots' is not a size such as"),
        ("redis://h?poolsize=3", r"Did you mean 'pool_size'\?"),
        ("redis://h?pool_size=0", "'0' is not a whole number from 1"),
        ("redis://h?timeout=0", "'0' is not a number of seconds above 0"),
        ("redis://h?timeout=nan", "not a number of seconds"),
        ("redis://h?ca_file=/ca.pem", "no option 'ca_file'"),
        ("rediss://h?ca_file=/no/such/file", "no file '/no/such/file'"),
        ("redis://h/first", "ends in a database number"),
        ("redis://h:port", "host or port that cannot be read"),
        ("redis://h,h2", r"names one host\. For several, say what they are: redis\+cluster:// or redis\+sentinel://"),
        ("redis+sentinel://h,h2", r"ends in the primary's name, such as redis\+sentinel://"),
        ("redis+sentinel://h/mymaster/one", "ends in the primary's name"),
        ("redis+cluster://h,h2/1", "a cluster has no databases"),
        ("redis+cluster://h,h2:port", "host or port that cannot be read"),
        ("redis+cluster://h?sentinel_password=x", "no option 'sentinel_password'"),
        ("redis+sentinel://h/m?ca_file=/ca.pem", "no option 'ca_file'"),
    ],
)
def test_a_wrong_url_says_what_would_be_right(url: str, message: str) -> None:
    """Each mistake is a ConfigError that names it."""
    with pytest.raises(ConfigError, match=message):
        open_online(url)


@pytest.mark.parametrize(
    "url",
    [
        "redis://:s3cret@h?colour=1",
        "redis://:s3cret/x@h",
        "redis://:s3cret#x@h",
        "redis://:s3cret?x@h",
        "redis://user:s3cret@h:99999999",
        "redis://user:s3cret@h/one",
        "redis://user:s3cret@h?timeout=soon",
        "user:s3cret@h",
        "http://user:s3cret@h",
        "redis://user:s3cret@[h",
        "redis+cluster://user:s3cret@h,h2:99999999",
        "redis+sentinel://user:s3cret@h,h2",
        "redis+sentinel://h?sentinel_password=s3cret",
    ],
)
def test_no_complaint_about_a_url_shows_its_password(url: str) -> None:
    """Nor does what was caught on the way."""
    with pytest.raises(ConfigError) as caught:
        open_online(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "s3cret" not in str(error) or error.__suppress_context__
        assert "s3cret" not in str(caught.value)
        error = error.__cause__


@pytest.mark.parametrize(
    ("text", "size"),
    [("1", 1), ("10B", 10), ("2K", 2048), ("2KB", 2048), ("3MiB", 3 << 20), ("64 gib", 64 << 30), ("1T", 1 << 40)],
)
def test_sizes(text: str, size: int) -> None:
    """Sizes are powers of 1024 in any common spelling."""
    assert byte_count(text) == size


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5G", "G", "1e9", "1P", "٣"])
def test_what_is_no_size(text: str) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match="not a size"):
        byte_count(text)


def test_numbers() -> None:
    """Seconds may have a fraction, counts may not."""
    assert seconds("0.25") == 0.25
    assert whole_number(0)("0") == 0
    for text in ("", "1.0", "-1", "²"):
        with pytest.raises(ValueError, match="whole number"):
            whole_number(0)(text)


def test_libraries_are_loaded_when_a_store_is_opened() -> None:
    """Importing the package loads neither redis nor lmdb; every scheme's class exists."""
    program = """
import sys
import featurestore.online as online
assert not {"redis", "hiredis", "lmdb"} & set(sys.modules)
online.open_online("redis://localhost").close()
assert "redis" in sys.modules and "lmdb" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    servers = {scheme + kind for scheme in ("redis", "rediss") for kind in ("", "+sentinel", "+cluster")}
    assert set(STORES) == {"lmdb", *servers}


def test_every_scheme_and_option_is_documented() -> None:
    """docs/online-stores.md has each of them."""
    from featurestore.online.lmdb import LmdbStore
    from featurestore.online.redis_url import OPTIONS, SENTINEL_OPTIONS, TLS_OPTIONS

    page = (Path(__file__).parents[2] / "docs" / "online-stores.md").read_text()
    for option in [*LmdbStore.OPTIONS, *OPTIONS, *TLS_OPTIONS, *SENTINEL_OPTIONS]:
        assert f"`{option}`" in page, option
    for scheme in STORES:
        assert f"`{scheme}://" in page, scheme
