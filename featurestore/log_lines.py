"""What processes that go on for long log, as JSON: one object a line, for programs that gather logs."""

from __future__ import annotations

import logging
import sys
from typing import Any

import orjson

from featurestore.clock import to_datetime

LOGGER = logging.getLogger("featurestore.server")

LEVELS = {"WARNING": "warning", "ERROR": "error", "CRITICAL": "critical", "INFO": "info", "DEBUG": "debug"}


class JsonLines(logging.Formatter):
    """A record of Python's logging as one line: time, level, logger and message; request_id and error where there are some."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, whatever the message holds: a line break in it ends no line."""
        line: dict[str, Any] = {
            "time": to_datetime(int(record.created * 1e6)),
            "level": LEVELS.get(record.levelname, record.levelname.lower()),
            "logger": record.name,
            "message": record.getMessage(),
        }
        request_id = getattr(record, "request_id", None)
        if request_id is not None:
            line["request_id"] = request_id
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json_line(line).decode().rstrip("\n")


OPTIONS = orjson.OPT_UTC_Z | orjson.OPT_APPEND_NEWLINE


def json_line(line: dict[str, Any]) -> bytes:
    """An object as a line, with its line break."""
    try:
        return orjson.dumps(line, option=OPTIONS)
    except orjson.JSONEncodeError:  # a lone surrogate, such as of a name of a file
        said = {
            name: value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
            for name, value in line.items()
        }
        return orjson.dumps(said, option=OPTIONS)


def log_config() -> dict[str, Any]:
    """How Python's logging is set up for it, as `logging.config.dictConfig` takes it; each worker is given it."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": JsonLines}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
    }


def tell(text: str, *, as_json: bool) -> None:
    """Say something to the operator of the server, on stderr."""
    if as_json:
        LOGGER.warning(text)
    else:
        print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is the output
