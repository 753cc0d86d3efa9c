"""What a plan says of versions: kept, retired with their successor, or named wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.errors import NotFoundError, PlanOutdatedError
from featurestore.registry.apply import apply_plan
from featurestore.registry.rollout import Rollout
from featurestore.registry.steps import FreeOnline, KeepVersion, Refill, RetireVersion
from featurestore.serving.log.serving_log import rows_served
from tests.registry.small_repository import Repository


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    repository = Repository(tmp_path)
    yield repository
    repository.offline.close()


class Freed(list):
    """The view versions that were freed."""

    def __call__(self, view: str, fingerprint: str) -> int:
        self.append((view, fingerprint))
        return 1


def apply(repo: Repository, rollout: Rollout = Rollout(), *, published: bool = True, **words: Any) -> Freed:
    freed = Freed()
    plan = repo.plan(repo.definitions(**words), rollout=rollout)
    apply_plan(plan, repo.registry, free=freed, published=lambda *_: published)
    return freed


def views(repo: Repository, name: str = "delays") -> str:
    return repo.registry.current().document["views"][name]["fingerprint"]


def fingerprint(repo: Repository) -> str:
    return repo.registry.current().document["services"]["model"]["fingerprint"]


def kept(repo: Repository) -> list[str]:
    return [one.fingerprint for one in repo.registry.kept()]


def test_a_version_that_is_replaced_is_retired_unless_it_is_to_be_kept(repo: Repository) -> None:
    """Each is a step of its own, before those that free what it held; kept, nothing is freed, now or by a later plan."""
    apply(repo)
    first, view = fingerprint(repo), views(repo)
    plan = repo.plan(repo.definitions(ttl="3d"))
    after = plan.document["services"]["model"]["fingerprint"]
    steps = [step for step in plan.steps if isinstance(step, (KeepVersion, RetireVersion, FreeOnline))]
    assert steps == [
        RetireVersion("model", first, after, ("delays",)),
        FreeOnline("delays", view, plan.document["views"]["delays"]["fingerprint"]),
    ]
    assert f"retire model {first[:8]}: freed once its successor {after[:8]} is served" in str(plan)
    assert "1 to retire" in str(plan)
    assert apply(repo, Rollout(keep=True), ttl="3d") == []
    assert kept(repo) == [first]
    assert apply(repo, ttl="4d") == [("delays", views_of(repo, 2))]
    assert kept(repo) == [first]


def views_of(repo: Repository, version: int) -> str:
    return str(repo.registry.version(version).document["views"]["delays"]["fingerprint"])


def test_going_back_to_what_is_kept_refills_nothing(repo: Repository) -> None:
    """It is online; what it takes the place of is retired as ever."""
    apply(repo)
    first = fingerprint(repo)
    apply(repo, Rollout(keep=True), ttl="3d")
    plan = repo.plan(repo.definitions())
    assert not [step for step in plan.steps if isinstance(step, Refill)]
    assert apply(repo) == [("delays", views_of(repo, 2))]
    assert (fingerprint(repo), kept(repo)) == (first, [])


def test_retiring_frees_what_no_other_version_reads(repo: Repository) -> None:
    """A view version that a kept one still reads stays; the last one to go frees it."""
    apply(repo)
    first, view = fingerprint(repo), views(repo)
    apply(repo, Rollout(keep=True), minutes=30)  # other code over the same view
    second = fingerprint(repo)
    apply(repo, Rollout(keep=True), minutes=30, ttl="3d")
    plan = repo.plan(repo.definitions(minutes=30, ttl="3d"), rollout=Rollout(retire=(f"model@{first[:7]}",)))
    assert [type(step) for step in plan.steps] == [RetireVersion]
    assert "nothing is freed; clients that name it are answered while its views are read by others" in str(plan)
    said: dict[str, Any] = {"minutes": 30, "ttl": "3d"}
    assert apply(repo, Rollout(retire=(f"model@{first[:7]}",)), **said) == []
    assert kept(repo) == [second]
    assert apply(repo, Rollout(retire=("all",)), published=False, **said) == []
    assert repo.registry.leftovers() == (("delays", view),)
    assert apply(repo, **said) == []  # it waits for its successor, which materialize looks for
    assert kept(repo) == []


def test_a_kept_version_whose_code_changes_says_who_can_serve_it(repo: Repository) -> None:
    """An on-demand function is run where its code is at hand."""
    apply(repo)
    plan = repo.plan(repo.definitions(minutes=30), rollout=Rollout(keep=True))
    assert [step.code for step in plan.steps if isinstance(step, KeepVersion)] == [("share",)]
    assert "only by a process that has the code of share as it was" in str(plan)


def test_what_is_retired_is_named_so_that_it_fits_one(repo: Repository) -> None:
    """Anything else is an error that lists what is kept."""
    apply(repo)
    for ttl in ("3d", "4d"):
        apply(repo, Rollout(keep=True), ttl=ttl)
    listed = ", ".join(sorted(f"model@{one[:12]}" for one in kept(repo)))
    for name, says in (
        ("model@", "2 kept versions"),
        ("model", "no version"),
        ("modle@1", "no version"),
        ("model@zz", "no"),
    ):
        with pytest.raises(NotFoundError, match=says) as caught:
            repo.plan(repo.definitions(ttl="4d"), rollout=Rollout(retire=(name,)))
        assert all(one in str(caught.value) for one in listed.split(", "))


def test_rows_that_are_served_meanwhile_change_no_digest(repo: Repository) -> None:
    """They are told; a plan that was shown is still the one to apply."""
    apply(repo)
    apply(repo, Rollout(keep=True), ttl="3d")
    plans = [
        repo.plan(repo.definitions(ttl="3d"), rollout=Rollout(retire=("all",), rows_served=lambda *_, n=n: n))
        for n in (1, 2500)
    ]
    assert plans[0].digest == plans[1].digest
    assert "2,500 rows of it were logged in the last day" in str(plans[1])
    assert [step["rows"] for step in plans[1].to_dict()["steps"] if step["step"] == "RetireVersion"] == [2500]
    freed = Freed()
    apply_plan(plans[0], repo.registry, free=freed, published=lambda *_: True, again=plans[1])
    assert len(freed) == 1


def test_a_plan_that_retires_is_refused_when_another_applied_since(repo: Repository) -> None:
    """Applying it twice changes nothing; after another version, it is planned again."""
    apply(repo)
    apply(repo, Rollout(keep=True), ttl="3d")
    plan = repo.plan(repo.definitions(ttl="3d"), rollout=Rollout(retire=("all",)))
    apply(repo, Rollout(keep=True), ttl="4d")
    with pytest.raises(PlanOutdatedError):
        apply_plan(plan, repo.registry, free=Freed())
    assert len(kept(repo)) == 2
    plan = repo.plan(repo.definitions(ttl="4d"), rollout=Rollout(retire=("all",)))
    numbers = [apply_plan(plan, repo.registry, free=Freed()) for _ in range(2)]
    assert [(one.number, one.changed) for one in numbers] == [(4, True), (4, False)]
    assert replace(numbers[0], changed=False).retired == numbers[1].retired


def test_rows_are_counted_from_the_footers_of_recent_segments(tmp_path: Path) -> None:
    """By the time in a file's name; of one service version."""
    for service, version, time, rows in (
        ("a", "f", 99, 5),
        ("a", "f", 100, 7),
        ("a", "f", 300, 11),
        ("a", "g", 300, 2),
    ):
        folder = tmp_path / service / version
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"row": list(range(rows))}), folder / f"{time}-{time}-1-ab-1.parquet")
    (tmp_path / "a" / "f" / "301-301-1-ab-2.parquet").write_bytes(b"PAR1 torn")
    assert rows_served(tmp_path, "a", "f", since=100) == 18
    assert rows_served(tmp_path, "a", "h", since=100) == 0
