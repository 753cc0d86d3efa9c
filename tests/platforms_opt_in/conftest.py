"""What each suite says of its platform, as in tests/platforms."""

from tests.platforms.conftest import pytest_terminal_summary, tell

__all__ = ["pytest_terminal_summary", "tell"]
