"""What is bound to the process that made it: files, locks and connections, which no other process can take over."""

from __future__ import annotations

from typing import NoReturn

from featurestore.errors import FeatureStoreError


class BoundToProcess:
    """Refuses to be copied and to be sent to another process, and says what is sent instead."""

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise FeatureStoreError(
            f"A {type(self).__name__} cannot be copied or sent to another process: it holds files and connections of this one. "
            f"{self._instead()}"
        )

    def _instead(self) -> str:
        return "Send the path of the project, and open FeatureStore(path) there, once in each process"
