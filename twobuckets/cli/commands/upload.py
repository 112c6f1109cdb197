"""`twobuckets upload`: files into staging, resumable and verified."""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from twobuckets import settings as settings_
from twobuckets.cli import command, completes
from twobuckets.cli.options import DURATION, SIZE, dry_run_option, failed_to_option
from twobuckets.cli.output import FEW
from twobuckets.cli.views.progress import Ticks, upload_progress
from twobuckets.errors import UsageError
from twobuckets.lists import FailureList
from twobuckets.text import shell_word, visible
from twobuckets.units import counted, format_instant
from twobuckets.upload.files import STDIN, Failed, File, Selection, find_files
from twobuckets.upload.initiator import find_initiator
from twobuckets.upload.journal import UploadJournal
from twobuckets.upload.listed import read_listed
from twobuckets.upload.parts import count_parts_in_flight, require_part_bytes
from twobuckets.upload.plan import plan
from twobuckets.upload.run import Resume, Uploaded, UploadOptions, UploadRun, Warned
from twobuckets.upload.send import (
    Begun,
    Discarded,
    DiscardSummary,
    Upload,
    UploadSummary,
    discard_kept,
    drop,
    find_kept,
)
from twobuckets.upload.sent import Sent, SentBefore, open_sent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from datetime import timedelta

    from twobuckets.cli.app import App
    from twobuckets.logs.waiting import Fate
    from twobuckets.upload.unfinished import Kept


