"""Forget: a key is erased everywhere, for people who have the right to that."""
