"""Folds of many rows at many instants: rows come from DuckDB once, sorted, and ranges of them are folded with numpy."""
