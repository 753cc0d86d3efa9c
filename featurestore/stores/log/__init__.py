"""The durable log of a push source: append-only segments of Arrow record batches, sealed into Parquet."""

from featurestore.stores.log.compaction import Compaction
from featurestore.stores.log.log import Log
from featurestore.stores.log.manifest import Segment
from featurestore.stores.log.relation import ROW, SEGMENT
from featurestore.stores.log.returns import Return

__all__ = ["ROW", "SEGMENT", "Compaction", "Log", "Return", "Segment"]
