"""Measurements side by side: the product against what one would write by hand."""
