"""Databases and warehouses: their rows, copied as they come into files that the one query reads."""
