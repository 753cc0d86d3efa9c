"""How Spark brings the rows of one key together, and what it gives to the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from functools import reduce
from typing import Any, NamedTuple

from featurestore.engines.asked_frame import AskedFrame
from featurestore.engines.key_tasks import FoundKeysTask, KeysTask, SpineTask
from featurestore.engines.spark.spark_source import SourceReader, named, no_derived, spark_type
from featurestore.engines.steps import Route
from featurestore.engines.tasks import (
    COUNTS,
    OF_COUNTS,
    OF_SPINE,
    SPINE,
    TAG,
    AnswerTask,
    FunctionTask,
    IdentityTask,
    TaskLimits,
    key_column,
    table_column,
)
from featurestore.errors import SourceError, SpineError
from featurestore.lazy import pa
from featurestore.training.manifest import LIBRARIES, library_versions
from featurestore.types import FeatureType, Timestamp

SALT = "__salt"


class Sharing(NamedTuple):
    """What an engine was told of how work is shared."""

    session: Any
    partitions: int | None
    send_bytes: int
    limits: TaskLimits

    @property
    def shuffle_partitions(self) -> int:
        """How many partitions a shuffle has."""
        return self.partitions or int(self.session.conf.get("spark.sql.shuffle.partitions"))


class KeyShuffle:
    """Brings rows together by key: the `RowMover` that Spark is."""

    def __init__(self, sharing: Sharing, asked: AskedFrame) -> None:
        self._spark, self._limits = sharing.session, sharing.limits
        self._partitions = sharing.shuffle_partitions
        self._forgotten = asked.project.offline.forgotten()
        self._reader = SourceReader(self._spark, asked.project.offline, asked.files)

    def answered(self, rows: Any, task: AnswerTask) -> Any:
        """The rows of a DataFrame, some of which hold counts alone, with a step's features."""
        from pyspark.sql import functions as f

        step = task.step
        spine = [name for name in rows.columns if name != COUNTS]
        missing = [name for name in step.inputs if name not in spine]
        if missing:
            raise SpineError(f"The spine has no input column '{missing[0]}'. Its columns: {', '.join(spine)}")
        task.check_inputs(rows.select(*map(named, spine)).limit(0).toArrow().schema)
        is_row = f.col(COUNTS).isNull()
        keys = [
            (_zoned(rows, name, of, task.options.zone, lambda said: SpineError(f"Spine {said}")), of)
            for name, of in step.inputs.items()
        ]
        tagged = [
            _tagged(
                rows,
                f.when(is_row, OF_SPINE).otherwise(OF_COUNTS),
                keys,
                SPINE,
                f.when(is_row, f.struct(*map(named, spine))),
            )
        ]
        for number, route in enumerate(step.routes):
            tagged.append(self._routed(route, number))
        union = reduce(lambda one, other: one.unionByName(other, allowMissingColumns=True), tagged)
        if step.routes:
            union = union.repartition(self._partitions, *(key_column(number) for number in range(len(keys))), SALT)
        return self._mapped(
            union.drop(SALT, *(key_column(number) for number in range(len(keys)))), task, rows.drop(COUNTS).schema
        )

    def evaluated(self, rows: Any, task: FunctionTask) -> Any:
        """The rows with the on-demand features."""
        return self._mapped(rows, task)

    def keyed(self, task: KeysTask, here: pa.Table) -> Any:
        """The spine of a snapshot."""
        found = [
            self._mapped(self._reader.read(route), FoundKeysTask(task, number))
            for number, route in enumerate(task.routes)
        ]
        if here.num_rows or not found:
            found.append(_frame_of(self._spark, here))
        union = reduce(lambda one, other: one.unionByName(other), found)
        return without_counts(self._mapped(union.repartition(self._partitions, *task.names), SpineTask(task)))

    def _routed(self, route: Route, number: int) -> Any:
        """A source's rows, tagged, with the key that each of them goes to."""
        from pyspark.sql import functions as f

        rows = self._reader.read(route)
        columns, tag = list(rows.columns), f.lit(number)
        if not route.by_identity:
            source = route.source
            zone, where = source.timezone or "UTC", f" ({source.origin})"
            keys = [
                (_zoned(rows, name, of, zone, lambda said: SourceError(f"{source.title}: its {said}{where}")), of)
                for name, of in route.keys
            ]
            return _tagged(rows, tag, keys, table_column(number), f.struct(*map(named, columns)))
        check_not_derived(route)
        shuffled = rows.repartition(self._partitions, *map(named, route.source.identity))
        spread = self._mapped(shuffled, IdentityTask(route, self._limits, self._forgotten))
        is_row = f.col(COUNTS).isNull()
        keys = [(f.col(key_column(place)), of) for place, (_, of) in enumerate(route.keys)]
        struct = f.when(is_row, f.struct(*map(named, columns)))
        return _tagged(spread, f.when(is_row, tag).otherwise(OF_COUNTS), keys, table_column(number), struct)

    def _mapped(self, rows: Any, task: Any, kept: Any = None) -> Any:
        return mapped(self._spark, rows, task, kept)


