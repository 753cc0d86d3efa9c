"""The routes of the platforms that were chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from featurestore.errors import ConfigError, did_you_mean
from featurestore.server.compatible import databricks, feast, vertex
from featurestore.server.compatible.routes import CompatibleRoute, CompatibleRoutes
from featurestore.server.compatible.sagemaker import operations as sagemaker
from featurestore.server.hot_routes import HotRoutes

ROUTES: dict[str, Callable[[HotRoutes], list[CompatibleRoute]]] = {
    "databricks": databricks.routes,
    "feast": feast.routes,
    "sagemaker": sagemaker.routes,
    "vertex": vertex.routes,
}


def checked_platforms(names: Iterable[str]) -> list[str]:
    """The names, each once; ConfigError where one is no platform's."""
    asked = list(dict.fromkeys(names))
    for name in asked:
        if name not in ROUTES:
            raise ConfigError(
                f"A server cannot be compatible with '{name}'.{did_you_mean(name, ROUTES, noun='Platforms')}"
            )
    return asked


def chosen_routes(names: Iterable[str], hot: HotRoutes) -> CompatibleRoutes | None:
    """What is answered to the clients of these platforms; None where there are none. Raises ConfigError."""
    routes = [route for name in checked_platforms(names) for route in ROUTES[name](hot)]
    return CompatibleRoutes(routes) if routes else None
