"""`twobuckets reprocess`: selects, plans, asks, moves back or wakes, waits."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TextIO

import click

from twobuckets import settings as settings_
from twobuckets.cli import command
from twobuckets.cli.options import DURATION, INSTANT, dry_run_option, yes_option
from twobuckets.errors import AccessError, NotFoundError, TwoBucketsError, UsageError
from twobuckets.text import shell_word
from twobuckets.units import format_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twobuckets.cli.app import App
    from twobuckets.logs.lines import Outcome
    from twobuckets.logs.waiting import Fate, Tracker
    from twobuckets.reprocess.batch import Place
    from twobuckets.reprocess.journal import Journal
    from twobuckets.reprocess.plan import Action, Found, Rules
    from twobuckets.reprocess.run import Brake, Planned, Rate, Reprocessed
    from twobuckets.reprocess.selection import Wanted
    from twobuckets.s3 import Sender

_WORKERS: Final = 32
"""Threads that wake the processor or ask Glacier; each waits for one answer."""
_FAILED_SINCE: Final = timedelta(days=1)
_MOST_GROUPS: Final = 1000
"""Different errors that are counted apart."""
_JOB_PAUSE: Final = 15.0
_KEPT: Final = timedelta(days=30)
"""How long the journal of an ended run is kept."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What the command line asks for; the same words are the same run."""

    keys: tuple[str, ...]
    prefix: str | None
    since: datetime | None
    until: datetime | None
    from_file: str | None
    failed: bool
    stuck: bool
    older_than: timedelta | None
    match: tuple[str, ...]
    limit: int | None
    version_id: str | None
    as_of: datetime | None
    keep: bool
    restore: bool

    def require_one_source(self) -> None:
        """Raise UsageError unless exactly one option says where the keys come from."""
        sources = [
            name
            for name, given in (
                ("KEY", self.keys),
                ("--prefix", self.prefix is not None),
                ("--from-file", self.from_file),
                ("--failed", self.failed),
                ("--stuck", self.stuck),
            )
            if given
        ]
        if len(sources) != 1:
            said = " and ".join(sources) if sources else "nothing"
            raise UsageError(
                f"{said} says which objects to reprocess; exactly one of KEY…, --prefix, "
                "--from-file, --failed and --stuck has to",
                hint='Everything in the archive is --prefix "".',
            )
        if self.version_id is not None and len(self.keys) != 1:
            raise UsageError("--version-id goes with exactly one KEY")
        if self.older_than is not None and not self.stuck:
            raise UsageError("--older-than goes with --stuck")
        if self.stuck and self.as_of is not None:
            raise UsageError("--as-of is about archived versions, and --stuck about staged ones")

    def rules(self) -> Rules:
        """Return what was asked for beside the keys."""
        from twobuckets.reprocess.plan import Rules

        # With --failed the time is that of the failures, not of archiving.
        return Rules(
            keeps=self.keep,
            restores=self.restore,
            since=None if self.failed else self.since,
            until=None if self.failed else self.until,
            as_of=self.as_of,
            matches=self.match,
        )

    def words(self) -> str:
        """Return the command in the words that ask for the same."""
        words = ["reprocess", *(shell_word(key) for key in self.keys)]
        for name in self.__slots__:
            value = getattr(self, name)
            option = "--" + name.replace("_", "-")
            if name == "keys" or value is None or value is False or value == ():
                continue
            if value is True:
                words.append(option)
            elif isinstance(value, tuple):
                words += [f"{option} {shell_word(item)}" for item in value]
            elif isinstance(value, timedelta):
                words.append(f"{option} {value.total_seconds():g}s")
            elif isinstance(value, datetime):
                words.append(f"{option} {format_instant(value)}")
            else:
                words.append(f"{option} {shell_word(str(value))}")
        return " ".join(words)

    def fingerprint(self, place: str) -> str:
        """Return what is equal for equal requests about one pipeline."""
        return hashlib.sha256(json.dumps([place, self.words()]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class RunStatus:
    """A run on record: what was asked for, when, and where its journal is."""

    command: str
    planned_at: datetime
    is_ended: bool
    journal: str


@dataclass(frozen=True, slots=True)
class OutcomeGroup:
    """What --wait saw of objects that have their error in common; `example` is a key of them."""

    fate: str
    error: str | None
    objects: int
    example: str


@dataclass(frozen=True, slots=True)
class Summary:
    """How a run ended: objects by what came of them; `outcomes` counts what --wait saw."""

    type_name = "summary"

    done: int
    failed: int
    left: int
    planned: int
    outcomes: dict[str, int]
    failures: dict[str, int]


@command("reprocess")
@click.argument("keys", metavar="[KEY]...", nargs=-1)
@click.option("--prefix", metavar="TEXT", help="All keys that begin so.")
@click.option("--from-file", metavar="FILE", help="Keys, JSON lines, a manifest; - is stdin.")
@click.option("--failed", is_flag=True, help="What the logs say failed (since 1d, or --since).")
@click.option("--stuck", is_flag=True, help="What doctor finds stuck in staging.")
@click.option("--older-than", type=DURATION, help="Stuck from this age on; else as doctor does.")
@click.option("--since", type=INSTANT, metavar="WHEN", help="Archived (failed, staged) from then.")
@click.option(
    "--until", type=INSTANT, metavar="WHEN", help="Archived (failed, staged) before then."
)
@click.option("--match", multiple=True, metavar="GLOB", help="Only keys of this form; repeatable.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N objects.")
@click.option("--version-id", metavar="ID", help="This archived version of the one KEY.")
@click.option("--as-of", type=INSTANT, metavar="WHEN", help="The archived version of that time.")
@click.option("--keep", is_flag=True, help="Leave the archived versions where they are.")
@click.option("--restore", is_flag=True, help="Ask objects in Glacier classes back first.")
@click.option("--canary", type=click.IntRange(1), metavar="N", help="N first; go on if they work.")
@click.option("--concurrency", type=click.IntRange(1, 1024), default=256, show_default=True,
              help="Requests in flight, at most.")  # fmt: skip
@click.option("--rate", type=click.FloatRange(0, min_open=True), metavar="N",
              help="Files a second, at most.")  # fmt: skip
@click.option("--wait", is_flag=True, help="Until each is archived, or failed, again.")
@click.option("--timeout", type=DURATION, default="15m", show_default=True,
              help="How long to wait for outcomes.")  # fmt: skip
@click.option("--failed-to", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Write what failed there, for --from-file.")  # fmt: skip
@click.option("--batch", is_flag=True, help="Let S3 Batch Operations make the copies.")
@click.option("--batch-role", metavar="ARN", help="The role of its job; without, what it needs.")
@click.option("--batch-bucket", metavar="NAME",
              help="For manifest and report; else the account's artifact bucket.")  # fmt: skip
@click.option("--resume", is_flag=True, help="Go on with the last unfinished run.")
@click.option("--restart", is_flag=True, help="Plan anew instead of going on.")
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
    failed_to: Path | None,
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
            app.finish(_summary(journal), attention=bool(planned.skipped))
            return
        if not app.confirm(_question(planned), yes=yes):
            app.finish(_summary(journal))
            return
        journal.approve()
        if batch or journal.job_id is not None:
            place = _batch_place(app, batch_bucket)
            if not _hand_over(app, journal, place, role_arn=batch_role, wait=wait):
                app.finish(_summary(journal))
                return
        elif planned.moves + planned.copies >= BATCH_OBJECTS:
            app.out.note("So many objects go faster with --batch: S3 itself copies them")
        workers = min(concurrency, _WORKERS)
        with _failures(failed_to) as failures, views.progress(app.out, planned.objects) as advance:
            run = _Run(app, sender, journal, Rate(rate), workers, timeout, advance, failures)
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
    if found is not None and not found.has_work:
        # It only never came to say so: what follows is a new request.
        with found:
            found.end(app.now())
        found = None
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
            journal.add(_actions(app, sender, selection))
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


def _actions(app: App, sender: Sender, selection: Selection) -> Iterator[Action]:
    """Yield what to do with what is selected."""
    from twobuckets.reprocess.plan import (
        keeps_versions,
        plan_keys,
        plan_listed,
        plan_staged,
    )
    from twobuckets.reprocess.run import limited

    pipeline = app.pipeline
    rules = selection.rules()
    if not rules.keeps and not keeps_versions(sender, pipeline.staging):
        app.out.note(
            f"{pipeline.staging} keeps no versions, so what is copied there stays in the archive "
            "until the processor has replaced it: nothing else would be safe"
        )
        rules = replace(rules, keeps=True)
    if selection.prefix is not None:
        actions = plan_listed(
            _archived(app, sender, selection.prefix), _staged(app, sender, selection.prefix), rules
        )
    elif selection.stuck:
        actions = plan_staged(_stuck(app, selection.older_than), rules)
    else:
        actions = plan_keys(
            sender,
            _wanted(app, selection),
            rules,
            staging=pipeline.staging,
            archive=pipeline.archive,
        )
    return limited(actions, selection.limit)


def _archived(app: App, sender: Sender, prefix: str) -> Iterator[Found]:
    from twobuckets.reprocess.plan import iter_archived

    return iter_archived(sender, app.pipeline.archive, prefix)


def _staged(app: App, sender: Sender, prefix: str) -> Iterator[Found]:
    from twobuckets.reprocess.plan import iter_staged

    return iter_staged(sender, app.pipeline.staging, prefix)


def _stuck(app: App, older_than: timedelta | None) -> Iterator[tuple[Found, str | None]]:
    """Yield what doctor finds stuck in staging, and why it should not be woken, None if it may."""
    from twobuckets.doctor.findings import CouldNotLook, Gone
    from twobuckets.doctor.site import Site
    from twobuckets.doctor.stuck import find_stuck, iter_wakeable
    from twobuckets.reprocess.plan import Found

    site = Site(
        aws=app.aws,
        pipeline=app.pipeline,
        now=app.now(),
        connect=app.connect,
        older_than=older_than,
    )
    try:
        for finding in find_stuck(site):
            app.out.note(f"{finding.check}: {finding.count:,}. {finding.detail}")
    except Gone as gone:
        raise NotFoundError(f"Could not look for what is stuck: {gone}") from None
    except CouldNotLook as unseen:
        # Without the log it is known all the same what is stuck, only not why.
        if not site.stuck and unseen.permission is None:
            raise TwoBucketsError(str(unseen)) from None
        if not site.stuck:
            needs = f"The identity in use needs {unseen.permission}."
            raise AccessError(str(unseen), hint=needs) from None
        app.out.warn(str(unseen))
    for staged, reason in iter_wakeable(site):
        found = Found(
            staged.key, staged.version_id, staged.etag, staged.size_bytes, staged.arrived_at
        )
        yield found, reason


def _wanted(app: App, selection: Selection) -> Iterator[Wanted]:
    """Yield the keys that are meant, each once."""
    from twobuckets.reprocess.selection import Wanted, read_wanted

    pipeline = app.pipeline
    if selection.failed:
        yield from (Wanted(outcome.key) for outcome in _failed(app, selection))
        return
    if selection.from_file is not None:
        with contextlib.ExitStack() as stack:
            stream, name = _open_list(selection.from_file, stack)
            buckets = (pipeline.staging, pipeline.archive)
            yield from _once(read_wanted(stream, name=name, buckets=buckets))
        return
    yield from _once(Wanted(key, selection.version_id) for key in selection.keys)


def _failed(app: App, selection: Selection) -> Iterator[Outcome]:
    from twobuckets.logs.events import iter_events
    from twobuckets.logs.failures import find_failed
    from twobuckets.logs.lines import OUTCOME_OR_FAILURE_PATTERN

    group = app.pipeline.log_group
    if group is None:
        raise UsageError(
            "Could not find what failed: the processor's log group is not named",
            hint='Name it in twobuckets.toml: log_group = "/aws/lambda/…"',
        )
    since = selection.since or app.now() - _FAILED_SINCE
    return find_failed(
        iter_events(
            app.aws.logs,
            group,
            start_at=since,
            end_at=selection.until,
            pattern=OUTCOME_OR_FAILURE_PATTERN,
        )
    )


def _open_list(path: str, stack: contextlib.ExitStack) -> tuple[BinaryIO, str]:
    if path == "-":
        return sys.stdin.buffer, "standard input"
    try:
        return stack.enter_context(Path(path).open("rb")), path
    except OSError as error:
        raise UsageError(f"Could not read the list of keys in {path}: {error.strerror}") from None


def _once(wanted: Iterable[Wanted]) -> Iterator[Wanted]:
    """Drop repeats: a key that is named twice is moved once."""
    seen: set[bytes] = set()
    for want in wanted:
        # 16 bytes each, so that a list of ten million keys fits.
        mark = hashlib.blake2b(repr(want).encode(), digest_size=16).digest()
        if mark not in seen:
            seen.add(mark)
            yield want


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
        app.finish(_summary(journal))


def _summary(journal: Journal, outcomes: Counter[str] | None = None) -> Summary:
    states: Counter[str] = Counter()
    failures: Counter[str] = Counter()
    for count in journal.counts():
        states[count.state] += count.objects
        if count.state == "failed":
            failures[count.reason or ""] += count.objects
    return Summary(
        done=states["done"],
        failed=states["failed"],
        left=states["left"],
        planned=states["planned"] + states["begun"] + states["copied"],
        outcomes=dict(outcomes or ()),
        failures=dict(failures),
    )


@contextlib.contextmanager
def _failures(path: Path | None) -> Iterator[TextIO | None]:
    """Open the file that failures are written to, before anything changes."""
    if path is None:
        yield None
        return
    try:
        file = path.open("w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"Could not write failures to {path}: {error.strerror}") from None
    with file:
        yield file


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


@dataclass(slots=True)
class _Run:
    """A run on its way: shows what comes of each object and remembers what failed."""

    app: App
    sender: Sender
    journal: Journal
    rate: Rate
    workers: int
    timeout: timedelta
    advance: Callable[[], None]
    failures: TextIO | None = None
    brake: Brake = field(init=False)
    outcomes: Counter[str] = field(default_factory=Counter)
    groups: Counter[tuple[str, str | None]] = field(default_factory=Counter)
    examples: dict[tuple[str, str | None], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        from twobuckets.reprocess.run import Brake

        self.brake = Brake(self.rate, self.throttles)

    def go(self, objects: int, *, canary: int | None, wait: bool) -> None:
        """Apply the plan, a canary of it first if asked to, and end the command."""
        if canary is not None and canary < objects:
            failed = self.watch(self.apply(canary), wait=True)
            if failed:
                self.app.out.warn(
                    f"{failed:,} of the first {canary:,} did not make it, so the other "
                    f"{objects - canary:,} stay as they are; the same command goes on with them"
                )
                self.finish()
                return
        self.watch(self.apply(None), wait=wait)
        summary = _summary(self.journal)
        if not summary.failed:
            self.journal.end(self.app.now())
        self.finish()

    def begin(self) -> None:
        """Wait for an object's turn, and count it."""
        self.brake()
        self.advance()

    def apply(self, most: int | None) -> Iterator[Reprocessed]:
        from twobuckets.reprocess.run import apply

        return apply(
            self.app.aws,
            self.sender,
            self.journal,
            self.app.pipeline,
            now=self.app.now,
            pace=self.begin,
            workers=self.workers,
            most=most,
        )

    def throttles(self) -> bool:
        """Tell whether Lambda throttled the function in the last minutes."""
        from twobuckets.reprocess.run import count_throttles

        app, function = self.app, self.app.pipeline.function
        if function is None or not count_throttles(app.aws.cloudwatch, function, app.now()):
            return False
        app.out.warn(f"Lambda throttles {function}: half as many files a second from here on")
        return True

    def watch(self, results: Iterator[Reprocessed], *, wait: bool) -> int:
        """Show results, and with `wait` their outcomes; return how many failed."""
        from twobuckets.logs.waiting import Staged, wait_for_outcomes

        failed = 0

        def staged() -> Iterator[Staged]:
            nonlocal failed
            for result in results:
                self.app.out.record(result)
                if result.state == "failed":
                    failed += 1
                    self.write_failure(result.key)
                elif result.state == "done" and result.kind != "restore":
                    yield Staged(
                        result.key,
                        result.staged_version_id,
                        result.etag or "",
                        self.app.now(),
                        result.size,
                    )

        if not wait:
            for _ in staged():
                pass
            return failed
        for fate in wait_for_outcomes(self.tracker(), staged(), timeout=self.timeout):
            self.app.out.record(fate)
            self.count(fate)
            if fate.fate != "archived":
                failed += 1
                self.write_failure(fate.key)
        return failed

    def count(self, fate: Fate) -> None:
        self.outcomes[fate.fate] += 1
        error = f"{fate.error.type}: {fate.error.message}" if fate.error else fate.detail
        group = fate.fate, None if fate.fate == "archived" else error
        if group not in self.groups and len(self.groups) >= _MOST_GROUPS:
            group = fate.fate, "many different errors"
        self.groups[group] += 1
        self.examples.setdefault(group, fate.key)

    def tracker(self) -> Tracker:
        from twobuckets.logs.waiting import Policy, Tracker, find_attempts

        app, pipeline = self.app, self.app.pipeline
        attempts = Policy().attempts
        if pipeline.function is not None:
            with contextlib.suppress(TwoBucketsError):
                # Without that permission: as often as Lambda tries unless told otherwise.
                attempts = find_attempts(app.aws.functions, pipeline.function)
        return Tracker(
            s3=app.aws.s3,
            staging=pipeline.staging,
            archive=pipeline.archive,
            logs=app.aws.logs if pipeline.log_group else None,
            log_group=pipeline.log_group,
            now=app.now,
            sleep=app.sleep,
            policy=Policy(attempts=attempts),
        )

    def write_failure(self, key: str) -> None:
        if self.failures is not None:
            self.failures.write(json.dumps({"type": "failure", "key": key}) + "\n")

    def finish(self) -> None:
        for (fate, error), objects in self.groups.most_common():
            example = self.examples[fate, error]
            self.app.out.record(OutcomeGroup(fate, error, objects, example))
        summary = _summary(self.journal, self.outcomes)
        bad = sum(self.outcomes.values()) - self.outcomes["archived"]
        self.app.finish(summary, attention=bool(summary.failed or summary.left or bad))
