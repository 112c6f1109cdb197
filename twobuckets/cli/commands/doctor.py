"""`twobuckets doctor`: what is stuck, orphaned or broken, why, and what fixes it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import click

from twobuckets.cli import command, completes
from twobuckets.cli.options import DURATION, dry_run_option, yes_option
from twobuckets.cli.records import FleetSummary
from twobuckets.cli.site import site_of, wake_through
from twobuckets.errors import ExitStatus, TwoBucketsError, UsageError

if TYPE_CHECKING:
    from twobuckets.cli.app import App
    from twobuckets.doctor.findings import Finding, Severity
    from twobuckets.doctor.site import Site
    from twobuckets.doctor.stuck import Stuck


@command("doctor")
@click.option(
    "--older-than",
    type=DURATION,
    help="Age from which an object in staging is stuck.  [default: what the function's time-out "
    "and retries can take]",
)
@click.option(
    "--uploads-older-than",
    type=DURATION,
    default="1d",
    show_default=True,
    help="Age from which an incomplete upload is orphaned.",
)
@click.option(
    "--check",
    "checks",
    multiple=True,
    metavar="NAME",
    shell_complete=completes("checks"),
    help="Only this check or family.",
)
@click.option("--list-checks", is_flag=True, help="Show the checks and run none.")
@click.option("--all", "is_all", is_flag=True, help="Every pipeline, a line each, the worst first.")
@click.option("--fix", is_flag=True, help="Apply the safe remedies after showing them.")
@click.option(
    "--fail-on",
    type=click.Choice(["problem", "notice", "info"]),
    default="notice",
    show_default=True,
    help="The lowest severity that ends with status 3.",
)
@yes_option
@dry_run_option
@click.pass_obj
def doctor(
    app: App,
    older_than: timedelta | None,
    uploads_older_than: timedelta,
    checks: tuple[str, ...],
    list_checks: bool,
    is_all: bool,
    fix: bool,
    fail_on: str,
    yes: bool,
    dry_run: bool,
) -> None:
    """Find what is stuck, orphaned or broken, and why.

    Changes nothing without --fix. Ends with status 0 when there is nothing to report, 3 when there
    is, 5 when something could not be looked at and nothing else was found.

    With --fix it shows what it would do, asks, and does it: puts missing wiring and rules back,
    aborts orphaned uploads, deletes from staging what is proven to be in the archive, and wakes
    the processor for objects that it was never told of. Objects on which the processor failed are
    woken only when --check names them: fix the processor first.
    """
    from twobuckets import doctor as room
    from twobuckets.doctor.findings import Severity
    from twobuckets.doctor.summary import Tally

    if list_checks:
        checks_there_are = list(room.list_checks())
        app.out.stream(checks_there_are)
        app.finish(room.ChecksSummary(len(checks_there_are)))
        return
    if dry_run and not fix:
        raise UsageError(
            "Without --fix there is no plan for --dry-run to show",
            hint="doctor alone changes nothing; --fix --dry-run shows what it would change.",
        )
    selected = room.select_checks(checks)
    if is_all:
        if fix:
            raise UsageError(
                "--fix changes one pipeline at a time",
                hint="Without --fix, --all names the command for each.",
            )
        _examine_fleet(app, selected, Severity(fail_on), older_than, uploads_older_than)
        return
    site = site_of(app, older_than=older_than, uploads_older_than=uploads_older_than)
    diagnosis = room.Diagnosis(site, selected)
    tally = Tally(Severity(fail_on), checks)
    findings = []
    with app.out.waiting("Looking at the pipeline"):
        for finding in diagnosis.findings():
            tally.add(finding)
            findings.append(finding)
            app.out.record(finding)
    if fix:
        asked = frozenset(checks)
        fixed = _fix(app, site, findings, diagnosis.stuck, asked, yes=yes, dry_run=dry_run)
        for finding in findings:
            if finding.fixable and finding.check in fixed:
                tally.fix(finding)
    stuck = diagnosis.stuck
    app.out.record(tally.summary(stuck.totals if stuck is not None else None))
    click.get_current_context().exit(tally.exit_code)


def _examine_fleet(
    app: App,
    checks: frozenset[str],
    fail_on: Severity,
    older_than: timedelta | None,
    uploads_older_than: timedelta,
) -> None:
    from twobuckets import doctor as room
    from twobuckets.cli.fleet import ask_each, require_fleet
    from twobuckets.doctor.summary import FleetFindings, Tally, find_worst

    def ask(one: App) -> tuple[FleetFindings, int]:
        stack, command = one.require_stack(), f"{one.program} doctor"
        tally = Tally(fail_on)
        findings = []
        try:
            site = site_of(one, older_than=older_than, uploads_older_than=uploads_older_than)
            diagnosis = room.Diagnosis(site, checks)
            for finding in diagnosis.findings():
                tally.add(finding)
                findings.append(finding)
        except TwoBucketsError as error:
            failed = FleetFindings(
                stack, one.aws.region, 0, 0, 0, None, None, command, error.message
            )
            return failed, error.exit_code
        stuck = diagnosis.stuck
        summary = tally.summary(stuck.totals if stuck is not None else None)
        found = FleetFindings(
            stack,
            one.aws.region,
            summary.problems,
            summary.notices,
            summary.unknown,
            summary.stuck,
            find_worst(findings),
            command,
        )
        return found, tally.exit_code

    with app.out.waiting("Looking at the pipelines"):
        told = ask_each(require_fleet(app), ask)
    told.sort(key=lambda one: (-one[0].problems, one[0].error is None, -one[0].notices))
    app.out.stream(one for one, _ in told)
    statuses = {status for _, status in told}
    needs = sum(status != ExitStatus.DONE for _, status in told)
    app.finish(FleetSummary(len(told), needs), attention=ExitStatus.ATTENTION in statuses)
    click.get_current_context().exit(max(statuses))


def _fix(
    app: App,
    site: Site,
    findings: list[Finding],
    stuck: Stuck | None,
    asked: frozenset[str],
    *,
    yes: bool,
    dry_run: bool,
) -> frozenset[str]:
    """Show the plan, ask, apply it, and return the checks whose findings were fixed."""
    from twobuckets.doctor import remedies
    from twobuckets.doctor.fixing import fixed_by, plan_fixes

    fixes = plan_fixes(site, findings, stuck, asked, wake_through(app, site))
    app.out.stream(item.action for item in fixes.planned)
    for check in fixes.only_by_name:
        app.out.note(f"Only when it is named: {site.fix_command(check)}")
    if fixes.first is not None:
        app.out.note(f"Not woken yet: {fixes.first.detail} First: {fixes.first.remedy}")
    if not fixes.planned:
        app.out.note("There is nothing that --fix can fix here.")
    if not fixes.planned or dry_run:
        return frozenset()
    app.confirm("Apply this?", yes=yes)
    applied = []
    for item in fixes.planned:
        with app.out.waiting(f"Applying {item.action.check} to {item.action.count:,}"):
            for outcome in remedies.apply(item):
                applied.append(outcome)
                app.out.record(outcome)
    fixed = fixed_by(applied)
    if fixed.woken:
        app.out.note(
            f"The processor works on the {fixed.woken:,} it was woken for; until it is through, "
            f"doctor finds them still. What becomes of them: {app.program} logs --follow"
        )
    return fixed.checks
