"""The durable log of a push source: append-only segments of Arrow record batches, sealed into Parquet."""

from featurestore.sources.log.file_log import FileLog
from featurestore.sources.log.log import Compaction, Log
from featurestore.sources.log.manifest import Segment
from featurestore.sources.log.relation import ROW, SEGMENT
from featurestore.sources.log.returns import Return

__all__ = ["ROW", "SEGMENT", "Compaction", "FileLog", "Log", "Return", "Segment"]
