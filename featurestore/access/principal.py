"""Who asks, and what he may do."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from featurestore.errors import ConfigError, ForbiddenError, did_you_mean

SCOPES = {
    "read": "look features up, and see what is applied",
    "push": "send rows to push sources",
    "materialize": "fill the online store, and apply",
    "metrics": "read the metrics",
    "admin": "everything about running the service: metrics, and what became of the serving log",
}
"""Each by itself, but that `admin` holds `metrics`."""

HELD_BY = {"metrics": {"metrics", "admin"}}
"""By scope which ones hold it, where it is not that alone."""

KINDS = ("service", "view", "source")
"""What a credential may be limited to."""


@dataclass(frozen=True)
class Principal:
    """The person or program that a request comes from. name: as the trail of activity has it, such as "key:web" or "jwt:ann@example.org".
    only_on: what it is limited to, as "service:NAME", "view:NAME" or "source:NAME"; None: everything of the project."""

    name: str
    scopes: frozenset[str]
    only_on: frozenset[str] | None = None

    def may(self, scope: str, *resources: str) -> bool:
        """Whether it has the scope, and for each of the resources ("service:delay_model")."""
        return self._has(scope) and (self.only_on is None or self.only_on.issuperset(resources))

    def must(self, scope: str, *resources: str) -> None:
        """Raises ForbiddenError, which names what is missing, where it may not."""
        if self.may(scope, *resources):
            return
        if not self._has(scope):
            held = ", ".join(name for name in SCOPES if name in self.scopes) or "none"
            raise ForbiddenError(f"This takes the scope '{scope}'; {self.name} has: {held}", scope=scope)
        missing = next(one for one in resources if one not in (self.only_on or ()))
        kind, _, name = missing.partition(":")
        raise ForbiddenError(
            f"This takes the scope '{scope}' for {kind} '{name}'; {self.name} is limited to others", scope=scope
        )

    def _has(self, scope: str) -> bool:
        return scope in self.scopes or not self.scopes.isdisjoint(HELD_BY.get(scope, ()))


EVERYBODY = Principal("anonymous", frozenset(SCOPES))
"""Who asks where authentication is off."""

LOOKING = Principal("anonymous", frozenset({"read", "metrics", "admin"}))
"""Who asks where authentication is off, and nothing may be changed."""


def checked_scopes(scopes: Iterable[str]) -> tuple[str, ...]:
    """The scopes in their order; ConfigError where one is none, or there is none."""
    asked = set(scopes)
    for scope in sorted(asked - set(SCOPES)):
        raise ConfigError(f"There is no scope '{scope}'.{did_you_mean(scope, SCOPES, noun='Scopes')}")
    if not asked:
        raise ConfigError(f"A key must have a scope at least. Scopes: {', '.join(SCOPES)}")
    return tuple(scope for scope in SCOPES if scope in asked)
