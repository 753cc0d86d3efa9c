"""Amazon SageMaker Feature Store: feature groups and their records, as boto3 asks for, reads and writes them.

A feature group is a view, or a service; a record's identifier is its key, several columns of which are one JSON array. A record that is
written is a row of the view's push source.
"""
