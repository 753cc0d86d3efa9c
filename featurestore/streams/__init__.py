"""Streams of a broker that feed push sources: their messages are read, decoded and kept exactly once."""
