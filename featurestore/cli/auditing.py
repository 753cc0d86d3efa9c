"""The command `audit`: what was served, compared with what training says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from featurestore.cli.application import FOUND, AsJson, opened
from featurestore.cli.output import cell, print_json, print_table
from featurestore.cli.values import instant, since_of

if TYPE_CHECKING:
    from featurestore.reports.audit import Audit, Difference

__all__ = ["audit", "print_example", "print_lateness"]


def audit(  # noqa: PLR0913, PLR0917 - one parameter an option
    context: typer.Context,
    since: Annotated[
        str | None, typer.Option(help="How long ago, as 1d, or an instant; all of the log by default.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="An instant; now by default.")] = None,
    service: Annotated[str | None, typer.Option(help="Only this service.")] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="Hold its service against the version that this training frame was made of.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report as a page with plots to this file.")] = None,
    fail_on_skew: Annotated[
        bool, typer.Option("--fail-on-skew", help="Exit with 3 where a service has more skew than its skew_budget.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare what was served and logged with what training says for it, bit by bit.

    Damaged files of the log are left out and named, and the command then exits with 3.

    Example: featurestore audit --since 1d
    """
    with opened(context) as store:
        ended = None if until is None else instant(until)
        against = None if manifest is None else store.load_manifest(manifest)
        found = store.audit(since=since_of(since), until=ended, service=service, against=against)
    if html is not None:
        html.write_text(found.to_html(), encoding="utf-8")
    if as_json:
        print_json(found.to_dict())
    else:
        _print(found)
    if found.damaged or (fail_on_skew and found.over_budget):
        raise typer.Exit(FOUND)


def _print(found: Audit) -> None:
    if found.features:
        rows = [
            (f.service, f.feature, f.compared, f.exact, f.rewritten, f.skewed, f.missing_when_served, f.missing_in_training,
             ", ".join(f"{n} {c}" for c, n in f.causes.items()))
            for f in found.features
        ]  # fmt: skip
        missing = ("missing when served", "missing in training")
        print_table(("service", "feature", "compared", "exact", "rewritten", "skewed", *missing, "causes"), rows)
        print_lateness(found)
    for feature in found.features:
        for example in feature.examples:
            print_example(feature.feature, example)
    for version, why in found.not_audited.items():
        typer.echo(f"{version} was not audited: {why}")
    for what, why in found.damaged.items():
        typer.echo(f"{what} is damaged: {why}")
    for name, share in found.over_budget.items():
        allowed = found.budgets.get(name, 0.0)
        typer.echo(f"{name} is over its skew budget: {share:.4%} of its values, where {allowed:.4%} are allowed")
    lost = found.losses
    if not lost.offered:
        typer.echo(
            "No lookup was offered to the log: [serving_log] in featurestore.toml says how many are kept, rate = 1.0 all."
        )
    typer.echo(
        f"{found.compared} values compared, {found.skewed} skewed; of {lost.offered} requests {lost.written} logged, "
        f"{lost.dropped} dropped, {lost.lost} lost" + (f"; {len(found.damaged)} damaged" if found.damaged else "")
    )


def print_lateness(found: Audit) -> None:
    """How late each view was, as a table."""
    late = [(v.service, v.view, v.requests, v.stale, *(f"{us / 1e6:g} s" for us in (v.p50, v.p99, v.greatest)), v.early)
            for v in found.lateness]  # fmt: skip
    print_table(("service", "view", "rows", "stale", "by p50", "p99", "at most", "early"), late)


def print_example(feature: str, example: Difference) -> None:
    """A value that differs, as a line."""
    typer.echo(
        f"{feature} of {example.key} at {cell(example.time)} (request {example.request}): served "
        f"{cell(example.served)} {example.statuses[0]}, training says {cell(example.trained)} {example.statuses[1]}: "
        f"{example.cause}: {example.detail}"
    )
