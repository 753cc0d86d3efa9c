"""The store's version: what served a request, as far as that may change a value. Every segment of the serving log says it."""

from __future__ import annotations

import json
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from typing import Any, NamedTuple

from featurestore.semantics.service import ResolvedService
from featurestore.training.manifest import library_versions

METADATA = b"featurestore"
"""The key in a segment's Parquet metadata."""

FORMAT = 1


class StoreVersion(NamedTuple):
    """Service and fingerprint, the registry's version that they were loaded from (None: not known), this product's and
    Python's version, and by name those of the libraries that values come from: its own, and those that the service's
    on-demand functions name."""

    service: str
    fingerprint: str
    registry_version: int | None
    featurestore: str
    python: str
    libraries: dict[str, str]

    @classmethod
    def of(cls, service: ResolvedService, registry_version: int | None) -> StoreVersion:
        """The version of this process, for a service with its functions at hand."""
        named = {name for item in service.on_demand for name in item.libraries}
        others = {name: _version_of(name) for name in named - sys.stdlib_module_names - {"featurestore"}}
        own = library_versions()
        product, python = own.pop("featurestore"), own.pop("python")
        libraries = own | {name: of for name, of in others.items() if of is not None}
        return cls(
            service.name, service.fingerprint, registry_version, product, python, dict(sorted(libraries.items()))
        )

    def packed(self) -> bytes:
        """As metadata keep it: a JSON object, with the number of its format."""
        return json.dumps({"format": FORMAT, **self._asdict()}).encode()

    @classmethod
    def unpacked(cls, data: bytes) -> StoreVersion:
        """What `packed` gave."""
        fields: dict[str, Any] = json.loads(data)
        return cls(**{name: fields[name] for name in cls._fields})


def _version_of(module: str) -> str | None:
    """The version of the distribution that a top-level module comes with; None where nothing says it."""
    try:
        return version(module)
    except PackageNotFoundError:
        names = packages_distributions().get(module)
        own = getattr(sys.modules.get(module), "__version__", None)
        return version(names[0]) if names else None if own is None else str(own)
