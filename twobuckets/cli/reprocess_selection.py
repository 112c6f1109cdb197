"""Which objects `reprocess` is asked for: the options, and what they select in the pipeline."""

from __future__ import annotations

import contextlib
import hashlib
import json
import sys
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from twobuckets.errors import AccessError, NotFoundError, TwoBucketsError, UsageError
from twobuckets.text import shell_word
from twobuckets.units import counted, format_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twobuckets.cli.app import App
    from twobuckets.doctor.staging import StagedObject
    from twobuckets.logs.lines import Outcome
    from twobuckets.reprocess.plan import Action, Found, Rules
    from twobuckets.reprocess.selection import Wanted
    from twobuckets.s3.engine import Sender

_FAILED_SINCE: Final = timedelta(days=1)


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
        """Raise UsageError unless exactly one option says where the keys come from, as text."""
        from twobuckets.s3.keys import require_key

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
        for key in (*self.keys, *([self.prefix] if self.prefix else [])):
            require_key(key)

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
        """Return the command in the words that ask for the same, now or later."""
        return " ".join(self._words(format_instant, lambda _: "…"))

    def fingerprint(self, place: str) -> str:
        """Return what is equal for equal requests about one pipeline.

        "--since 2h" an hour later is the same request: the run keeps the instant of its plan.
        """
        words = self._words(
            lambda instant: getattr(instant, "said", "") or format_instant(instant),
            # Unequal texts stay unequal, even where no shell has a word for them.
            json.dumps,
        )
        return hashlib.sha256(json.dumps([place, words]).encode()).hexdigest()

    def _words(
        self, write: Callable[[datetime], str], otherwise: Callable[[str], str]
    ) -> list[str]:
        def word(text: str) -> str:
            return shell_word(text, otherwise=otherwise(text))

        words = ["reprocess"]
        for name in self.__slots__:
            value = getattr(self, name)
            option = "--" + name.replace("_", "-")
            if name == "keys" or value is None or value is False or value == ():
                continue
            if value is True:
                words.append(option)
            elif isinstance(value, tuple):
                words += [f"{option} {word(item)}" for item in value]
            elif isinstance(value, timedelta):
                words.append(f"{option} {value.total_seconds():g}s")
            elif isinstance(value, datetime):
                words.append(f"{option} {word(write(value))}")
            else:
                words.append(f"{option} {word(str(value))}")
        if any(key.startswith("-") for key in self.keys):
            words.append("--")
        return words + [word(key) for key in self.keys]


def iter_actions(
    app: App, sender: Sender, selection: Selection, unnamed: set[str]
) -> Iterator[Action]:
    """Yield what to do with what is selected.

    `unnamed` gets the invocations that failed without naming a file.
    """
    from twobuckets.reprocess.plan import (
        iter_archived,
        iter_staged,
        keeps_versions,
        plan_keys,
        plan_listed,
        plan_staged,
    )
    from twobuckets.reprocess.run import limited

    pipeline = app.pipeline
    rules = selection.rules()
    keeps_why = None
    if not rules.keeps and not keeps_versions(sender, pipeline.staging):
        rules = replace(rules, keeps=True)
        keeps_why = (
            f"{pipeline.staging} keeps no versions, so what is copied there stays in the archive "
            "until the processor has replaced it: nothing else would be safe"
        )
    if selection.prefix is not None:
        actions = plan_listed(
            iter_archived(sender, pipeline.archive, selection.prefix),
            iter_staged(sender, pipeline.staging, selection.prefix),
            rules,
        )
    elif selection.stuck:
        actions = plan_staged(_stuck(app, selection.older_than), rules)
    else:
        actions = plan_keys(
            sender,
            _wanted(app, selection, unnamed),
            rules,
            staging=pipeline.staging,
            archive=pipeline.archive,
        )
    return _explained(app, limited(actions, selection.limit), keeps_why)


def _explained(app: App, actions: Iterable[Action], keeps_why: str | None) -> Iterator[Action]:
    """Yield actions, and say before the first copy why it is no move."""
    for action in actions:
        if keeps_why is not None and action.kind == "copy":
            app.out.note(keeps_why)
            keeps_why = None
        yield action


def _stuck(app: App, older_than: timedelta | None) -> Iterator[tuple[Found, str | None]]:
    """Yield what doctor finds stuck in staging, and why it should not be woken, None if it may."""
    from twobuckets.cli.commands.doctor import site_of
    from twobuckets.doctor.stuck import find_stuck, iter_wakeable
    from twobuckets.pipeline.lookups import CouldNotLook, Gone

    site = site_of(app, older_than=older_than)
    try:
        for finding in find_stuck(site):
            app.out.note(f"{finding.check}: {finding.count:,}. {finding.detail}")
    except Gone as gone:
        raise NotFoundError(
            f"Could not look for what is stuck: {gone.what} does not exist"
        ) from None
    except CouldNotLook as unseen:
        # Without the log it is known all the same what is stuck, only not why.
        if not site.stuck and unseen.permission is None:
            raise TwoBucketsError(str(unseen)) from None
        if not site.stuck:
            needs = f"The identity in use needs {unseen.permission}."
            raise AccessError(str(unseen), hint=needs) from None
        app.out.warn(str(unseen))
    for staged, reason in iter_wakeable(site):
        yield found_of(staged), reason


def found_of(staged: StagedObject) -> Found:
    """Return a staged object that doctor saw as what `reprocess` wakes."""
    from twobuckets.reprocess.plan import Found

    return Found(staged.key, staged.version_id, staged.etag, staged.size_bytes, staged.arrived_at)


def _wanted(app: App, selection: Selection, unnamed: set[str]) -> Iterator[Wanted]:
    """Yield the keys that are meant, each once."""
    from twobuckets.reprocess.selection import Wanted, read_wanted

    pipeline = app.pipeline
    if selection.failed:
        yield from (Wanted(outcome.key) for outcome in _failed(app, selection, unnamed))
        if unnamed:
            app.out.warn(
                f"{counted(len(unnamed), 'invocation')} failed without saying on which file: "
                "`twobuckets reprocess --stuck` finds what they left in staging"
            )
        return
    if selection.from_file is not None:
        with contextlib.ExitStack() as stack:
            stream, name = _open_list(selection.from_file, stack)
            buckets = (pipeline.staging, pipeline.archive)
            yield from _once(read_wanted(stream, name=name, buckets=buckets))
        return
    yield from _once(Wanted(key, selection.version_id) for key in selection.keys)


def _failed(app: App, selection: Selection, unnamed: set[str]) -> Iterator[Outcome]:
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
        ),
        unnamed,
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
