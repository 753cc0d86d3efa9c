"""Which versions of services gave features, so that their rows of the serving log answer for a list of these."""

from __future__ import annotations

from collections.abc import Iterator

from featurestore.errors import FeatureStoreError, RequestError
from featurestore.project import Project
from featurestore.semantics.service import ResolvedService, ServiceColumn


def gives(version: ResolvedService, asked: ResolvedService) -> bool:
    """Whether a service version gives, or only looks up and logs, all that is asked for: by the same names, by keys and request values
    of the same names, and as it is defined there."""
    return not _lacking(version, asked) and not any(version.inputs.get(name) != of for name, of in asked.inputs.items())


def _lacking(version: ResolvedService, asked: ResolvedService) -> list[ServiceColumn]:
    """The columns asked for, and those that only their functions read, that a service version has not."""
    parts = {part.name: (part.view.fingerprint, part.inputs) for part in version.parts}
    same = {part.name for part in asked.parts if parts.get(part.name) == (part.view.fingerprint, part.inputs)}
    functions = version.definition["on_demand"]
    own = {column.name for column in (*version.columns, *version.hidden)}
    return [
        column
        for column in (*asked.columns, *asked.hidden)
        if column.name not in own
        or (column.part is not None and column.part not in same)
        or (column.on_demand is not None and functions.get(column.name) != asked.definition["on_demand"][column.name])
    ]


def check_answered(project: Project, asked: ResolvedService) -> None:
    """RequestError where neither a service that is defined nor one that was logged gives all features of a list."""
    known = list(_known(project))
    if any(gives(version, asked) for version in known):
        return
    lacking = [(version.name, {column.name for column in _lacking(version, asked)}) for version in known]
    told = []
    for column in asked.columns:
        names = sorted({name for name, missing in lacking if column.name not in missing})
        told.append(f"'{column.name}' is given by {', '.join(names) if names else 'none'}")
    raise RequestError(
        "from_log: lookups of services are logged, and no service gives all that is asked for, by these names and keys and as it is "
        f"defined here: {'; '.join(told)}. Ask for features of one service, or leave from_log out"
    )


def _known(project: Project) -> Iterator[ResolvedService]:
    """The services that are defined, and the versions of which something was logged."""
    for declared in project.definitions.services.values():
        try:
            yield project.service(declared)
        except FeatureStoreError:  # a source that is gone, for one, of a service that nobody asks for
            continue
    for name, fingerprint in sorted(project.serving_log.versions()):
        version = project.registry.find_service(name, fingerprint)
        if version is not None:
            yield version.service(name)
