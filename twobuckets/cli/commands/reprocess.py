"""`twobuckets reprocess`: selects, plans, asks, copies back or wakes, waits."""

from __future__ import annotations

import contextlib
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from twobuckets import settings as settings_
from twobuckets.cli import command, completes
from twobuckets.cli.options import (
    BUCKET,
    DURATION,
    INSTANT,
    dry_run_option,
    failed_to_option,
    yes_option,
)
from twobuckets.cli.output import FEW
from twobuckets.cli.site import iter_stuck
from twobuckets.errors import (
    AccessError,
    NotFoundError,
    UnreachableError,
    UsageError,
)
from twobuckets.logs.errors import KINDS
from twobuckets.units import counted

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from twobuckets.cli.app import App
    from twobuckets.lists import FailureList
    from twobuckets.reprocess.batch import JobPlace
    from twobuckets.reprocess.choice import Choice
    from twobuckets.reprocess.journal import Journal
    from twobuckets.reprocess.plan import Action
    from twobuckets.reprocess.run import PlanTotals
    from twobuckets.reprocess.running import Run, Said
    from twobuckets.s3.engine import Sender

_WORKERS: Final = 32
"""Threads that wake the processor or ask Glacier; each waits for one answer."""


@command("reprocess")
@click.argument(
    "keys", metavar="[KEY]...", nargs=-1, shell_complete=completes("archived_or_staged_keys")
)
@click.option(
    "--prefix",
    metavar="TEXT",
    shell_complete=completes("archived_or_staged_keys"),
    help="All keys that begin with TEXT.",
)
@click.option(
    "--from-file",
    metavar="FILE",
    shell_complete=completes("files"),
    help="Keys, JSON lines or a manifest; - is stdin.",
)
@click.option(
    "--failed", is_flag=True, help="What failed according to the logs, since 1d or --since."
)
@click.option("--stuck", is_flag=True, help="What doctor finds stuck in staging.")
@click.option(
    "--error", multiple=True, metavar="PATTERN", help="Only what failed with an error like this, "
    "such as 'KeyError*'.",
)  # fmt: skip
@click.option(
    "--outcome", multiple=True, type=click.Choice(KINDS), help="Only what failed in this way.  "
    "[default: all but rejected]",
)  # fmt: skip
@click.option(
    "--older-than", type=DURATION, help="With --stuck: from this age on.  [default: as doctor]"
)
@click.option("--since", type=INSTANT, metavar="WHEN",
              help="Only what was archived (or failed, or staged) since WHEN.")  # fmt: skip
@click.option("--until", type=INSTANT, metavar="WHEN", help="Only what was so until WHEN.")
@click.option("--match", multiple=True, metavar="GLOB", help="Only keys that match; repeatable.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N objects.")
@click.option("--version-id", metavar="ID", help="This archived version of the single KEY.")
@click.option(
    "--as-of", type=INSTANT, metavar="WHEN", help="The version that was archived at WHEN."
)
@click.option("--keep", is_flag=True, hidden=True, expose_value=False)  # They always stay.
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
@click.option("--batch-bucket", metavar="NAME", type=BUCKET,
              help="Bucket for manifest and report.  [default: the artifact bucket]")  # fmt: skip