@command("upload")
@click.argument("paths", metavar="PATH...", nargs=-1, shell_complete=completes("files"))
@click.option("--key", help="The object's key, for a single file.")
@click.option(
    "--prefix",
    default="",
    shell_complete=completes("listed_keys"),
    help="Text that begins every key, as it is.",
)
@click.option("--recursive", "-r", is_flag=True, help="Upload the files in folders as well.")
@click.option("--include", multiple=True, metavar="GLOB", help="Only files of a folder that match.")
@click.option("--exclude", multiple=True, metavar="GLOB", help="No files or folders that match.")
@click.option("--hidden/--no-hidden", default=True, help="Include names that begin with a dot.")
@click.option(
    "--follow-symlinks/--no-follow-symlinks", default=True, help="Follow links found in folders."
)
@click.option(
    "--from-file",
    metavar="FILE",
    shell_complete=completes("files"),
    help="Also upload the files that FILE lists.",
)
@click.option("--content-type", metavar="TYPE", help="[default: from the file's name]")
@click.option("--no-overwrite", is_flag=True, help="Fail for keys that are already in staging.")
@click.option("--resume/--no-resume", default=True, help="Continue an interrupted upload.")
@click.option(
    "--restart", is_flag=True, help="Drop what an interrupted upload left and start over."
)
@click.option(
    "--concurrency", type=click.IntRange(1, 1000), help="Most requests in flight at a time."
)
@click.option("--part-size", type=SIZE, help="[default: 8 MiB, more for huge files]")
@click.option("--bandwidth-limit", type=SIZE, metavar="SIZE", help="Most bytes per second.")
@click.option(
    "--remember",
    type=DURATION,
    default="7d",
    show_default=True,
    help="How long an interrupted upload can be continued.",
)
@failed_to_option
@click.option("--discard", is_flag=True, help="Drop what interrupted uploads left; upload nothing.")
@click.option("--wait", is_flag=True, help="Wait until each file is archived or has failed.")
@click.option(
    "--timeout", type=DURATION, default="15m", show_default=True, help="How long to wait."
)
@dry_run_option
@click.pass_obj
def upload(
    app: App,
    paths: tuple[str, ...],
    key: str | None,
    prefix: str,
    recursive: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    hidden: bool,
    follow_symlinks: bool,
    from_file: str | None,
    content_type: str | None,
    no_overwrite: bool,
    resume: bool,
    restart: bool,
    concurrency: int | None,
    part_size: int | None,
    bandwidth_limit: int | None,
    remember: timedelta,
    failed_to: str | None,
    discard: bool,
    wait: bool,
    timeout: timedelta,
    dry_run: bool,
) -> None:
    """Upload files to staging: resumable, verified, many at once.

    PATH is a file, a folder with --recursive, or - for standard input. A file's key is --key, or
    --prefix and its name; in a folder, --prefix and its path from there. Links are followed.

    Run the same command again after an interruption, and it goes on where it stopped.

    \b
    twobuckets upload report.csv big.bin
    twobuckets upload photos --recursive --prefix photos/ --exclude '*.tmp'
    pg_dump db | twobuckets upload - --key db.dump
    """
    if not paths and from_file is None:
        raise UsageError("No files to upload are given", hint="Give files, folders or --from-file.")
    if part_size is not None:
        require_part_bytes(part_size)
    if restart and not resume:
        raise UsageError("--restart and --no-resume exclude each other")
    if bandwidth_limit == 0:
        raise UsageError("--bandwidth-limit 0 would never send anything")
    selection = Selection(include, exclude, hidden=hidden, follow_symlinks=follow_symlinks)

    twins = Twins(app)

    def find(on_twins: Callable[[str, str], None] | None = None) -> Iterator[File | Failed]:
        return find_files(
            paths,
            key=key,
            prefix=prefix,
            recursive=recursive,
            selection=selection,
            listed=read_listed(from_file) if from_file is not None else (),
            on_twins=on_twins,
        )

    files = find(twins.tell)
    many = recursive or from_file is not None or len(paths) > FEW
    if discard:
        _discard(app, files, dry_run=dry_run)
        return
    if dry_run:
        planned = plan(
            files, part_bytes=part_size, content_type=content_type, records=app.out.record
        )
        if not planned.planned and not planned.failed:
            _tell_nothing_found(app, include, exclude)
        app.finish(planned, attention=planned.failed > 0)
        return
    options = UploadOptions(
        bucket=app.pipeline.staging,
        content_type=content_type,
        overwrite=not no_overwrite,
        part_bytes=part_size,
        most_parts=count_parts_in_flight(
            concurrency, bytes_per_second=bandwidth_limit, part_bytes=part_size
        ),
        resume=Resume.RESTART if restart else Resume.CONTINUE if resume else Resume.IGNORE,
        prices=app.prices,
    )
    command_words = [
        *(app.aws.s3_address.url, options.bucket, [os.path.abspath(path) for path in paths]),
        *(key, prefix, recursive, include, exclude, hidden, follow_symlinks, content_type),
        None if from_file is None else os.path.abspath(from_file),
    ]
    with (
        FailureList(failed_to, app.out.warn) as failures,
        _remembering(app, command_words, remember, options.resume) as sent,
    ):
        fates = Fates(app, failures, many=many) if wait else None
        # A list on standard input can be read once only.
        counted_files = find() if from_file != STDIN else None
        summary = _upload(
            app,
            files,
            counted_files,
            options,
            concurrency,
            bandwidth_limit,
            failures,
            fates,
            sent,
            many=many,
        )
        if fates is not None:
            summary = replace(summary, outcomes=fates.wait(timeout))
        failures.complete()
        if not summary.failed:
            sent.forget()
    if summary.sent_before:
        total = summary.uploaded + summary.failed + summary.sent_before
        app.out.note(
            f"Sent {summary.uploaded:,} of {counted(total, 'file')}; "
            f"{summary.sent_before:,} were sent before"
        )
    if not summary.uploaded and not summary.failed and not summary.sent_before:
        _tell_nothing_found(app, include, exclude)
    unhappy = fates is not None and fates.ends.bad > 0
    app.finish(summary, attention=summary.failed > 0 or unhappy)


class Twins:
    """Warns of files whose names look the same and are not; of the first few by name."""

    MOST: Final = 5

    def __init__(self, app: App) -> None:
        self._app = app
        self._count = 0

    def tell(self, path: str, twin: str) -> None:
        """Warn of one pair."""
        self._count += 1
        if self._count > self.MOST:
            return
        more = "" if self._count < self.MOST else " There may be more; this is the last one named."
        self._app.out.warn(
            f"{visible(path)} is there twice, with its letters composed (NFC) and decomposed (NFD):"
            f" these become two keys that look the same.{more}"
        )


