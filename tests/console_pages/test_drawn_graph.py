"""What of a lineage is drawn: all of it, or its coarser kinds, joined where ways through the others join them."""

from __future__ import annotations

from featurestore.console.drawn_graph import drawn_graph
from featurestore.reports.lineage.graph import Edge, Node, Subgraph


def lineage(features: int) -> Subgraph:
    """A source whose columns are the features of a view, each in a service and one written to a frame; asked of the view and its first feature."""
    nodes, edges = (
        [Node("s", "source", "s"), Node("v", "view", "v"), Node("m", "service", "m")],
        [Edge("s", "v", "source")],
    )
    for n in range(features):
        nodes += [Node(f"c{n}", "column", f"s.c{n}"), Node(f"f{n}", "feature", f"v:f{n}")]
        edges += [Edge("s", f"c{n}", "column"), Edge(f"c{n}", f"f{n}", "value"), Edge(f"f{n}", "m", "column")]
    return Subgraph(("v", "f0"), {node.id: node for node in nodes}, tuple(edges))


def test_what_can_be_seen_is_drawn_whole() -> None:
    found = lineage(3)
    drawn = drawn_graph(found, most=9)
    assert drawn == (list(found.nodes.values()), list(found.edges), ())


def test_the_finest_kinds_are_left_out_first() -> None:
    """What was joined through a column is joined without it."""
    drawn = drawn_graph(lineage(3), most=8)
    assert drawn.left_out == ("column",)
    assert [node.id for node in drawn.nodes] == ["s", "v", "m", "f0", "f1", "f2"]
    assert {(edge.start, edge.end, edge.role) for edge in drawn.edges} == {
        ("s", "v", "through"), *(("s", f"f{n}", "through") for n in range(3)), *((f"f{n}", "m", "through") for n in range(3)),
    }  # fmt: skip


def test_a_root_is_drawn_whatever_its_kind() -> None:
    drawn = drawn_graph(lineage(3), most=4)
    assert drawn.left_out == ("column", "feature")
    assert [node.id for node in drawn.nodes] == ["s", "v", "m", "f0"]
    assert {(edge.start, edge.end) for edge in drawn.edges} == {("s", "v"), ("s", "f0"), ("s", "m"), ("f0", "m")}


def test_no_more_is_drawn_than_may_be() -> None:
    """Not even of roots."""
    for most in range(1, 10):
        assert len(drawn_graph(lineage(3), most=most).nodes) <= most
