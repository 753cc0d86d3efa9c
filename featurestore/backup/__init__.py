"""Backup: what nobody can make anew of a project, copied while everything runs, and put back elsewhere."""
