"""Avro in the wire form of a schema registry: a zero byte, the number of the schema (4 bytes, big-endian), then the value."""

from __future__ import annotations

import io
import struct
from typing import Any

from featurestore.errors import MissingPackageError, PushError
from featurestore.streams.schema_registry import SchemaRegistry

try:
    import fastavro
except ImportError as error:
    raise MissingPackageError(f"Avro needs {error.name}: pip install 'featurestore[avro]'") from error

HEAD = struct.Struct(">bI")


class AvroDecoder:
    """Reads messages by the schemas that they name."""

    def __init__(self, registry: SchemaRegistry) -> None:
        self._registry = registry
        self._parsed: dict[int, Any] = {}

    def __call__(self, data: bytes) -> Any:
        """The record of a message. PushError where the bytes are none."""
        if len(data) < HEAD.size or data[0] != 0:
            raise PushError(
                "the message does not begin as a schema registry's Avro: with a zero byte and the number of a schema"
            )
        _, number = HEAD.unpack_from(data)
        if number not in self._parsed:
            schemas, named = self._registry.schemas(number), dict[str, Any]()
            try:
                self._parsed[number] = [fastavro.parse_schema(one, named_schemas=named) for one in schemas][-1]
            except Exception as error:  # noqa: BLE001 - whatever a schema that others wrote makes of their library
                raise PushError(f"the message's schema {number} is no Avro schema: {error}") from None
        stream = io.BytesIO(data[HEAD.size :])
        try:
            said = fastavro.schemaless_reader(stream, self._parsed[number], None)
        except Exception as error:  # noqa: BLE001 - bytes that are not what they say raise many kinds
            raise PushError(
                f"the message is not what its schema {number} says: {type(error).__name__}: {error}"
            ) from None
        if stream.read(1):
            raise PushError(f"the message goes on after what its schema {number} says")
        if not isinstance(said, dict):
            raise PushError(f"the message's schema {number} is no record")
        return said
