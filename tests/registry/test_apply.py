"""apply: the steps of a plan, once, and only while it is what would be planned."""

from __future__ import annotations

import pyarrow as pa
import pytest

from featurestore.errors import OnlineUnavailableError, PlanOutdatedError
from featurestore.registry.apply import AppliedVersion, apply_plan
from featurestore.registry.rollout import free_leftovers
from featurestore.registry.steps import FreeOnline
from featurestore.registry.store import Registry
from tests.forks import forks
from tests.registry.small_repository import Repository, landings

FORKS = forks()


@pytest.fixture
def repo(tmp_path):
    repository = Repository(tmp_path)
    yield repository
    repository.offline.close()


class Online:
    """An online store's keys by view version: how many there are, and what was freed."""

    def __init__(self, *, fails=0):
        self.fails = fails
        self.freed = []
        self.served = set()

    def free(self, view, fingerprint):
        if self.fails:
            self.fails -= 1
            raise OnlineUnavailableError("it cannot be reached")
        self.freed.append((view, fingerprint))
        return 7

    def published(self, view, fingerprint):
        return (view, fingerprint) in self.served


def fingerprint(repo, view="delays"):
    return repo.registry.current().document["views"][view]["fingerprint"]


def apply(repo, definitions, online=None, **words):
    return apply_plan(repo.plan(definitions), repo.registry, free=(online or Online()).free, **words)


def test_applying_makes_the_plans_document_the_current_version(repo):
    """With its note; what must be filled is told."""
    plan = repo.plan(repo.definitions())
    applied = apply_plan(plan, repo.registry, free=Online().free, note="first")
    assert (applied.number, applied.changed, applied.freed, applied.waiting) == (1, True, (), ())
    assert {step.view for step in applied.refill} == {"delays", "seats"}
    current = repo.registry.current()
    assert (current.number, current.document, current.note) == (1, plan.document, "first")


def test_applying_a_plan_twice_changes_nothing(repo):
    """Nor does applying one that has nothing to do."""
    plan = repo.plan(repo.definitions())
    apply_plan(plan, repo.registry, free=Online().free)
    again = apply_plan(plan, repo.registry, free=Online().free)
    assert (again.number, again.changed) == (1, False)
    nothing = apply(repo, repo.definitions())
    assert (nothing.number, nothing.changed, nothing.refill) == (1, False, ())
    assert len(repo.registry.history()) == 1


def test_a_removed_view_is_freed_at_once_and_only_after_the_registry_says_so(repo):
    """Freeing first would leave a view that is applied and has no values."""
    apply(repo, repo.definitions())
    old = fingerprint(repo, "seats")
    seen = []

    def free(view, version):
        seen.append((view, version, repo.registry.generation()))
        return 7

    repo.definitions()
    applied = apply_plan(repo.plan([repo.delays]), repo.registry, free=free)
    assert seen == [("seats", old, 2)]
    assert applied.freed == (("seats", old, 7),)
    assert repo.registry.leftovers() == ()


def test_a_replaced_version_is_freed_once_its_successor_is_served(repo):
    """Until then the old one is served; materialize frees it when it has published the new one."""
    online = Online()
    apply(repo, repo.definitions())
    old = fingerprint(repo)
    applied = apply(repo, repo.definitions(ttl="3d"), online, published=online.published)
    new = fingerprint(repo)
    assert applied.waiting == (FreeOnline("delays", old, new),)
    assert free_leftovers(repo.registry, free=online.free, published=online.published) == ()
    online.served.add(("delays", new))
    assert free_leftovers(repo.registry, free=online.free, published=online.published) == (("delays", old, 7),)
    assert free_leftovers(repo.registry, free=online.free, published=online.published) == ()
    assert online.freed == [("delays", old)]


def test_a_successor_that_is_served_already_frees_at_once(repo):
    """As when a plan is taken back whose version was never freed."""
    online = Online()
    apply(repo, repo.definitions())
    first = fingerprint(repo)
    apply(repo, repo.definitions(ttl="3d"))
    second = fingerprint(repo)
    online.served.add(("delays", first))
    applied = apply(repo, repo.definitions(), online, published=online.published)
    assert fingerprint(repo) == first
    assert applied.freed == (("delays", second, 7),)
    assert repo.registry.leftovers() == ()


def test_versions_that_were_skipped_are_freed_with_the_last(repo):
    """A version that was replaced before it was ever served waits for what is current now."""
    online = Online()
    for ttl in ("2d", "3d", "4d"):
        apply(repo, repo.definitions(ttl=ttl))
    assert len(repo.registry.leftovers()) == 2
    online.served.add(("delays", fingerprint(repo)))
    assert len(free_leftovers(repo.registry, free=online.free, published=online.published)) == 2


