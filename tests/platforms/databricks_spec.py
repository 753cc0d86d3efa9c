"""Run by the Python of .venv-databricks: reads feature_spec.yaml of the folder by Databricks' own classes, and tells what it has.

Reads from stdin what the columns and tables are to be; tells the same of the file, field by field, the values that their code makes
of defaults, and both as their code would write them.
"""

import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from databricks.ml_features_common.entities.column_info import ColumnInfo
from databricks.ml_features_common.entities.data_type import DataType
from databricks.ml_features_common.entities.feature_column_info import FeatureColumnInfo
from databricks.ml_features_common.entities.feature_spec import FeatureSpec
from databricks.ml_features_common.entities.feature_table_info import FeatureTableInfo
from databricks.ml_features_common.entities.source_data_column_info import SourceDataColumnInfo
from databricks.ml_features_common.utils.data_type_utils import deserialize_default_value_to_data_type
from databricks.ml_features_common.utils.feature_spec_utils import assign_topological_ordering

TYPES = {
    "boolean": DataType.BOOLEAN, "int": DataType.INTEGER, "bigint": DataType.LONG, "float": DataType.FLOAT,
    "double": DataType.DOUBLE, "string": DataType.STRING,
}  # fmt: skip

folder, said = Path(sys.argv[1]), json.load(sys.stdin)
found = FeatureSpec.load(str(folder))
kinds = {"source": SourceDataColumnInfo, "feature": FeatureColumnInfo}
columns = [
    ColumnInfo(kinds[kind](**fields), include=include, data_type=of) for kind, fields, include, of in said["columns"]
]
own = FeatureSpec(
    column_infos=assign_topological_ordering(columns),
    table_infos=[FeatureTableInfo(name, None, lookback_window=window) for name, window in said["tables"]],
    function_infos=[],
    workspace_id=found.workspace_id,
    feature_store_client_version=found.feature_store_client_version,
    serialization_version=FeatureSpec.SERIALIZATION_VERSION_NUMBER,
)
with TemporaryDirectory() as other:
    own.save(other)
    expected = FeatureSpec.load(other)


def fields_of(spec):
    """Every field of every column and table."""
    told = [
        [type(column.info).__name__, dict(column.info), {k: v for k, v in column if k != "info"}]
        for column in spec.column_infos
    ]
    return [told, [dict(table) for table in spec.table_infos], spec.serialization_version]


def defaults_of(spec):
    told = {}
    for column in spec.column_infos:
        text = getattr(column.info, "default_value_str", None)
        if text is not None:
            value = deserialize_default_value_to_data_type(text, TYPES[column.data_type])
            told[column.output_name] = value.item() if hasattr(value, "item") else value
    return told


json.dump(
    {
        "found": fields_of(found),
        "expected": fields_of(expected),
        "defaults": defaults_of(found),
        "file": yaml.safe_load((folder / "feature_spec.yaml").read_text()),
        "written": own._to_dict(),
    },
    sys.stdout,
)