@click.option("--resume", is_flag=True, help="Continue the last unfinished run.")
@click.option("--restart", is_flag=True, help="Plan anew instead of continuing.")
@click.option("--status", "show_status", is_flag=True, help="Show how far the last run came.")
@dry_run_option
@yes_option
@click.pass_obj
def reprocess(
    app: App,
    keys: tuple[str, ...],
    prefix: str | None,
    from_file: str | None,
    failed: bool,
    stuck: bool,
    error: tuple[str, ...],
    outcome: tuple[str, ...],
    older_than: timedelta | None,
    since: datetime | None,
    until: datetime | None,
    match: tuple[str, ...],
    limit: int | None,
    version_id: str | None,
    as_of: datetime | None,
    restore: bool,
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
) -> None:
    """Get objects processed again.

    What is in the archive is copied back to staging where no newer file waits, and stays in the
    archive until the processor has archived the copy: nothing is ever deleted there, and what is
    replaced expires as any noncurrent version does. What waits in staging stays there and the
    processor is woken for it. After an interruption, the same command continues
    where it stopped.

    An older copy never replaces a newer file: where one was archived meanwhile, the copy is left in
    staging, and --wait ends with 3. A version that is asked for by --version-id or --as-of counts
    as a new file.

    \b
      twobuckets reprocess scans/2026-05-04.csv --wait
      twobuckets reprocess --failed --since 2h --canary 5
      twobuckets reprocess --failed --error 'KeyError*'
      twobuckets reprocess --prefix scans/ --dry-run
    """
    from twobuckets.cli.views.progress import reprocess_progress
    from twobuckets.lists import FailureList
    from twobuckets.prices import US_EAST_1
    from twobuckets.reprocess.choice import Choice
    from twobuckets.reprocess.opening import open_run
    from twobuckets.reprocess.run import BATCH_OBJECTS, Rate, summarize
    from twobuckets.reprocess.running import Run, summarize_run

    if show_status:
        _show_status(app)
        return
    if batch:
        _require_no_pace(canary, rate)
    choice = Choice(
        keys=keys,
        prefix=prefix,
        since=since,
        until=until,
        from_file=from_file,
        failed=failed,
        stuck=stuck,
        error=error,
        outcome=outcome,
        older_than=older_than,
        match=match,
        limit=limit,
        version_id=version_id,
        as_of=as_of,
        restore=restore,
    )
    unnamed: set[str] = set()
    with (
        FailureList(None if dry_run else failed_to, app.out.warn) as failures,
        app.connect(most=concurrency) as sender,
        open_run(
            _journals(app),
            choice,
            place=_place(app),
            plan=partial(_plan, app, sender, choice, unnamed),
            now=app.now(),
            note=app.out.note,
            warn=app.out.warn,
            resume=resume,
            restart=restart,
            dry_run=dry_run,
        ) as journal,
    ):
        planned = summarize(journal, US_EAST_1)
        if dry_run:
            app.out.stream(journal.iter_items())
        app.out.record(planned)
        if dry_run or not planned.objects:
            if journal.is_approved and not dry_run:
                journal.end(app.now())
            # What is skipped is left as well.
            summary = summarize_run(journal)
            app.finish(summary, attention=summary.left > 0 or bool(unnamed))
            return
        is_held_back = planned.objects > planned.restores and _is_switched_off(app)
        app.confirm(_question(planned), yes=yes)
        journal.approve()
        if batch or journal.job_id is not None:
            _require_no_pace(canary, rate)
            place = _batch_place(app, batch_bucket)
            if not _hand_over(app, journal, place, role_arn=batch_role, wait=wait):
                app.finish(summarize_run(journal))
                return
        elif planned.copies >= BATCH_OBJECTS:
            app.out.note("So many objects go faster with --batch: S3 itself copies them")
        with reprocess_progress(app.out, planned.objects) as advance:
            run = Run(
                aws=app.aws,
                sender=sender,
                journal=journal,
                pipeline=app.pipeline,
                rate=Rate(rate),
                workers=min(concurrency, _WORKERS),
                timeout=timeout,
                now=app.now,
                sleep=app.sleep,
                begun=advance,
                warn=app.out.warn,
            )
            said = run.go(planned.objects, canary=canary, wait=wait)
            _show(app, run, said, failures, many=planned.objects > FEW)
        failures.complete()
        app.out.stream(run.groups())
        app.finish(run.summary(), attention=run.needs_attention or bool(unnamed) or is_held_back)


def _show(
    app: App, run: Run, said: Generator[Said, None, None], failures: FailureList, *, many: bool
) -> None:
    """Show what a run tells as it goes, and list what somebody has to look after."""
    from twobuckets.reprocess.items import Reprocessed
    from twobuckets.reprocess.running import FailedObject, Waiting

    try:
        # Whatever ends the loop, the run ends while its journal is open.
        with contextlib.closing(said), contextlib.ExitStack() as live:
            for record in said:
                if isinstance(record, Waiting):
                    files = counted(record.objects, "file")
                    live.enter_context(app.out.waiting(f"Waiting for the processor: {files}"))
                    continue
                if isinstance(record, Reprocessed):
                    live.close()
                is_bad = run.is_bad(record)
                app.out.record(record, went_well=not is_bad, many=many)
                if is_bad:
                    failures.add(FailedObject(record.key))
    except KeyboardInterrupt:
        app.out.note(
            f"Stopped: {run.summary().done:,} done in this run. The same command, or --resume, "
            "goes on; --status shows how far it came"
        )
        raise


def _journals(app: App) -> Path:
    return settings_.state_directory(app.environ, "reprocess")