def test_an_apply_that_dies_before_it_has_freed_is_completed_by_the_next(repo):
    """The same plan again, a new plan, or materialize: each of them frees what is left."""
    for complete in ("the plan", "a new plan", "materialize"):
        apply(repo, repo.definitions())
        old = fingerprint(repo, "seats")
        online = Online(fails=1)
        plan = repo.plan([repo.delays])
        with pytest.raises(OnlineUnavailableError):
            apply_plan(plan, repo.registry, free=online.free)
        assert [left.view for left in repo.registry.leftovers()] == ["seats"]
        if complete == "the plan":
            assert not apply_plan(plan, repo.registry, free=online.free).changed
        elif complete == "a new plan":
            rest = repo.plan([repo.delays])
            assert rest.steps == (FreeOnline("seats", old),)
            assert not apply_plan(rest, repo.registry, free=online.free).changed
        else:
            free_leftovers(repo.registry, free=online.free, published=online.published)
        assert online.freed == [("seats", old)]
        assert repo.registry.leftovers() == ()


def test_what_is_current_again_is_not_freed(repo):
    """A plan that was to free it and died is applied again after the view came back."""
    apply(repo, repo.definitions())
    online = Online(fails=1)
    with pytest.raises(OnlineUnavailableError):
        apply_plan(repo.plan([repo.delays]), repo.registry, free=online.free)
    apply(repo, repo.definitions(), online)
    assert online.freed == []
    assert repo.registry.leftovers() == ()


def test_a_plan_is_refused_when_the_registry_moved_on(repo):
    """Nothing is written and nothing freed."""
    online = Online()
    plan = repo.plan(repo.definitions())
    apply(repo, repo.definitions(ttl="9d"))
    with pytest.raises(PlanOutdatedError, match="against version 0 .* come to version 1"):
        apply_plan(plan, repo.registry, free=online.free)
    apply(repo, repo.definitions(ttl="8d"))
    shown = repo.plan([repo.delays])
    apply(repo, repo.definitions(ttl="7d"))
    with pytest.raises(PlanOutdatedError):
        apply_plan(shown, repo.registry, free=online.free)
    assert repo.registry.generation() == 3
    assert online.freed == []


OUTDATED = [
    ("a definition", lambda repo: repo.definitions(ttl="9d")),
    ("a label", lambda repo: repo.definitions(description="Changed.")),
    ("a column's type", lambda repo: repo.write("landings.parquet", landings(gate=pa.array(range(100), pa.int64())))),
]


@pytest.mark.parametrize(("what", "change"), OUTDATED)
def test_a_plan_is_refused_when_what_it_was_made_of_changed(repo, what, change):
    """It is made again just before it is applied, and both digests must be one."""
    shown = repo.plan(repo.definitions())
    changed = change(repo) or repo.definitions()
    with pytest.raises(PlanOutdatedError, match=f"plan shown \\({shown.digest[:8]}, against version 0\\) is not what"):
        apply_plan(shown, repo.registry, free=Online().free, again=repo.plan(changed))
    assert repo.registry.generation() == 0
    again = repo.plan(changed)
    assert apply_plan(again, repo.registry, free=Online().free, again=repo.plan(changed)).changed


def _apply_own(root, number, barrier, results):
    """Plan and apply one more view beside whatever is applied, again whenever another process was quicker."""
    from featurestore.declare.views import FeatureView

    repo = Repository(root, new=False)
    repo.definitions()
    own = FeatureView(f"own{number}", entity=repo.carrier, source=repo.source, key={"carrier": "carrier_code"},
                      refresh="1h", ready_after="10m", features=["gate"])  # fmt: skip
    barrier.wait()
    refused = 0
    while True:
        try:
            plan = repo.plan([own], remove_missing=False)
            applied = apply_plan(plan, repo.registry, free=lambda *_: 0)
            break
        except PlanOutdatedError:
            refused += 1
    repo.offline.close()
    results.put((applied.number, applied.changed, refused))


def test_processes_that_plan_and_apply_at_once_lose_nothing(repo):
    """Four of them, each with a view of its own: each becomes one version, and all views are there in the end."""
    barrier, results = FORKS.Barrier(4, timeout=600), FORKS.Queue()
    processes = [FORKS.Process(target=_apply_own, args=(repo.root, i, barrier, results)) for i in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=600)
    assert [process.exitcode for process in processes] == [0] * 4
    done = sorted(results.get(timeout=600) for _ in processes)
    assert [(number, changed) for number, changed, _ in done] == [(number, True) for number in (1, 2, 3, 4)]
    registry = Registry(repo.registry.place)
    assert set(registry.current().document["views"]) == {f"own{i}" for i in range(4)}
    assert [len(version.document["views"]) for version in registry.history()] == [4, 3, 2, 1]


def test_the_same_plan_applied_by_two_is_applied_once(repo):
    """Whoever comes second finds it done."""
    plan, same = repo.plan(repo.definitions()), repo.plan(repo.definitions())
    assert apply_plan(plan, repo.registry, free=Online().free).changed
    again = apply_plan(same, repo.registry, free=Online().free)
    assert again == AppliedVersion(1, False, refill=again.refill)
