"""What each suite says of its platform, in one line at the end."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Told = Callable[..., None]
SEEN = pytest.StashKey[dict[str, dict[str, str]]]()


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Told:
    """Tell of a platform: `tell("databricks", version="databricks-sdk 0.1", ran="its client; the service is emulated", compared=12)`."""

    def told(platform: str, *, version: str, ran: str, compared: int) -> None:
        request.node.user_properties.append(("platform", (platform, version, ran, compared)))

    return told


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    found: dict[tuple[str, str], tuple[str, int]] = {}
    for report in terminalreporter.getreports("passed"):
        for name, value in getattr(report, "user_properties", ()) if report.when == "call" else ():
            if name == "platform":
                platform, version, ran, compared = value
                found[platform, version] = ran, found.get((platform, version), ("", 0))[1] + compared
    for (platform, version), (ran, compared) in sorted(found.items()):
        terminalreporter.write_line(f"{platform}: {version}; {ran}; {compared} values compared")
