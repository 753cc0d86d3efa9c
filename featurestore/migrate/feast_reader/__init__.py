"""Runs under Feast's own Python: tells what a repository of Feast's declares, and what its training frames hold.

    python feast_reader REQUEST ANSWER

Both are JSON files. It imports nothing of the rest of this product, takes Python 3.9 and whatever version of Feast is installed,
applies nothing, and writes nothing below the folder that it reads: code that tries is refused. `CONTRACT` counts the forms of its
answers.
"""

CONTRACT = 1

OLDEST = (0, 40)
"""The oldest version of Feast that was tried; older ones are refused."""


class UnreadableRepositoryError(Exception):
    """A repository, or a part of it, cannot be read; the message is whole."""
