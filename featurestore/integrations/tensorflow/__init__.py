"""Training sets as TensorFlow takes them: TFRecord files, `tf.data`, and statistics and a schema for TensorFlow Data Validation."""

from featurestore.integrations.tensorflow.records import RecordSet, WrittenRecords, open_tfrecord, to_tfrecord
from featurestore.integrations.tensorflow.tensors import dataset, feature_spec
from featurestore.integrations.tensorflow.validation import training_statistics, write_schema, write_statistics

__all__ = [
    "RecordSet", "WrittenRecords", "dataset", "feature_spec", "open_tfrecord", "to_tfrecord", "training_statistics", "write_schema",
    "write_statistics",
]  # fmt: skip
