"""A schema registry: Avro schemas by number, over HTTP, as Confluent's registry and those like it answer."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from http.client import HTTPException, IncompleteRead
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request

from featurestore.errors import BrokerError, BrokerUnavailableError, ConfigError, PushError
from featurestore.hidden import hidden
from featurestore.timed_opener import timed_opener

URL, USER = "schema.registry.url", "schema.registry.basic.auth.user.info"
SECONDS = 10.0
"""How long it may take to be connected, and then to answer."""

MOST_BYTES = 16 << 20
"""Bytes that an answer may have."""


class SchemaRegistry:
    """The schemas that messages name; each is asked for once. settings: those of the broker."""

    def __init__(self, settings: Mapping[str, str], where: str) -> None:
        self._where = where
        said = settings.get(URL, "")
        parts = urlsplit(said)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigError(f'{where} reads Avro, and has no "{URL}" = "https://…"')
        self._name = hidden(said)
        host = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
        port = f":{parts.port}" if parts.port else ""
        self._url = f"{parts.scheme}://{host}{port}{parts.path.rstrip('/')}"
        user = settings.get(USER) or (
            f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
        )
        self._headers = {"Accept": "application/vnd.schemaregistry.v1+json, application/json"}
        if user:
            self._headers["Authorization"] = f"Basic {base64.b64encode(user.encode()).decode()}"
        self._schemas: dict[int, list[Any]] = {}

    def schemas(self, number: int) -> list[Any]:
        """The schema of that number, as its JSON says it, after those that it refers to. PushError where there is none; BrokerUnavailableError where the
        registry does not answer."""
        if number not in self._schemas:
            self._schemas[number] = self._asked(number)
        return self._schemas[number]

    def _asked(self, number: int) -> list[Any]:
        said = self._get(f"/schemas/ids/{number}", number)
        if said.get("schemaType", "AVRO") != "AVRO":
            raise PushError(f"the message's schema {number} is {said['schemaType']}, and no Avro")
        named: dict[str, Any] = {}
        for one in said.get("references", ()):
            self._reference(one, named)
        return [*named.values(), json.loads(said["schema"])]

    def _reference(self, one: Mapping[str, Any], named: dict[str, Any]) -> None:
        """Add a schema that another refers to, after those that it refers to itself."""
        said = self._get(f"/subjects/{one['subject']}/versions/{one['version']}", -1)
        for inner in said.get("references", ()):
            self._reference(inner, named)
        named.setdefault(one["name"], json.loads(said["schema"]))

    def _get(self, path: str, number: int) -> Any:
        request = Request(self._url + path, headers=self._headers)  # noqa: S310 - http or https alone, see above
        try:
            with timed_opener().open(request, timeout=SECONDS) as answer:
                data = answer.read(MOST_BYTES)
                if answer.length and len(data) < MOST_BYTES:  # which http.client takes for the whole
                    raise IncompleteRead(data, answer.length)
            return json.loads(data)
        except HTTPError as error:
            error.close()
            if error.code == 404 and number >= 0:
                raise PushError(
                    f"the message's schema {number} is not known to the schema registry {self._name}"
                ) from None
            if error.code in {408, 429} or error.code >= 500:
                raise BrokerUnavailableError(
                    f"{self._where}: the schema registry {self._name} answers {error.code}"
                ) from None
            raise BrokerError(
                f"{self._where}: the schema registry {self._name} answers {error.code} to {path}"
            ) from None
        except (URLError, OSError, HTTPException) as error:
            raise BrokerUnavailableError(
                f"{self._where}: the schema registry {self._name} cannot be reached: {getattr(error, 'reason', error)}"
            ) from None
        except (ValueError, KeyError):
            raise BrokerError(f"{self._where}: what answers at {self._name} is no schema registry") from None
