"""`tf.Example`s read by Protocol Buffers' own library, and records by the rule that TensorFlow states for them."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from featurestore.types import FeatureType, days_of, micros_of

LISTS = {"bytes_list": "BytesList", "float_list": "FloatList", "int64_list": "Int64List"}


def _example_class() -> Any:
    """What `example.proto` and `feature.proto` of TensorFlow say."""
    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tensorflow", syntax="proto3")
    for name, of in (("BytesList", kinds.TYPE_BYTES), ("FloatList", kinds.TYPE_FLOAT), ("Int64List", kinds.TYPE_INT64)):
        file.message_type.add(name=name).field.add(name="value", number=1, label=3, type=of)
    feature = file.message_type.add(name="Feature")
    feature.oneof_decl.add(name="kind")
    for number, (name, of) in enumerate(LISTS.items(), 1):
        feature.field.add(
            name=name, number=number, label=1, type=kinds.TYPE_MESSAGE, type_name=f".tensorflow.{of}", oneof_index=0
        )
    features = file.message_type.add(name="Features")
    entry = features.nested_type.add(name="FeatureEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=1, type=kinds.TYPE_STRING)
    entry.field.add(name="value", number=2, label=1, type=kinds.TYPE_MESSAGE, type_name=".tensorflow.Feature")
    features.field.add(
        name="feature", number=1, label=3, type=kinds.TYPE_MESSAGE, type_name=".tensorflow.Features.FeatureEntry"
    )
    file.message_type.add(name="Example").field.add(
        name="features", number=1, label=1, type=kinds.TYPE_MESSAGE, type_name=".tensorflow.Features"
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("tensorflow.Example"))


EXAMPLE = _example_class()


def _of_byte(check: int) -> int:
    for _ in range(8):
        check = check >> 1 ^ (0x82F63B78 if check & 1 else 0)
    return check


TABLE = [_of_byte(byte) for byte in range(256)]


def checksum(data: bytes) -> int:
    """CRC-32C byte by byte, masked as the format of TFRecord says."""
    check = 0xFFFFFFFF
    for byte in data:
        check = check >> 8 ^ TABLE[(check ^ byte) & 0xFF]
    check ^= 0xFFFFFFFF
    return ((check >> 15 | check << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path: Path) -> list[bytes]:
    """What the records of a file hold; each length and checksum is looked at."""
    data, found, place = path.read_bytes(), [], 0
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    while place < len(data):
        length, check = struct.unpack_from("<QI", data, place)
        assert check == checksum(data[place : place + 8])
        place += 12 + length
        record = data[place - length : place]
        (check,) = struct.unpack_from("<I", data, place)
        assert check == checksum(record)
        found.append(record)
        place += 4
    return found


def features(record: bytes) -> dict[str, tuple[str, list[Any]]]:
    """By name the kind of list that a feature is, and its values."""
    found = {}
    for name, feature in EXAMPLE.FromString(record).features.feature.items():
        kind = feature.WhichOneof("kind")
        found[name] = kind, list(getattr(feature, kind).value)
    return found


def float32(value: float) -> float:
    """The nearest one, as C rounds."""
    try:
        narrow: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)
    return narrow


def expected(of: FeatureType, value: Any) -> tuple[str, list[Any]] | None:
    """The feature that a value is to be; None where there is none."""
    if value is None:
        return None
    inner, items = of.element or of, value if of.element is not None else [value]
    if inner.is_float:
        return "float_list", [float32(item) for item in items]
    if inner.kind in {"String", "Bytes", "Decimal"}:
        texts = [format(item, "f") if inner.kind == "Decimal" else item for item in items]
        return "bytes_list", [text.encode() if isinstance(text, str) else text for text in texts]
    numbers = {"Date": days_of, "Timestamp": micros_of}.get(inner.kind, int)
    return "int64_list", [numbers(item) for item in items]