def mapped(session: Any, rows: Any, task: Any, kept: Any = None) -> Any:
    """The rows that a task gives for each partition. kept: the types of columns that come back as they are."""
    from pyspark.sql.types import StructType

    nothing = pa.RecordBatch.from_pylist([], rows.limit(0).toArrow().schema)
    gives = next(iter(task(iter([nothing])))).schema  # what is wrong with the columns shows here
    fields = {
        field.name: field for field in (kept or rows.schema)
    }  # which Spark may not take from Arrow, as structs without nulls
    new = {field.name: pa.nulls(1, field.type) for field in gives if field.name not in fields}
    if new:
        fields |= {field.name: field for field in _frame_of(session, pa.table(new).slice(1)).schema}
    given = [copy(fields[name]) for name in gives.names]
    for field in given:
        field.nullable = True  # a row of counts has nothing else
    return rows.mapInArrow(_shipped(task), StructType(given))


def _frame_of(session: Any, table: pa.Table) -> Any:
    """A small table as a DataFrame."""
    if table.num_rows:
        return session.createDataFrame(table)
    one = pa.table([pa.nulls(1, field.type) for field in table.schema], schema=table.schema)
    return session.createDataFrame(one).limit(0)  # since Connect says nothing of the columns of none


def check_not_derived(route: Route) -> None:
    """SourceError where rows go by an identity that Spark cannot compute."""
    derived = [name for name in route.source.identity if name in route.source.derived]
    if derived:
        raise SourceError(no_derived(route.source, derived[0], "identity"))


def without_counts(rows: Any) -> Any:
    """Rows of a spine, of which none holds counts."""
    from pyspark.sql import functions as f

    return rows.withColumn(COUNTS, f.lit(None).cast("string"))


def _zoned(rows: Any, name: str, of: FeatureType, zone: str, refused: Callable[[str], Exception]) -> Any:
    """A key column by which rows are brought together. An instant without a zone is made one here, since Spark would read it in the
    session's; zone: that in which the kernel does. Raises what is `refused`, in these words, where Spark may read it otherwise."""
    from pyspark.sql import functions as f

    column = named(name)
    if of != Timestamp or rows.select(column).schema.fields[0].dataType.typeName() != "timestamp_ntz":
        return column
    if zone != "UTC":
        raise refused(
            f"key column '{name}' has instants without a zone, which are read in {zone}; Spark, which brings rows together by it, may "
            "read them otherwise. Write them with a zone"
        )
    return f.concat(column.cast("string"), f.lit("Z"))


def _tagged(rows: Any, tag: Any, keys: Sequence[tuple[Any, FeatureType]], name: str, struct: Any) -> Any:
    """Rows as one struct beside their tag, their key, and a salt, by which rows without a key are spread."""
    from pyspark.sql import functions as f

    cast = [column.try_cast(spark_type(of)).alias(key_column(number)) for number, (column, of) in enumerate(keys)]
    counts = f.col(COUNTS) if COUNTS in rows.columns else f.lit(None).cast("string")
    hashed = [named(field.name) for field in rows.schema if _can_be_hashed(field.dataType)]
    has_none = reduce(lambda one, other: one | other, (column.isNull() for column in cast), f.lit(not keys))
    salt = f.when(has_none, f.xxhash64(*hashed) if hashed else f.lit(0)).otherwise(0).alias(SALT)
    return rows.select(tag.alias(TAG), counts.alias(COUNTS), *cast, struct.alias(name), salt)


def _can_be_hashed(of: Any) -> bool:
    """Whether Spark gives a hash of values of a type."""
    fields = [field.dataType for field in of.fields] if of.typeName() == "struct" else []
    fields += [of.elementType] if of.typeName() == "array" else []
    return of.typeName() not in {"map", "variant"} and all(map(_can_be_hashed, fields))


def _shipped(task: Any) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A task as a function for the workers, which first compare the versions of what values pass through."""
    from pyspark import cloudpickle

    said, wanted = cloudpickle.dumps(task), {name: library_versions()[name] for name in LIBRARIES}

    def run(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        try:
            from featurestore.engines.tasks import check_versions
        except ImportError as error:
            raise RuntimeError(f"A node has no featurestore: install the same on every node ({error})") from None
        check_versions(wanted)
        from pyspark import cloudpickle

        yield from cloudpickle.loads(said)(batches)

    return run