def _plan(app: App, sender: Sender, choice: Choice, unnamed: set[str]) -> Iterator[Action]:
    """Yield what is to be done, showing that it is looked for.

    `unnamed` gets the invocations that failed without naming a file.
    """
    from twobuckets.pipeline.facts import Facts
    from twobuckets.reprocess.choice import Chooser

    chooser = Chooser(
        aws=app.aws,
        sender=sender,
        pipeline=app.pipeline,
        now=app.now,
        stuck=partial(iter_stuck, app),
        skips_folders=lambda: Facts(app.aws, app.pipeline, app.now()).function.skips_folders,
        warn=app.out.warn,
    )
    with app.out.waiting("Looking for what is meant"):
        yield from chooser.iter_actions(choice, unnamed)


def _place(app: App) -> str:
    from twobuckets.reprocess.opening import place_of

    return place_of(app.aws.s3_address.url, app.pipeline)


def _require_no_pace(canary: int | None, rate: float | None) -> None:
    """Raise UsageError for what can't be kept while S3 makes the copies."""
    if canary is not None or rate is not None:
        raise UsageError(
            f"{'--canary' if canary is not None else '--rate'} can't go with --batch: S3 copies as "
            "fast as it can, and each copy wakes the processor at once",
            hint="Reprocess a few first, with --limit and --wait, and then the rest with --batch.",
        )


def _is_switched_off(app: App) -> bool:
    """Warn if the processor can't run now, and tell whether that is so."""
    from twobuckets.pipeline.facts import Facts
    from twobuckets.pipeline.lookups import CouldNotLook

    if app.pipeline.function is None:
        return False
    try:
        concurrency = Facts(app.aws, app.pipeline, app.now()).function.reserved_concurrency()
    except CouldNotLook:
        return False
    if concurrency == 0:
        app.out.warn(
            "The function's reserved concurrency is 0: nothing is processed before it is switched "
            "on, and Lambda gives events up after at most 6 hours. First: "
            f"{app.program} doctor --fix --check concurrency-zero"
        )
    return concurrency == 0


def _question(planned: PlanTotals) -> str:
    parts = [
        f"copy {planned.copies:,} back to staging" if planned.copies else "",
        f"wake the processor for {planned.wakes:,}" if planned.wakes else "",
        f"ask {planned.restores:,} back from Glacier" if planned.restores else "",
    ]
    text = " and ".join(part for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}?"


def _show_status(app: App) -> None:
    from twobuckets.reprocess import journals
    from twobuckets.reprocess.running import summarize_run

    try:
        place = _place(app)
    except (AccessError, UnreachableError) as error:
        # What a run has come to stands in a file: that much is shown without AWS.
        app.out.warn(f"{error.message}. This is the last run of any pipeline:")
        place = None
    journal = journals.open_newest(_journals(app), place=place)
    if journal is None:
        raise NotFoundError("No reprocess run of this pipeline is on record here")
    with journal:
        app.out.record(journals.status_of(journal))
        app.out.stream(journal.counts())
        app.finish(summarize_run(journal))


def _batch_place(app: App, bucket: str | None) -> JobPlace:
    """Return where a batch job runs; its manifest goes beside the artifacts unless told else."""
    from twobuckets.reprocess.batch import JobPlace
    from twobuckets.stack.artifacts import artifact_bucket, find_account
    from twobuckets.stack.template import Location

    account, partition = find_account(app.aws.sts)
    beside = artifact_bucket(Location(account, app.aws.region, partition, uses_tls=True))
    pipeline = app.pipeline
    return JobPlace(account, partition, pipeline.staging, pipeline.archive, bucket or beside)


def _hand_over(
    app: App, journal: Journal, place: JobPlace, *, role_arn: str | None, wait: bool
) -> bool:
    """Show how far the batch job is that makes the copies; tell whether it was read back."""
    from twobuckets.reprocess import batch

    if role_arn is None and batch.needs_role(journal):
        app.out.record(batch.permissions(place))
        raise UsageError(
            "S3 Batch Operations needs a role that may copy; its trust and permissions are "
            "the documents above",
            hint="Create it, then run the command again with --batch-role ARN.",
        )
    job = None
    for job in batch.hand_over(
        app.aws, journal, place, role_arn=role_arn, wait=wait, now=app.now, sleep=app.sleep
    ):
        app.out.record(job)
    if job is None or job.has_ended:
        return True
    app.out.note("The same command, run again, reads the job back and goes on from there")
    return False
