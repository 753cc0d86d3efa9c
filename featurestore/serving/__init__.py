"""Lookup: which version of a service answers, the features of keys as of now, on-demand functions, and the log of what was served."""
