"""A plan is the list of steps between two documents: what is printed is what is executed."""

from __future__ import annotations

import json

import pytest

from featurestore.declare.folds import Latest
from featurestore.registry.diff import Change, changes, code_changes
from featurestore.registry.documents import empty_document
from featurestore.registry.steps import (
    AddDefinition,
    ChangeLabel,
    ChangeValue,
    FreeOnline,
    Notice,
    Plan,
    Refill,
    RemoveDefinition,
    steps_between,
)
from featurestore.types import Int64

ALL = {
    ("entities", "carrier"), ("entities", "route"), ("sources", "landings"), ("views", "delays"), ("views", "routes"),
    ("on_demand", "ratio"), ("services", "model"),
}  # fmt: skip


def steps_of(steps, kind):
    return [step for step in steps if isinstance(step, kind)]


def test_from_nothing_everything_is_added_and_every_view_filled(repo, make_document):
    """Definitions come in the order in which they refer to each other."""
    document = make_document(repo().all)
    steps = steps_between(empty_document(), document)
    added = steps_of(steps, AddDefinition)
    assert {(step.kind, step.name) for step in added} == ALL
    assert [step.kind for step in added] == ["entities"] * 2 + ["sources"] + ["views"] * 2 + ["on_demand", "services"]
    filled = steps_of(steps, Refill)
    assert [(step.view, step.fingerprint, step.reason) for step in filled] == [
        (name, document["views"][name]["fingerprint"], "it is new") for name in ("delays", "routes")
    ]
    assert steps == (*added, *filled)


def test_to_nothing_everything_is_removed_and_its_keys_freed(repo, make_document):
    """At once: nothing replaces them."""
    document = make_document(repo().all)
    steps = steps_between(document, empty_document())
    removed, freed = steps_of(steps, RemoveDefinition), steps_of(steps, FreeOnline)
    assert {(step.kind, step.name) for step in removed} == ALL
    assert [(step.view, step.replaced_by) for step in freed] == [("delays", None), ("routes", None)]
    assert steps == (*removed, *freed)


def test_equal_documents_are_no_steps(repo, make_document):
    """However often they are made."""
    plan = Plan(3, make_document(repo().all), steps_between(make_document(repo().all), make_document(repo().all)))
    assert plan.is_empty
    assert "Nothing to change: 7 definitions are as applied (version 3)." in str(plan)


def test_a_changed_value_is_refilled_and_its_keys_freed_once_it_is_served(repo, make_document):
    """The service that reads the view changes with it; what does not read it does not."""
    before, after = make_document(repo().all), make_document(repo(ttl="3d").all)
    steps = steps_between(before, after)
    old, new = (document["views"]["delays"]["fingerprint"] for document in (before, after))
    view, service, refill, free = steps
    assert view == ChangeValue("views", "delays", old, new, (Change("ttl", "2d", "3d"),))
    assert (service.kind, service.name) == ("services", "model")
    assert [change.field for change in service.changes] == ["parts.delays.view", "parts.back.view"]
    assert service.changes[0].after == f"delays {new[:8]}"
    assert refill == Refill("delays", new, "its definition changes")
    assert free == FreeOnline("delays", old, new)


LABELS = [
    ({"description": "How late."}, "views", "delays", ["+ description: How late."]),
    ({"entity_tags": {"a": "b"}}, "entities", "carrier", ["+ tags: a: b"]),
    ({"path": "elsewhere.parquet"}, "sources", "landings", ["~ path: [landings.parquet] → [elsewhere.parquet]"]),
    (
        {"features": {"count": Latest("count", type=Int64), "delay": Latest("delay", default=-0.0)}},
        "views",
        "delays",
        ["~ features (order): delay, count → count, delay"],
    ),
]


@pytest.mark.parametrize(("words", "kind", "name", "lines"), LABELS)
def test_a_changed_label_refills_nothing(repo, make_document, words, kind, name, lines):
    """Description, tags, where the data lies and the order of features change no value."""
    if "features" in words:
        words = {**words, "listed": [repo(**words).delays["count"], repo(**words).routes]}
        before = make_document(repo(listed=[repo().delays["count"], repo().routes]).all)
    else:
        before = make_document(repo().all)
    steps = steps_between(before, make_document(repo(**words).all))
    assert [(type(step), step.kind, step.name) for step in steps] == [(ChangeLabel, kind, name)]
    assert [str(change) for change in steps[0].changes] == lines


