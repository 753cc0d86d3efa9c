"""Which schemas a log keeps, and how two of them differ."""

from __future__ import annotations

from featurestore.errors import LogError
from featurestore.lazy import pa

KNOWN_AT = "known_at"


def check(schema: pa.Schema) -> pa.Schema:
    """The schema without metadata; LogError where a log cannot keep it."""
    names = schema.names
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise LogError(f"A push log needs columns of different names, and '{doubled[0]}' is there twice.")
    if KNOWN_AT not in names or schema.field(KNOWN_AT).type != pa.int64():
        raise LogError(f"A push log needs a column '{KNOWN_AT}' of type int64: microseconds since the epoch.")
    for field in schema:
        if _has_dictionary(field.type):
            raise LogError(
                f"A push log keeps no dictionary columns, and '{field.name}' is {field.type}. Keep its values as they are."
            )
    return pa.schema([pa.field(field.name, field.type, field.nullable) for field in schema])


def _has_dictionary(of: pa.DataType) -> bool:
    return pa.types.is_dictionary(of) or any(_has_dictionary(of.field(i).type) for i in range(of.num_fields))


def difference(stored: pa.Schema, given: pa.Schema) -> str:
    """What tells the schema that was given from the stored one, in words; empty where nothing does."""
    told = [f"column '{name}' is new" for name in given.names if name not in stored.names]
    told += [f"column '{name}' is missing" for name in stored.names if name not in given.names]
    for name in stored.names:
        if name in given.names:
            old, new = stored.field(name), given.field(name)
            if old.type != new.type:
                told.append(f"column '{name}' was {old.type} and is now {new.type}")
            elif old.nullable != new.nullable:
                told.append(f"column '{name}' was {_nulls(old)} and is now {_nulls(new)}")
    if not told and stored.names != given.names:
        told.append(f"the columns are in another order: {', '.join(stored.names)} before, now {', '.join(given.names)}")
    return "; ".join(told)


def _nulls(field: pa.Field) -> str:
    return "nullable" if field.nullable else "without nulls"
