"""Lookup: the features of keys as of now, from the online store, on-demand functions included, and the log of what was served."""
