"""Folds of many rows at many instants: rows from DuckDB, once, in order; ranges of them folded with numpy; tiles in their place.

windows   the query: for each request the view's folds
share     some keys, their rows and requests, as one thread works on them; folded: what each fold makes of them
totals    counts, sums and extremes of ranges of rows, and of tiles, which add up
tiling    tiles of files: made, joined, used; tile_rows: what a tile is
fold_rows the rows that are read; passes: how many at once
ranges    which rows count at an instant, as ranges of chains; strands: a column along them; ties: conflicts
"""
