"""Sorted copies of sources, so that few keys are read alone: they change no value, and may be removed at any time."""
