"""The paths of other platforms, so that their own clients are answered unmodified: from the same lookups and pushes as ours.

A module a platform, or a folder; `routes` has what they share about requests, `values` what they share about values.
"""