def test_a_column_that_files_store_otherwise_in_the_same_type_refills_nothing(repo, make_document, raw):
    """The registry notes it, because the query reads the column as it is stored."""
    before, after = make_document(repo().all), make_document(repo().all, {**raw, "count": "SMALLINT"})
    assert [str(change) for change in steps_between(before, after)[0].changes] == ["~ raw.count: INTEGER → SMALLINT"]
    assert len(steps_between(before, after)) == 1


def test_changed_code_is_shown_as_lines(repo, make_document):
    """And the service that lists the function changes."""
    steps = steps_between(make_document(repo().all), make_document(repo(doubled=True).all))
    function, service = steps
    assert function.code == (
        "-def relative(delay, minutes, now):",
        "-    return None if delay is None else delay / minutes",
        "+def doubled(delay, minutes, now):",
        "+    return None if delay is None else 2 * delay / minutes",
    )
    assert not [change for change in function.changes if change.field == "code"]
    assert [change.field for change in service.changes] == ["on_demand.ratio.code"]


def test_a_source_that_changes_takes_all_its_views_along(repo, make_document):
    """Each says which word of the source it was."""
    steps = steps_between(make_document(repo().all), make_document(repo(known_after="9m").all))
    changed = {step.name: [str(change) for change in step.changes] for step in steps_of(steps, ChangeValue)}
    assert changed["landings"] == ["~ known_after: 2m → 9m"]
    assert changed["delays"] == changed["routes"] == ["~ source.known_after: 2m → 9m"]
    assert {step.view for step in steps_of(steps, Refill)} == {"delays", "routes"}


def test_leftovers_of_removed_views_are_freed_and_those_of_replaced_ones_wait(repo, make_document):
    """A plan that only frees what a dead apply left is no empty plan; what waits for materialize is its business."""
    document = make_document(repo().all)
    steps = steps_between(document, document, leftovers=[("gone", "f1"), ("delays", "f2")])
    assert steps == (FreeOnline("gone", "f1"),)
    assert not Plan(1, document, steps).is_empty


def test_the_text_groups_what_changes(repo, make_document):
    """Part by part, with +, ~ and -, and a line that sums it up."""
    before = make_document(repo().all)
    extra = repo(ttl="3d", description="How late.", listed=[repo(ttl="3d", description="How late.").delays])
    after = make_document([extra.delays, extra.model])
    notice = Notice("sources", "landings", "timestamps are read as UTC", act=True)
    old, new = (document["views"]["delays"]["fingerprint"][:8] for document in (before, after))
    routes = before["views"]["routes"]["fingerprint"][:8]
    plan = Plan(4, after, steps_between(before, after), (notice,))
    text = str(plan)
    assert text.startswith(
        f"Plan {plan.digest[:8]} against version 4\n\nEntities\n  - route\n\nFeature views\n  ~ delays  {old}"
    )
    for line in (
        f"  ~ delays  {old} → {new}\n      ~ ttl: 2d → 3d\n      + description: How late.",
        "  - routes",
        "On-demand features\n  - ratio",
        "      - columns.ratio: Float64",
        f"  refill delays {new}: its definition changes",
        f"  free delays {old}: once {new} is served",
        f"  free routes {routes}: it was removed",
        "Notices\n  source 'landings'\n    act: timestamps are read as UTC",
        "2 to change, 3 to remove, 1 to refill, 2 to free.",
    ):
        assert line in text, text
    html = plan._repr_html_()
    assert "<td style='text-align:left'>- routes</td>" in html
    assert f"Plan {plan.digest[:8]}" in html


def test_notices_are_grouped_and_repeat_nothing(make_document, repo):
    """Below what they are about, those to act upon first; what is said of several views is said once."""
    both, late = "a row is first served 1h after it happened", "ready_after is settle"
    notices = (
        Notice("views", "a", both), Notice("views", "b", both), Notice("views", "b", late, act=True),
        Notice("views", "c", "x"), Notice("views", "c", "y", act=True), Notice("sources", "s", "x"),
    )  # fmt: skip
    text = str(Plan(1, make_document(repo().all), (), notices))
    assert text[text.index("Notices") : text.index("Nothing to")].splitlines()[1:-1] == [
        "  feature views 'a', 'b'", f"    for information: {both}", "  feature view 'b'", f"    act: {late}",
        "  feature view 'c'", "    act: y", "    for information: x", "  source 's'", "    for information: x",
    ]  # fmt: skip


