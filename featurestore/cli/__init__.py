"""The command line: each command is one verb of the store, printed for a person or, with --json, for a program.

What a command needs is imported when it runs, so that `--help` is quick.
"""

from __future__ import annotations

from featurestore.cli.activity import activity
from featurestore.cli.application import add, app
from featurestore.cli.auditing import audit
from featurestore.cli.availability import availability
from featurestore.cli.backing_up import backup, restore
from featurestore.cli.consuming import consume, poison
from featurestore.cli.definitions import apply, history, plan, show, teardown
from featurestore.cli.drifting import drift
from featurestore.cli.exporting import export_feast
from featurestore.cli.forgetting import forget
from featurestore.cli.importing import import_feast
from featurestore.cli.keys import keys
from featurestore.cli.lineage import lineage
from featurestore.cli.looking import docs, ui
from featurestore.cli.optimizing import optimize
from featurestore.cli.pushing import compact, push, take_back
from featurestore.cli.quarantining import quarantine
from featurestore.cli.registry import registry
from featurestore.cli.scaffold import init
from featurestore.cli.serving import manifest, materialize, online, serve, status, verify
from featurestore.cli.simulating import simulate
from featurestore.cli.statistics import statistics
from featurestore.cli.streams import hold_streams, interruptions_noticed
from featurestore.cli.training import explain, historical, snapshot

__all__ = ["app", "main"]

add("Start", init, import_feast, plan, apply, show, history)
add("Train", historical, snapshot)
add("Serve", materialize, online, push, consume, serve, export_feast)
add("Look", ui, docs, status, explain, lineage, manifest, audit, drift, statistics, availability, simulate)
add(
    "Operate",
    verify,
    optimize,
    compact,
    take_back,
    poison,
    quarantine,
    forget,
    backup,
    restore,
    keys,
    registry,
    activity,
    teardown,
)


def main() -> None:
    """The command `featurestore`."""
    hold_streams()
    with interruptions_noticed():
        app(prog_name="featurestore")
