"""`twobuckets reprocess`: selects, plans, asks, moves back or wakes, waits."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from twobuckets import settings as settings_
from twobuckets.cli import command
from twobuckets.cli.failure_list import FailureList, failed_to_option
from twobuckets.cli.options import DURATION, INSTANT, dry_run_option, yes_option
from twobuckets.cli.reprocess_run import Run, summarize_run
from twobuckets.cli.reprocess_selection import Selection, iter_actions
from twobuckets.errors import NotFoundError, UsageError
from twobuckets.units import format_instant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from twobuckets.cli.app import App
    from twobuckets.reprocess.batch import Place
    from twobuckets.reprocess.journal import Journal
    from twobuckets.reprocess.run import Planned
    from twobuckets.s3 import Sender

_WORKERS: Final = 32
"""Threads that wake the processor or ask Glacier; each waits for one answer."""
_JOB_PAUSE: Final = 15.0
_KEPT: Final = timedelta(days=30)
"""How long the journal of an ended run is kept."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run on record: what was asked for, when, and where its journal is."""

    command: str
    planned_at: datetime
    is_ended: bool
    journal: str


@command("reprocess")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--prefix", metavar="TEXT", help="All keys that begin with TEXT.")
@click.option("--from-file", metavar="FILE", help="Keys, JSON lines or a manifest; - is stdin.")
@click.option(
    "--failed", is_flag=True, help="What failed according to the logs, since 1d or --since."
)
@click.option("--stuck", is_flag=True, help="What doctor finds stuck in staging.")
@click.option(
    "--older-than", type=DURATION, help="With --stuck: from this age on.  [default: as doctor]"
)
@click.option("--since", type=INSTANT, metavar="WHEN",
              help="Only what was archived (or failed, or staged) since WHEN.")  # fmt: skip
@click.option("--until", type=INSTANT, metavar="WHEN", help="Only what was so before WHEN.")
@click.option("--match", multiple=True, metavar="GLOB", help="Only keys that match; repeatable.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N objects.")
@click.option("--version-id", metavar="ID", help="This archived version of the single KEY.")
@click.option(
    "--as-of", type=INSTANT, metavar="WHEN", help="The version that was archived at WHEN."
)
@click.option("--keep", is_flag=True, help="Leave the archived versions where they are.")
@click.option("--restore", is_flag=True, help="Restore objects in Glacier classes first.")
@click.option(
    "--canary",
    type=click.IntRange(1),
    metavar="N",
    help="Try N first; continue only if all succeed.",
)
@click.option("--concurrency", type=click.IntRange(1, 1024), default=256, show_default=True,
              help="Most requests in flight at a time.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="N",
              help="Most files per second.")  # fmt: skip
@click.option("--wait", is_flag=True, help="Wait until each is archived or has failed again.")
@click.option("--timeout", type=DURATION, default="15m", show_default=True,
              help="How long to wait for outcomes.")  # fmt: skip
@failed_to_option
@click.option("--batch", is_flag=True, help="Let S3 Batch Operations make the copies.")
@click.option(
    "--batch-role", metavar="ARN", help="Role of the job; without it, prints the policy it needs."
)
@click.option("--batch-bucket", metavar="NAME",
              help="Bucket for manifest and report.  [default: the artifact bucket]")  # fmt: skip
@click.option("--resume", is_flag=True, help="Continue the last unfinished run.")
@click.option("--restart", is_flag=True, help="Plan anew instead of continuing.")
@click.option("--status", "show_status", is_flag=True, help="Show how far the last run came.")
@dry_run_option
@yes_option
@click.pass_obj
def reprocess(
    app: App,
    /,
    *,
    canary: int | None,
    concurrency: int,
    rate: float | None,
    wait: bool,
    timeout: timedelta,
    failed_to: str | None,
    batch: bool,
    batch_role: str | None,
    batch_bucket: str | None,
    resume: bool,
    restart: bool,
    show_status: bool,
    dry_run: bool,
    yes: bool,
    **selected: Any,
) -> None:
    """Get objects processed again.

    What is in the archive is moved back to staging: copied where no newer file waits, compared,
    and only then deleted from the archive by its version id. What waits in staging stays there and
    the processor is woken for it. Interrupted, the same command goes on where it was.

    \b
      twobuckets reprocess scans/2026-05-04.csv --wait
      twobuckets reprocess --failed --since 2h --canary 5
      twobuckets reprocess --prefix scans/ --dry-run
    """
    import twobuckets.cli.views.waiting  # noqa: F401 - registers its view
    from twobuckets.cli.views import reprocess as views
    from twobuckets.prices import US_EAST_1
    from twobuckets.reprocess.run import BATCH_OBJECTS, Rate, summarize

    if show_status:
        _show_status(app)
        return
    selection = Selection(**selected)
    with (
        FailureList(None if dry_run else failed_to, app.out) as failures,
        app.connect(most=concurrency) as sender,
        _open_run(app, sender, selection, resume=resume, anew=restart or dry_run) as journal,
    ):
        planned = summarize(journal, US_EAST_1)
        if dry_run:
            app.out.stream(journal.iter_items())
        app.out.record(planned)
        if dry_run or not planned.objects:
            if journal.is_approved:
                journal.end(app.now())
            # What is skipped is left as well.
            summary = summarize_run(journal)
            app.finish(summary, attention=summary.left > 0)
            return
        if not app.confirm(_question(planned), yes=yes):
            app.finish(summarize_run(journal))
            return
        journal.approve()
        if batch or journal.job_id is not None:
            place = _batch_place(app, batch_bucket)
            if not _hand_over(app, journal, place, role_arn=batch_role, wait=wait):
                app.finish(summarize_run(journal))
                return
        elif planned.moves + planned.copies >= BATCH_OBJECTS:
            app.out.note("So many objects go faster with --batch: S3 itself copies them")
        workers = min(concurrency, _WORKERS)
        with views.progress(app.out, planned.objects) as advance:
            run = Run(app, sender, journal, Rate(rate), workers, timeout, advance, failures)
            run.go(planned.objects, canary=canary, wait=wait)


