"""Which objects a run is about: what was asked for, and what that means in the pipeline."""

from __future__ import annotations

import hashlib
import json
import sys
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from twobuckets.errors import TwoBucketsError, UsageError
from twobuckets.logs.events import iter_events
from twobuckets.logs.failures import UNREJECTED, find_failed
from twobuckets.logs.lines import OUTCOME_OR_FAILURE_PATTERN
from twobuckets.pipeline.versions import NO_VERSION
from twobuckets.pipeline.waking import is_ours
from twobuckets.processor.contract import stands_for_folder
from twobuckets.reprocess.plan import (
    Kind,
    Rules,
    iter_archived,
    iter_staged,
    keeps_versions,
    plan_keys,
    plan_listed,
    plan_staged,
)
from twobuckets.reprocess.run import limited
from twobuckets.reprocess.selection import Wanted, read_wanted
from twobuckets.s3.keys import require_key
from twobuckets.text import shell_word
from twobuckets.units import counted, format_instant

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from twobuckets.aws.clients import Aws
    from twobuckets.pipeline.versions import Version
    from twobuckets.reprocess.plan import Action
    from twobuckets.s3.engine import Sender
    from twobuckets.settings import Pipeline

_FAILED_SINCE: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the command line asks for; the same words are the same run."""

    keys: tuple[str, ...]
    prefix: str | None
    since: datetime | None
    until: datetime | None
    from_file: str | None
    failed: bool
    stuck: bool
    error: tuple[str, ...]
    outcome: tuple[str, ...]
    older_than: timedelta | None
    match: tuple[str, ...]
    limit: int | None
    version_id: str | None
    as_of: datetime | None
    restore: bool

    def require_one_source(self) -> None:
        """Raise UsageError unless exactly one option says where the keys come from, as text."""
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
        if (self.error or self.outcome) and not (self.failed or self.stuck):
            raise UsageError("--error and --outcome go with --failed or --stuck")
        if self.stuck and self.as_of is not None:
            raise UsageError("--as-of is about archived versions, and --stuck about staged ones")
        for key in (*self.keys, *([self.prefix] if self.prefix else [])):
            require_key(key)

    def rules(self) -> Rules:
        """Return what was asked for beside the keys."""
        # With --failed the time is that of the failures, not of archiving.
        return Rules(
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


_FOLDER: Final = "it is an empty object that stands for a folder; see processor.folders"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """Finds what is chosen in a pipeline; `warn` gets what a person should know of it."""

    aws: Aws
    sender: Sender
    pipeline: Pipeline
    now: Callable[[], datetime]
    stuck: Callable[[Choice], Iterator[tuple[Version, str | None]]]
    """Yields what is stuck in staging, and why it should not be woken, None where it may."""
    skips_folders: Callable[[], bool]
    """Tells whether the processor leaves objects alone that stand for folders."""
    warn: Callable[[str], None]

    def iter_actions(self, choice: Choice, unnamed: set[str]) -> Iterator[Action]:
        """Yield what to do with what is chosen.

        `unnamed` gets the invocations that failed without naming a file.
        """
        pipeline, sender = self.pipeline, self.sender
        rules = choice.rules()
        if choice.prefix is not None:
            actions = plan_listed(
                iter_archived(sender, pipeline.archive, choice.prefix),
                iter_staged(sender, pipeline.staging, choice.prefix),
                rules,
            )
        elif choice.stuck:
            actions = plan_staged(self.stuck(choice), rules)
        else:
            actions = plan_keys(
                sender,
                self._wanted(choice, unnamed),
                rules,
                staging=pipeline.staging,
                archive=pipeline.archive,
            )
        actions = self._without_folders(actions)
        return limited(self._without_unsafe(actions), choice.limit)

    def _without_folders(self, actions: Iterable[Action]) -> Iterator[Action]:
        """Yield actions, and skip objects that the processor would leave where they are."""
        skips: bool | None = None
        for action in actions:
            if action.kind is not Kind.SKIP and stands_for_folder(action.key, action.size):
                skips = self.skips_folders() if skips is None else skips
                if skips:
                    action = replace(action, kind=Kind.SKIP, reason=_FOLDER)
            yield action

    def _without_unsafe(self, actions: Iterable[Action]) -> Iterator[Action]:
        """Yield actions, and skip copies that could end over a newer file for good.

        A newer file may be archived in the instant before a copy arrives in staging. Our processor
        knows by the copy's origin note that it is older. Another one archives it, and only an
        archive that keeps versions has the newer file still.
        """
        unsafe: str | None = None
        for action in actions:
            if action.kind is Kind.COPY and action.version_id in NO_VERSION:
                unsafe = self._find_unsafe() if unsafe is None else unsafe
                if unsafe:
                    action = replace(action, kind=Kind.SKIP, reason=unsafe)
            yield action

    def _find_unsafe(self) -> str:
        """Return why what has no version id can't be copied back, "" where it can."""
        archive = self.pipeline.archive
        if keeps_versions(self.sender, archive):
            return ""
        if self.pipeline.function is not None:
            with suppress(TwoBucketsError):
                if is_ours(self.aws.functions, self.pipeline.function):
                    return ""
        return (
            f"{archive} keeps no versions, and this processor is not one of ours, which know by a "
            "note how old a copy is: a newer file that is archived meanwhile could be overwritten "
            f"for good. Switch versions on first: aws s3api put-bucket-versioning "
            f"--bucket {archive} --versioning-configuration Status=Enabled"
        )

    def _wanted(self, choice: Choice, unnamed: set[str]) -> Iterator[Wanted]:
        """Yield the keys that are meant, each once."""
        if choice.failed:
            yield from self._failed(choice, unnamed)
            return
        if choice.from_file is not None:
            with ExitStack() as stack:
                stream, name = _open_list(choice.from_file, stack)
                buckets = (self.pipeline.staging, self.pipeline.archive)
                yield from _once(read_wanted(stream, name=name, buckets=buckets))
            return
        yield from _once(Wanted(key, choice.version_id) for key in choice.keys)

    def _failed(self, choice: Choice, unnamed: set[str]) -> Iterator[Wanted]:
        group = self.pipeline.log_group
        if group is None:
            raise UsageError(
                "Could not find what failed: the processor's log group is not named",
                hint='Name it in twobuckets.toml: log_group = "/aws/lambda/…"',
            )
        events = iter_events(
            self.aws.logs,
            group,
            start_at=choice.since or self.now() - _FAILED_SINCE,
            end_at=choice.until,
            pattern=OUTCOME_OR_FAILURE_PATTERN,
        )
        kinds = choice.outcome or UNREJECTED
        for outcome in find_failed(events, unnamed, kinds=kinds, errors=choice.error):
            yield Wanted(outcome.key)
        if unnamed:
            self.warn(
                f"{counted(len(unnamed), 'invocation')} failed without saying on which file: "
                "`twobuckets reprocess --stuck` finds what they left in staging"
            )


def _open_list(path: str, stack: ExitStack) -> tuple[BinaryIO, str]:
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
