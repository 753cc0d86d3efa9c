"""The console of one store: an address in, a page out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from featurestore.access.principal import EVERYBODY, Principal
from featurestore.console.addresses import Addresses, ServerAddresses
from featurestore.console.exports import as_csv, as_json, table_of
from featurestore.console.page import PageKind, PageModel, PageRequest
from featurestore.console.readable_store import ReadableStore, left_out
from featurestore.console.rendering import PageFrame
from featurestore.console.site_map import PAGES
from featurestore.errors import FeatureStoreError, NotFoundError, RequestError, did_you_mean
from featurestore.store import FeatureStore

HTML = "text/html; charset=utf-8"


@dataclass(frozen=True)
class ConsoleAnswer:
    """The answer to an address: a page, or one of its tables as CSV or JSON."""

    media_type: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


class Console:
    """Answers addresses with pages about a store; safe to use from several threads."""

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._kinds = {page.kind: page for page in PAGES}

    def frame(
        self, *, addresses: Addresses | None = None, principal: Principal | None = None, has_session: bool = False
    ) -> PageFrame:
        """What stands around each page."""
        return PageFrame(
            self._store.config.project, PAGES, addresses or ServerAddresses(), principal=principal,
            has_session=has_session,
        )  # fmt: skip

    def answer(
        self, path: str, query: Mapping[str, str], *, principal: Principal = EVERYBODY, prefix: str = "",
        has_session: bool = False,
    ) -> ConsoleAnswer:  # fmt: skip
        """The answer to what stands behind the console's own address: "" or "view/NAME". query: its words; `format` is "html",
        "csv" or "json", and `table` names one of the page's tables.

        prefix: what stands before the server's paths. Raises NotFoundError, ForbiddenError, and what the operation raises.
        """
        kind, name = self._found(path)
        principal.must(kind.scope)
        store = ReadableStore(self._store, principal)
        try:
            model = kind.model(store, PageRequest(name, query, principal))
        except (FeatureStoreError, OSError) as error:
            told = store.refusal(error)
            if told is error:
                raise
            raise told from error
        if store.is_limited:
            model = replace(model, values={**model.values, "left_out": left_out(principal)})
        said = query.get("format", "html")
        if said == "html":
            frame = self.frame(addresses=ServerAddresses(prefix), principal=principal, has_session=has_session)
            return ConsoleAnswer(HTML, frame.page(model, kind.kind, name, query))
        return _exported(model, said, query.get("table"))

    def takes_long(self, path: str, query: Mapping[str, str]) -> bool:
        """Whether an answer may take minutes, so that others should not wait behind it."""
        kind = self._kinds.get(path.partition("/")[0])
        return kind is not None and kind.takes_long and PageRequest("", query).is_run

    def _found(self, path: str) -> tuple[PageKind, str]:
        word, _, name = path.partition("/")
        kind = self._kinds.get(word)
        if kind is None or kind.is_named != bool(name):
            known = [one.kind for one in PAGES if one.is_listed and one.kind]
            raise NotFoundError(f"The console has no page '{path[:100]}'.{did_you_mean(word, known, noun='Pages')}")
        return kind, name


def _exported(model: PageModel, said: str, table: str | None) -> ConsoleAnswer:
    if said == "json":
        return ConsoleAnswer("application/json", as_json(model, table))
    if said == "csv":
        found = table_of(model, table)
        return ConsoleAnswer(
            "text/csv; charset=utf-8",
            as_csv(found),
            {"Content-Disposition": f'attachment; filename="{found.name}.csv"'},
        )
    raise RequestError(f"format is html, csv or json, and not {said[:40]!r}")