def test_a_plan_is_plain_json(repo, make_document):
    """Its steps with their fields, and a digest that does not depend on notices."""
    before, after = make_document(repo().all), make_document(repo(ttl="3d", doubled=True).all)
    plan = Plan(1, after, steps_between(before, after), (Notice("views", "delays", "x"),))
    read = json.loads(json.dumps(plan.to_dict()))
    assert read == plan.to_dict()
    assert (read["base"], read["is_empty"], read["digest"]) == (1, False, plan.digest)
    assert read["steps"][0]["step"] == "ChangeValue"
    assert read["steps"][0]["changes"] == [["ttl", "2d", "3d"]]
    assert read["notices"] == [{"kind": "views", "name": "delays", "text": "x", "act": False}]
    assert Plan(1, after, plan.steps).digest == plan.digest
    assert Plan(2, after, plan.steps).digest != plan.digest
    assert Plan(1, before, plan.steps).digest != plan.digest
    assert Plan(1, after, plan.steps[1:]).digest != plan.digest


DIFFS = [
    ({"a": 1}, {"a": 1}, []),
    ({"a": 1}, {"a": 2}, ["~ a: 1 → 2"]),
    ({"a": None}, {"a": ""}, ['~ a: none → ""']),
    ({"a": {"b": [1, 2]}}, {"a": {"b": [2]}}, ["~ a.b: [1, 2] → [2]"]),
    ({"a": {"b": 1}}, {"a": {"c": {"d": True}}}, ["- a.b: 1", "+ a.c: d: true"]),
    ({"a": 1, "b": 2}, {"b": 2, "a": 1}, ["~ (order): a, b → b, a"]),
    ({"c": [["x", "Int64"]]}, {"c": [["x", "String"], ["y", "Int64"]]}, ["~ c.x: Int64 → String", "+ c.y: Int64"]),
    ({"c": [["x", "A"], ["y", "B"]]}, {"c": [["y", "B"], ["x", "A"]]}, ["~ c (order): x, y → y, x"]),
    ({"c": []}, {"c": [["x", "A"]]}, ["+ c.x: A"]),
    ({"c": [["k", "A", "col"]]}, {"c": [["k", "A", "other"]]}, ["~ c.k: [A, col] → [A, other]"]),
    ({"i": [["request_time"], ["request", "m"]]}, {"i": [["request", "m"]]}, ["- i.request_time: []"]),
    ({"i": [["f", "a"], ["f", "b"]]}, {"i": [["f", "a"]]}, ["~ i: [[f, a], [f, b]] → [[f, a]]"]),
    (
        {"e": [{"k": "A", "n": 1}, {"k": "B"}]},
        {"e": [{"k": "A", "n": 2}, {"k": "B"}]},
        ["- e: k: A, n: 1", "+ e: k: A, n: 2"],
    ),
    ({"e": [{"k": "A"}, {"k": "B"}]}, {"e": [{"k": "B"}, {"k": "A"}]}, ["~ e (order): [k: A, k: B] → [k: B, k: A]"]),
    ({"e": []}, {"e": [{"k": "A"}]}, ["+ e: k: A"]),
]


@pytest.mark.parametrize(("before", "after", "lines"), DIFFS)
def test_a_difference_is_shown_field_by_field(before, after, lines):
    """With its dotted name; lists of named things by their names."""
    assert [str(change) for change in changes(before, after)] == lines


def test_the_difference_of_two_services_reads_as_a_message(repo, make_document):
    """Every field, those of its views included: it stands in a FingerprintError, where there are no other steps."""
    before, after = (make_document(repo(ttl=ttl).all)["services"]["model"]["definition"] for ttl in ("2d", "3d"))
    told = [str(change) for change in changes(before, after)]
    assert told == ["~ parts.delays.view.ttl: 2d → 3d", "~ parts.back.view.ttl: 2d → 3d"]


def test_code_is_compared_by_lines():
    """Only the lines that differ."""
    assert code_changes("a\nb\nc\n", "a\nx\nc\n") == ("-b", "+x")
    assert code_changes("a\n", "a\n") == ()