class Fates:
    """Shows what becomes of uploaded files, and lists what failed."""

    def __init__(self, app: App, failures: FailureList, *, many: bool) -> None:
        # Only who waits pays for all that reads the log.
        from twobuckets.logs.ends import follow_ends

        self.ends = follow_ends(
            app.aws, app.pipeline, now=app.now, sleep=app.sleep, tells_retries=True
        )
        self._app = app
        self._failures = failures
        self._many = many

    def follow(self, uploading: Upload) -> Iterator[Uploaded | Failed | Warned | SentBefore]:
        """Yield what the upload tells, and show what the processor made of it meanwhile."""
        from twobuckets.upload.following import Followed

        self._followed = Followed(uploading, self.ends, skips_folders=self._skips_folders)
        for record in self._followed:
            if isinstance(record, Uploaded | Failed | Warned | SentBefore):
                yield record
            else:
                self._show(record)

    def _skips_folders(self) -> bool:
        """Tell whether the processor is known to leave what stands for a folder in staging."""
        from twobuckets.pipeline.facts import Facts
        from twobuckets.pipeline.lookups import CouldNotLook

        function = Facts(self._app.aws, self._app.pipeline, self._app.now()).function
        try:
            return function.is_ours and function.skips_folders
        except CouldNotLook:
            return False

    def wait(self, timeout: timedelta) -> dict[str, int]:
        """Show the rest as it comes; return how many files had each fate."""
        files = counted(self.ends.waiting, "file")
        try:
            with self._app.out.waiting(f"Waiting for the processor: {files}"):
                for fate in self.ends.wait(timeout):
                    self._show(fate)
        except KeyboardInterrupt:
            files = counted(self.ends.waiting, "uploaded file is", "uploaded files are")
            self._app.out.note(f"Stopped waiting. {files} in S3 all the same; what comes of it:")
            self._app.out.note(f"{self._app.program} logs --follow")
            raise
        for problem in self.ends.problems:
            self._app.out.warn(f"{problem.message}; outcomes may be late or missing")
        return dict(self.ends.counts)

    def _show(self, fate: Fate) -> None:
        went_well = not fate.is_final or self.ends.is_good(fate)
        self._app.out.record(fate, went_well=went_well, many=self._many)
        if fate.is_final and (failed := self._followed.end(fate)) is not None:
            self._failures.add(failed)


def _upload(
    app: App,
    files: Iterable[File | Failed],
    counted_files: Iterable[File | Failed] | None,
    options: UploadOptions,
    concurrency: int | None,
    bandwidth_limit: int | None,
    failures: FailureList,
    fates: Fates | None,
    sent: Sent,
    *,
    many: bool,
) -> UploadSummary:
    """Send the files, and show what comes of each."""
    started_at = app.now()
    limits = {"most_bulk": options.most_bulk, "bytes_per_second": bandwidth_limit}
    if concurrency is not None:
        limits["most"] = concurrency
    with app.connect(**limits) as sender, upload_progress(app.out, counted_files) as progress:
        run = UploadRun(
            options,
            _open_journal(app, options.bucket),
            initiator=lambda: find_initiator(app.aws.sts),
            now=app.now,
            on_sent=progress.sent if progress is not None else None,
            sent=sent,
            sends_crc=not app.aws.s3_address.checks_when_required,
            keeps_conditions=app.aws.keeps_conditions,
        )
        uploading = Upload(
            sender,
            progress.count(files) if isinstance(progress, Ticks) else files,
            run,
            stdin=sys.stdin.buffer if hasattr(sys.stdin, "buffer") else None,
        )
        try:
            for record in uploading if fates is None else fates.follow(uploading):
                if isinstance(record, Warned):
                    app.out.warn(record.message)
                    continue
                if progress is not None:
                    progress.done(record)
                if isinstance(record, SentBefore):
                    continue
                if isinstance(record, Failed):
                    failures.add(record)
                went_well = isinstance(record, Uploaded) and not record.replaced
                app.out.record(record, went_well=went_well, many=many)
        except KeyboardInterrupt:
            count = uploading.summary(app.now() - started_at).uploaded
            app.out.note(f"Interrupted: {counted(count, 'file')} uploaded")
            raise
        finally:
            _tell_what_stays(app, uploading, options)
    return uploading.summary(app.now() - started_at)


