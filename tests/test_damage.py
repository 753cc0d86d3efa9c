"""Single bits flipped in every kind of file that the product writes: what matters is detected, and no value is ever another.

The same for more bits: python -m tests.damaged_project FOLDER --bits 100
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import redis

from featurestore import FeatureStore
from featurestore.errors import OnlineDamagedError
from featurestore.online.value_checksums import MARK
from featurestore.online.view_codec import ViewCodec
from featurestore.registry.documents import resolved_view
from tests.draws import long
from tests.test_audit import HOUR, World

KINDS = (
    "frame.parquet.manifest.json .json", "logs .log", "logs .json", "logs .parquet", "logs tip", "online .mdb",
    "registry.arrivals.db .db", "registry.db .db", "served .parquet", "served counts", "tiles .json", "tiles .parquet",
)  # fmt: skip


@long
def test_no_bit_changes_a_value(tmp_path: Path) -> None:
    """Training, lookups, explain, audit, materialize, push and compaction give what they give without damage, or an error of
    ours; of each kind of file one bit."""
    command = [sys.executable, "-m", "tests.damaged_project", str(tmp_path / "project"), "--bits", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert set(KINDS) <= set(told)
    assert sum("error" in what for what in told.values()) >= 4
    assert not any("wrong" in what for what in told.values())


def test_a_damaged_record_is_written_anew(tmp_path: Path, redis_url: str) -> None:
    """Its key fails and other keys go on; a full run, which switches all keys at once, gives it training's values again."""
    world = World(tmp_path, redis_url)
    with world.store as store, redis.Redis.from_url(redis_url) as client:
        world.serve(1)
        codec = ViewCodec(store.config.project, resolved_view(store.registry.current().document, "view"))
        one, other = codec.key([1]), codec.key([2])
        stored = bytearray(client.get(one))
        stored[20] ^= 4
        client.set(one, bytes(stored))
        with pytest.raises(OnlineDamagedError) as raised:
            store.get_online_features([{"thing": 1, "scale": 1.0}], "service")
        assert raised.value.keys == (one,)
        assert store.get_online_features([{"thing": 2, "scale": 1.0}], "service").statuses["view__x"] == ["PRESENT"]
        store.materialize(full=True, progress=False)  # what is served, and 13:00, which is served from 13:10 on
        for _ in range(2):
            result = store.get_online_features([{"thing": 1, "scale": 1.0}], "service")
            assert result.statuses["view__x"] == ["PRESENT"]
            world.clock.advance(HOUR / 2)
        audit = store.audit()
        assert (audit.skewed, audit.not_audited) == (0, {})
        client.set(other, client.get(one))  # a record under another key
        with pytest.raises(OnlineDamagedError):
            store.get_online_features([{"thing": 2, "scale": 1.0}], "service")


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_a_full_run_goes_on_from_whatever_is_damaged(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Of what says how far a view is; an ordinary run names what to run, where it needs what is damaged."""
    online = f"lmdb://{tmp_path}/online" if kind == "lmdb" else request.getfixturevalue("redis_url")
    world = World(tmp_path, online)
    with world.store as store:
        world.serve(1)
        codec = ViewCodec(store.config.project, resolved_view(store.registry.current().document, "view"))
        stops = {codec.watermark_key, codec.state_key}
        beside = {
            codec.lease_key,
            codec.run_key,
            codec.chunks_key,
            codec.key([0]),
        }  # in LMDB, a record lies beside the lease
        for key in sorted(stops | beside):
            _damage(store, key)
            if key in stops:
                with pytest.raises(OnlineDamagedError, match="materialize --full"):
                    store.materialize(progress=False)
            store.materialize(full=True, progress=False)
            world.serve(1)
            assert store.verify(["view"]).ok, key
        audit = store.audit()
        assert (audit.skewed, audit.not_audited, audit.damaged) == (0, {}, {})


def _damage(store: FeatureStore, key: bytes) -> None:
    """Put what nobody wrote under a key."""
    nonsense = MARK + b"not what was written"
    environment = getattr(store.online, "_environment", None)
    if environment is None:
        with redis.Redis.from_url(str(store.config.online)) as client:
            client.set(key, nonsense)
    else:
        with environment.env.begin(write=True) as transaction:
            transaction.put(key, nonsense, db=environment.keys)
