"""Tables of other systems, Delta Lake and Apache Iceberg: which files of theirs have rows that count, and when these came."""
