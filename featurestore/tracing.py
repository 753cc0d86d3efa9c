"""Spans: what a request spends its time on. They are told to OpenTelemetry where a server has set it up, else to nobody."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

_NOTHING = nullcontext()
_tracers: list[Any] = []


def span(name: str, **attributes: str | int) -> AbstractContextManager[Any]:
    """Whatever is done while it lasts is a part of the request that is under way here. No attribute has a key or a value."""
    return _NOTHING if not _tracers else _span(name, attributes)


@contextmanager
def _span(name: str, attributes: dict[str, str | int]) -> Iterator[None]:
    from opentelemetry.trace import Status, StatusCode

    told = {f"featurestore.{key}": value for key, value in attributes.items()}
    with _tracers[-1].start_as_current_span(
        name, attributes=told, record_exception=False, set_status_on_exception=False
    ) as begun:
        try:
            yield
        except BaseException as error:  # the message of an error may have a value; its kind has none
            begun.set_attribute("error.type", type(error).__name__)
            begun.set_status(Status(StatusCode.ERROR))
            raise


@contextmanager
def traced_by(tracer: Any) -> Iterator[None]:
    """While this lasts, spans are given to an OpenTelemetry tracer."""
    _tracers.append(tracer)
    try:
        yield
    finally:
        _tracers.remove(tracer)