def _journals(app: App) -> Path:
    return settings_.state_directory(app.environ, "reprocess")


@contextlib.contextmanager
def _open_run(
    app: App, sender: Sender, selection: Selection, *, resume: bool, anew: bool
) -> Iterator[Journal]:
    """Yield the run to go on with, or a new one with its plan; forget a plan nobody agreed to."""
    from twobuckets.reprocess import journal as journal_
    from twobuckets.reprocess.plan import iter_covered

    directory = _journals(app)
    pipeline = app.pipeline
    place = json.dumps([app.aws.s3_address.url, pipeline.staging, pipeline.archive])
    fingerprint = selection.fingerprint(place)
    journal_.remove_old(directory, before=app.now() - _KEPT)
    found = None
    if resume:
        found = journal_.require_unfinished(directory)
    else:
        selection.require_one_source()
        if not anew:
            found = journal_.find_unfinished(directory, fingerprint=fingerprint)
    if found is not None:
        with found:
            _require_same_place(found, place)
            _say_going_on(app, found)
            yield found
        return
    journal = journal_.create(
        directory,
        fingerprint=fingerprint,
        description={"command": selection.words(), "place": place},
        now=app.now(),
    )
    try:
        with app.out.waiting("Looking for what is meant"):
            journal.add(iter_actions(app, sender, selection))
            if selection.prefix is not None:
                journal.keep_archived(iter_covered(sender, pipeline.staging, selection.prefix))
        yield journal
    finally:
        if journal.is_approved:
            journal.close()
        else:
            journal.discard()


def _require_same_place(journal: Journal, place: str) -> None:
    if journal.description["place"] != place:
        raise UsageError(
            "The last unfinished run is about another pipeline: "
            f"twobuckets {journal.description['command']}",
            hint="Choose that pipeline (--stack, --region, --profile), or leave --resume out.",
        )


def _say_going_on(app: App, journal: Journal) -> None:
    again = journal.reopen_failed()
    app.out.note(
        f"Going on with the run of {format_instant(journal.planned_at)}"
        + (f", {again:,} that failed are tried again" if again else "")
        + "; --restart plans anew"
    )


def _question(planned: Planned) -> str:
    parts = [
        f"move {planned.moves:,} back to staging" if planned.moves else "",
        f"copy {planned.copies:,} to staging" if planned.copies else "",
        f"wake the processor for {planned.wakes:,}" if planned.wakes else "",
        f"ask {planned.restores:,} back from Glacier" if planned.restores else "",
    ]
    return (" and ".join(part for part in parts if part) + "?").capitalize()


def _show_status(app: App) -> None:
    from twobuckets.reprocess import journal as journal_

    journal = journal_.open_newest(_journals(app))
    if journal is None:
        raise NotFoundError("No reprocess run is on record here")
    with journal:
        app.out.record(
            RunStatus(
                journal.description["command"],
                journal.planned_at,
                journal.is_ended,
                str(journal.path),
            )
        )
        app.out.stream(journal.counts())
        app.finish(summarize_run(journal))


def _batch_place(app: App, bucket: str | None) -> Place:
    """Return where a batch job runs; its manifest goes beside the artifacts unless told else."""
    from twobuckets.reprocess.batch import Place
    from twobuckets.stack.artifacts import artifact_bucket, find_account
    from twobuckets.stack.template import Place as StackPlace

    account, partition = find_account(app.aws.sts)
    beside = artifact_bucket(StackPlace(account, app.aws.region, partition, uses_tls=True))
    pipeline = app.pipeline
    return Place(account, partition, pipeline.staging, pipeline.archive, bucket or beside)


def _hand_over(
    app: App, journal: Journal, place: Place, *, role_arn: str | None, wait: bool
) -> bool:
    """Let a batch job make the copies; tell whether it has ended and was read back."""
    from twobuckets.reprocess import batch

    if journal.job_id is None:
        if role_arn is None:
            app.out.raw(json.dumps(batch.permissions(place), indent=2) + "\n")
            raise UsageError(
                "S3 Batch Operations needs a role that may copy; its trust and permissions are "
                "the documents above",
                hint="Create it, then run the command again with --batch-role ARN.",
            )
        batch.require_versions(app.aws.s3, place.staging)
        batch.submit(
            app.aws.s3, app.aws.s3control, journal, place, role_arn=role_arn, now=app.now()
        )
    job_id = journal.job_id
    assert job_id is not None
    while True:
        job = batch.describe(app.aws.s3control, place.account, job_id)
        app.out.record(job)
        if job.has_ended:
            batch.collect(app.aws.s3, journal, place, job)
            return True
        if not wait:
            app.out.note("The same command, run again, reads the job back and goes on from there")
            return False
        app.sleep(_JOB_PAUSE)
