"""Forget: a key is erased everywhere, for whoever has the right to be."""