@contextlib.contextmanager
def _remembering(
    app: App, words: Sequence[object], lifetime: timedelta, resume: Resume
) -> Iterator[Sent]:
    """Yield what this command has sent, and let the same command go on from it.

    Raises JournalError when there is something to go on from and it can't be read.
    """
    directory = settings_.state_directory(app.environ, "uploads")
    sent = open_sent(
        None if resume is Resume.IGNORE else directory,
        words,
        now=app.now(),
        lifetime=lifetime,
        restarts=resume is Resume.RESTART,
        warn=app.out.warn,
    )
    if sent.found:
        app.out.note(
            f"Going on with the upload of {format_instant(sent.began_at)}: what it sent and has "
            "not changed is not sent again; --restart sends it all"
        )
    with contextlib.closing(sent):
        yield sent


def _tell_what_stays(app: App, uploading: Upload, options: UploadOptions) -> None:
    for kept in uploading.kept():
        app.out.record(replace(kept, remedy=_drop_command(app, kept)))
    dropped = uploading.dropped()
    if dropped:
        with app.connect() as sender:
            for key, upload_id in drop(sender, options.bucket, dropped):
                app.out.warn(
                    f"The incomplete upload {upload_id} of {key} could not be dropped; "
                    "`twobuckets ls uploads` shows it"
                )


def _tell_nothing_found(app: App, include: Iterable[str], exclude: Iterable[str]) -> None:
    globs = [f"--include {shell_word(glob, otherwise=repr(glob))}" for glob in include]
    globs += [f"--exclude {shell_word(glob, otherwise=repr(glob))}" for glob in exclude]
    selected = f" ({' '.join(globs)})" if globs else ""
    app.out.warn(f"No files match{selected}; nothing was uploaded")


def _drop_command(app: App, kept: Kept) -> str:
    """Return the command that drops what is kept of this file under this key, and nothing else."""
    words = [app.program, "upload", "--discard"]
    if Path(kept.path).name != kept.key:
        words += ["--key", shell_word(kept.key, otherwise="KEY")]
    if kept.path.startswith("-"):
        words.append("--")
    return " ".join([*words, shell_word(kept.path, otherwise="FILE")])


def _discard(app: App, files: Iterable[File | Failed], *, dry_run: bool) -> None:
    """Drop the incomplete uploads that the journal knows of these files."""
    found = dropped = failed = 0
    bucket = app.pipeline.staging
    journal = _open_journal(app, bucket)
    with app.connect() as sender:
        records: Iterator[Begun | Discarded | Failed] = (
            find_kept(files, journal) if dry_run else discard_kept(sender, files, bucket, journal)
        )
        for record in records:
            found += not isinstance(record, Failed)
            dropped += isinstance(record, Discarded)
            failed += isinstance(record, Failed)
            app.out.record(record)
    if not found and not failed:
        app.out.note(
            "No incomplete upload of these files under these keys is known here; "
            "`twobuckets ls uploads` shows all there are"
        )
    app.finish(DiscardSummary(found, dropped, failed), attention=failed > 0)


def _open_journal(app: App, bucket: str) -> UploadJournal:
    endpoint = app.aws.s3_address.url
    directory = settings_.state_directory(app.environ, "uploads")
    try:
        return UploadJournal(directory, endpoint=endpoint, bucket=bucket)
    except OSError as error:
        app.out.warn(
            f"Interrupted uploads can't be remembered in {directory}: {error.strerror}; "
            "they may have to be sent again from the beginning"
        )
        return UploadJournal(None, endpoint=endpoint, bucket=bucket)
