"""What of a project a limited key may read: its services, and what those are made of, as lineage tells it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from featurestore.access.principal import Principal
from featurestore.catalog import Catalog
from featurestore.declare.expectations import Expectation
from featurestore.reports.description import Description
from featurestore.reports.explain.explanation import ExplainedRow, Explanation
from featurestore.reports.lineage.graph import graph_of

LEFT_OUT = "left out: it may tell of what this key is not for"
"""What stands instead of a text that somebody wrote, or that tells of more than one thing."""


PARTS = {
    "entity": "entities", "source": "sources", "feature view": "views", "on-demand feature": "on_demand",
    "feature service": "services",
}  # fmt: skip
"""The part of the catalog of each kind of description."""


TOLD = {
    "description", "owner", "tags", "declared", "state", "type", "event_time", "known_at", "known_after", "identity", "version",
    "tiebreak", "deleted", "until", "valid_from", "timezone", "date", "period", "refresh", "refresh_offset", "settle",
    "ready_after", "ttl", "freshness", "said_by_source", "stale", "lateness", "tolerance", "entity", "source", "where",
    "fingerprint", "services", "views", "view", "column", "reads", "fold", "window", "hop", "offset", "default", "parameters", "path",
    "kept", "skew_budget", "mode", "libraries", "code",
}  # fmt: skip
"""The words of a description that tell of nothing but what it is of, once the names in them are cut."""


@dataclass(frozen=True)
class Readable:
    """What may be read, by the ids that the graph of lineage has: services, functions, features, views, sources and columns that
    what a key is limited to is made of. Nothing else has a name, a value or a count for whoever has the key.

    whole_sources: those that the key names itself, whose rows it may see with every column.
    """

    nodes: frozenset[str]
    views: frozenset[str]
    """Names, as of all that follows."""
    services: frozenset[str]
    sources: frozenset[str]
    functions: frozenset[str]
    entities: frozenset[str]
    whole_sources: frozenset[str] = frozenset()
    columns: dict[str, frozenset[str]] = field(default_factory=dict)
    """By source those columns that features which may be read are made of, and those that say when and whose a row is."""

    @classmethod
    def of(cls, principal: Principal, catalog: Catalog) -> Readable | None:
        """What a principal may read; None where that is everything."""
        if principal.only_on is None:
            return None
        graph = graph_of(catalog)
        named = {one for one in principal.only_on if one in graph.nodes}
        named |= {edge.end for edge in graph.edges if edge.start in named and edge.start.startswith(("view:", "source:"))
                  and edge.role in {"rows", "column"}}  # fmt: skip
        nodes = graph.closure(named, upstream=True)
        columns: dict[str, set[str]] = {}
        for node in nodes:
            kind, _, rest = node.partition(":")
            if kind == "column":
                source, _, column = rest.partition(".")
                columns.setdefault(source, set()).add(column)
        views = _names(nodes, "view")
        return cls(
            frozenset(nodes), views, _names(nodes, "service"), _names(nodes, "source"), _names(nodes, "on_demand"),
            frozenset(catalog.views[name].entity.name for name in views if name in catalog.views),
            frozenset(name.partition(":")[2] for name in principal.only_on if name.startswith("source:")),
            {source: frozenset(names) for source, names in columns.items()},
        )  # fmt: skip

    def names(self, part: str) -> frozenset[str]:
        """Those of a part of the catalog: "views", "services", "sources", "on_demand" or "entities"."""
        every = {"views": self.views, "services": self.services, "sources": self.sources,
                 "on_demand": self.functions, "entities": self.entities}  # fmt: skip
        return every[part]

    def has_feature(self, name: str) -> bool:
        """Whether a feature may be read: "view:feature", or the name of an on-demand feature."""
        return f"feature:{name}" in self.nodes if ":" in name else name in self.functions

    def features(self, view: str, among: Iterable[str]) -> list[str]:
        """Those features of a view that may be read."""
        return [name for name in among if self.has_feature(f"{view}:{name}")]

    def has_column(self, source: str, column: str) -> bool:
        """Whether the values of a source's column may be read; in SQL names have no case."""
        if source in self.whole_sources:
            return True
        return column.lower() in {name.lower() for name in self.columns.get(source, ())}

    def has_expectation(self, source: str, expectation: Expectation) -> bool:
        """Whether all columns that an expectation names may be read."""
        named = getattr(expectation, "column", None)
        columns = getattr(expectation, "columns", ()) if named is None else (named,)
        return all(self.has_column(source, column) for column in columns)

    def has_description(self, one: Description) -> bool:
        """Whether what is described may be read."""
        return self.has_feature(one.name) if one.kind == "feature" else one.name in self.names(PARTS[one.kind])

    def description(self, one: Description, titles: Collection[str]) -> Description:
        """A description without what may not be read of it. titles: the expectations that may be."""
        view, is_feature = one.name.partition(":")[0], one.kind == "feature"
        fields = {word: said for word, said in one.fields.items() if word in TOLD or (is_feature and word != "types")}
        for word, names in (("views", self.views), ("services", self.services)):
            if word in fields:
                fields[word] = [name for name in fields[word] if name in names]
        may: dict[str, Callable[[Mapping[str, Any]], bool]] = {
            "features": lambda row: self.has_feature(f"{view}:{row['feature']}"),
            "expectations": lambda row: row["expectation"] in titles,
        }
        if one.kind == "source":
            may["columns"] = lambda row: self.has_column(one.name, row["column"])
        tables = {
            title: [row for row in rows if title not in may or may[title](row)] for title, rows in one.tables.items()
        }
        return replace(one, fields=fields, tables=tables)

    def cut(self, explanation: Explanation) -> Explanation:
        """An explanation without the features and the columns that may not be read."""
        view = explanation.resolved
        source, features = view.source.name, self.features(view.name, explanation.values)
        columns = {name: of for name, of in view.columns.items() if self.has_column(source, name)}
        found = explanation.of(features)
        rows = tuple(_row(row, columns, is_whole=len(columns) == len(view.columns)) for row in found.rows)
        is_whole = source in self.whole_sources  # else rows may be in quarantine for what may not be read
        aside = {which: count for which, count in found.aside.items() if is_whole or which != "quarantine"}
        return replace(found, rows=rows, aside=aside, resolved=replace(view, columns=columns))


def _row(row: ExplainedRow, columns: Iterable[str], *, is_whole: bool) -> ExplainedRow:
    values = {name: row.values[name] for name in columns}
    reason = row.reason if is_whole or row.verdict not in {"quarantined", "invalid"} else LEFT_OUT
    return replace(row, values=values, reason=reason)


def _names(nodes: Iterable[str], kind: str) -> frozenset[str]:
    return frozenset(node.partition(":")[2] for node in nodes if node.startswith(f"{kind}:"))
