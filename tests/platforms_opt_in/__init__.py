"""Platforms whose packages are several GB, or no Python: each is run by a command of its own, such as `make test-tensorflow`."""
