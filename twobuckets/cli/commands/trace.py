"""`twobuckets trace`: the whole life of a file."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

import click

from twobuckets.cli import command, completes
from twobuckets.cli.options import INSTANT
from twobuckets.cli.records import TracedKey, TraceSummary
from twobuckets.errors import ExitStatus, NotFoundError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from twobuckets.cli.app import App
    from twobuckets.reprocess.items import Item
    from twobuckets.reprocess.journals import RunStatus
    from twobuckets.s3.engine import Sender
    from twobuckets.trace.events import KeyHistory, TraceEvent
    from twobuckets.trace.looking import Histories
    from twobuckets.trace.present import TracedState

_SHORTEST_PAUSE: Final = 2.0
_LONGEST_PAUSE: Final = 10.0
_WITHOUT_CLOUDTRAIL: Final = (
    "Who put or deleted a version is not known here: S3 keeps no record of it; CloudTrail does, "
    "where its data events are on for the buckets"
)


@command("trace")
@click.argument(
    "keys",
    metavar="[KEY]...",
    nargs=-1,
    shell_complete=completes("staged_or_archived_keys"),
)
@click.option(
    "--prefix",
    metavar="TEXT",
    shell_complete=completes("staged_or_archived_keys"),
    help="All keys that begin with TEXT, instead of KEYs.",
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=20,
    show_default=True,
    help="The most keys to trace with --prefix.",
)
@click.option(
    "--version-id",
    metavar="ID",
    help="Only what happened to this version, staged or archived.",
)
@click.option(
    "--since",
    type=INSTANT,
    help="Search the log from this instant or age on.  [default: the first that S3 knows]",
)
@click.option("--follow", "-f", is_flag=True, help="Keep showing what happens, until Ctrl-C.")
@click.pass_obj
def trace(
    app: App,
    keys: tuple[str, ...],
    prefix: str | None,
    limit: int,
    version_id: str | None,
    since: datetime | None,
    follow: bool,
) -> None:
    """Show the whole life of a file, what is true of it now, and what happens next.

    In time order: when it was put into staging, every try of the processor with its duration, error
    and request, the archived versions and where they came from, what `reprocess` did with it from
    this machine, deletes, and uploads that were begun and not completed. S3 and the log are asked,
    in few requests however long the log is.

    Ends with status 3 when a file needs you, 4 when nothing is known of any.

    \b
      twobuckets trace in/report.csv
      twobuckets trace --prefix in/2026-05-04/ --limit 50
      twobuckets trace in/report.csv --follow
    """
    if bool(keys) == (prefix is not None):
        raise UsageError("Give the KEYs to trace, or --prefix")
    if version_id is not None and len(keys) != 1:
        raise UsageError("--version-id is about one KEY")
    tracer = _Tracer(app, since=since, version_id=version_id)
    with app.connect() as sender:
        has_more = False
        wanted = list(dict.fromkeys(keys))
        if prefix is not None:
            wanted, has_more = _find_keys(app, sender, prefix, limit)
        tracer.show(sender, wanted)
        pause = _SHORTEST_PAUSE
        while follow:
            app.sleep(pause)
            is_new = tracer.show(sender, wanted)
            pause = _SHORTEST_PAUSE if is_new else min(pause * 1.5, _LONGEST_PAUSE)
    if has_more:
        app.out.note(f"More keys begin with {prefix}; --limit shows more than {limit}")
    if tracer.events and not app.json:
        app.out.note(_WITHOUT_CLOUDTRAIL)
    tracer.finish(has_more=has_more)


def _find_keys(app: App, sender: Sender, prefix: str, limit: int) -> tuple[list[str], bool]:
    from twobuckets.trace.looking import find_keys_below

    buckets = dict.fromkeys((app.pipeline.staging, app.pipeline.archive))
    found, has_more = find_keys_below(sender, buckets, prefix, limit)
    if not found:
        raise NotFoundError(
            f"No key begins with {prefix}, in staging or the archive",
            hint="`twobuckets ls staging` and `twobuckets ls archive` show what is there.",
        )
    return found, has_more


class _Tracer:
    """Shows lives, and what is new of them when it is asked again."""

    def __init__(self, app: App, *, since: datetime | None, version_id: str | None) -> None:
        self.events = 0
        self._app = app
        self._since = since
        self._version_id = version_id
        self._shown: set[tuple[object, ...]] = set()
        self._states: dict[str, TracedState] = {}
        self._unread: set[str] = set()
        self._log_start_at: datetime | None = None

    def show(self, sender: Sender, keys: Sequence[str]) -> bool:
        """Show what is not shown yet; tell whether there was anything."""
        from twobuckets.pipeline.facts import Facts
        from twobuckets.pipeline.status import PartUnread
        from twobuckets.trace.looking import look_into
        from twobuckets.trace.present import Presence

        app = self._app
        facts = Facts(app.aws, app.pipeline, app.now(), runs_rules=not app.settings.is_local)
        found = look_into(facts, sender, keys, since=self._since)
        self._log_start_at = found.log_start_at
        for reason in found.unread:
            if str(reason) not in self._unread:
                self._unread.add(str(reason))
                app.out.record(PartUnread(reason.what, reason.reason, reason.permission))
        begun_here = _begun_here(app)
        presence = Presence(facts, program=app.program)
        is_new = False
        for life, events in self._iter_lives(found, begun_here):
            state = presence.of(life, events, begun_here=begun_here)
            is_new |= self._show_one(life.key, events, state)
        return is_new

    def _iter_lives(
        self, found: Histories, begun_here: Mapping[str, str]
    ) -> Iterator[tuple[KeyHistory, list[TraceEvent]]]:
        from twobuckets.trace.events import events_of

        app = self._app
        done_here: dict[str, list[TraceEvent]] = {}
        for event in _iter_reprocessed(app, [life.key for life in found.lives]):
            done_here.setdefault(event.key, []).append(event)
        for life in found.lives:
            yield (
                life,
                events_of(
                    life,
                    staging=app.pipeline.staging,
                    known=done_here.get(life.key, ()),
                    begun_here=begun_here,
                ),
            )

    def _show_one(self, key: str, events: Sequence[TraceEvent], state: TracedState) -> bool:
        from twobuckets.trace.events import of_version

        out = self._app.out
        if self._version_id is not None:
            events = of_version(events, self._version_id)
        new = [event for event in events if (key, *event.identity) not in self._shown]
        is_changed = self._states.get(key) != state
        if key not in self._states:
            out.record(TracedKey(key))
        for event in new:
            self._shown.add((key, *event.identity))
            out.record(event if self._app.json or self._app.verbosity else _brief(event))
        if is_changed:
            self._states[key] = state
            out.record(state)
        self.events += len(new)
        return bool(new) or is_changed

    def finish(self, *, has_more: bool) -> None:
        """End the command with the status that the states ask for."""
        needs_you = sum(state.needs_you for state in self._states.values())
        summary = TraceSummary(
            len(self._states), needs_you, self.events, self._log_start_at, has_more
        )
        self._app.finish(summary, attention=needs_you > 0)
        if not self.events and not self._unread:
            click.get_current_context().exit(ExitStatus.NOT_FOUND)
        if self._unread:
            click.get_current_context().exit(ExitStatus.ACCESS)


def _brief(event: TraceEvent) -> TraceEvent:
    """Return an event as a line: traces and checksums are shown with -v."""
    error = event.error
    return replace(event, checksums={}, error=None if error is None else error._replace(trace=""))


def _begun_here(app: App) -> dict[str, str]:
    """Return the files of incomplete uploads that were begun from this machine, by upload id."""
    from twobuckets.settings import state_directory
    from twobuckets.upload.journal import find_begun

    directory = state_directory(app.environ, "uploads")
    return {upload_id: begun.path for upload_id, begun in find_begun(directory).items()}


def _iter_reprocessed(app: App, keys: Sequence[str]) -> Iterator[TraceEvent]:
    """Yield what `reprocess` did with keys from this machine, as its journals have it."""
    from twobuckets.reprocess.journals import find_items
    from twobuckets.reprocess.opening import place_of
    from twobuckets.settings import state_directory

    found = find_items(
        state_directory(app.environ, "reprocess"),
        keys,
        place=place_of(app.aws.s3_address.url, app.pipeline),
        unusable=lambda error: app.out.warn(error.message),
    )
    for run, item in found:
        yield _of_item(run, item)


def _of_item(run: RunStatus, item: Item) -> TraceEvent:
    from datetime import UTC, datetime

    from twobuckets.trace.events import HERE, REPROCESS, TraceEvent

    # S3's clock tells when it began; what was left or failed before is told by the plan's time.
    began_at = item.began_at
    at = run.planned_at if began_at is None else datetime.fromtimestamp(began_at, UTC)
    says = f"{item.kind} {item.state}" + (f": {item.reason}" if item.reason else "")
    is_copy = item.kind == "copy"
    return TraceEvent(
        key=item.key,
        at=at,
        event=REPROCESS,
        place=HERE,
        version_id=item.staged_version_id if is_copy else item.version_id,
        archive_version_id=item.version_id if is_copy else None,
        etag=item.etag,
        size_bytes=item.size,
        detail=f"{says} (`{run.command}`)",
    )
