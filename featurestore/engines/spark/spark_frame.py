"""Training frames that lie on Spark."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import orjson

from featurestore.declare.problems import shown
from featurestore.engines.asked_frame import AskedFrame
from featurestore.engines.spark.spark_source import named, spark_place
from featurestore.engines.tasks import COUNTS
from featurestore.errors import RequestError
from featurestore.training.kernel import Counts

TIMESTAMPS = "spark.sql.parquet.outputTimestampType"
"""Spark's setting of how a Parquet file holds instants."""


MODES = ("errorifexists", "overwrite", "append")


class SparkFrame:
    """A training frame that lies on Spark; made by `SparkEngine`. Its rows come in no order."""

    def __init__(self, rows: Any, counts: Counts, asked: AskedFrame, spine: Sequence[str]) -> None:
        self._rows, self._counts, self._asked = rows, counts, asked
        self._columns = asked.columns(spine)
        self.manifest = asked.manifest
        """What the frame is made of. What is counted is in that which `to_parquet` and `to_table` return."""

    def __repr__(self) -> str:
        return f"SparkFrame of service '{self.manifest['service']}': {', '.join(self._columns)}"

    @property
    def dataframe(self) -> Any:
        """The rows as a Spark DataFrame: the spine's columns, then the features. Each use of it computes it anew.

        Where a view refuses rows of its files that are not as expected, they are counted first, which computes the rows once more:
        ExpectationError where there are any.
        """
        if self._asked.may_refuse:
            from pyspark.sql import functions as f

            told = self._rows.where(f.col(COUNTS).isNotNull()).select(COUNTS).collect()
            self._asked.counted(self._total(row[0] for row in told))
        return self._shown(self._rows)

    def to_parquet(self, path: str | Path, *, mode: str = "errorifexists") -> dict[str, Any]:
        """Write the rows as a folder of Parquet files, by the executors; the manifest, what was counted in it.

        path: a Path is one of this machine; text is what Spark takes it for. Where the folder then lies on this machine, the manifest
        is written beside it. mode: of Spark's writer: errorifexists, overwrite or append. Raises FilesChangedError where a file of
        a source was changed since it was listed: then what was written is not to be used.
        """
        counts = self._written(lambda rows: rows.write.mode(_mode(mode)).parquet(spark_place(path)))
        manifest = self._asked.counted(counts)
        if isinstance(path, Path) or Path(path).is_dir():
            self._asked.enter(Path(path), manifest, counts)
        return manifest

    def to_table(self, name: str, *, mode: str = "errorifexists") -> dict[str, Any]:
        """The same into a table of Spark's catalog."""
        return self._asked.counted(self._written(lambda rows: rows.write.mode(_mode(mode)).saveAsTable(name)))

    def _shown(self, rows: Any) -> Any:
        from pyspark.sql import functions as f

        return rows.where(f.col(COUNTS).isNull()).select(*map(named, self._columns))

    def _written(self, write: Callable[[Any], object]) -> Counts:
        """What was counted of rows while they were written."""
        from pyspark.sql import Observation
        from pyspark.sql import functions as f

        seen, conf = Observation(), self._rows.sparkSession.conf
        before = conf.get(TIMESTAMPS, None)
        conf.set(TIMESTAMPS, "TIMESTAMP_MICROS")  # its own default is a type of old, of 96 bits
        try:
            write(self._shown(self._rows.observe(seen, f.collect_list(COUNTS).alias("counts"))))
        finally:
            if before is None:
                conf.unset(TIMESTAMPS)
            else:
                conf.set(TIMESTAMPS, before)
        return self._total(seen.get["counts"])

    def _total(self, texts: Iterable[str]) -> Counts:
        """What tasks counted, and this process."""
        return sum((Counts.of(orjson.loads(text)) for text in texts), self._counts)


def _mode(mode: str) -> str:
    """How a frame is written, as Spark Connect takes it too; RequestError where nothing may be, since nothing would be counted."""
    if mode not in MODES:
        raise RequestError(f"mode is {' or '.join(map(repr, MODES))}, and not {shown(mode)}")
    return "error" if mode == "errorifexists" else mode
