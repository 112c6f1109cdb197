"""What became of files, with those that failed with the same error told together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from twobuckets.logs.errors import error_line, kind_of, pattern_of
from twobuckets.logs.lines import FailedInvocation, Outcome
from twobuckets.processor.contract import ARCHIVED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime

    from twobuckets.logs.lines import Entry

_EXAMPLES: Final = 3
_MOST_GROUPS: Final = 1_000
_OTHERS: Final = "many different errors"


@dataclass(frozen=True, slots=True)
class ErrorGroup:
    """Files that have an outcome and, but for keys, numbers and ids, an error in common.

    `outcome` is `archived`, `failed`, `rejected`, `timed-out`, `out-of-memory`, `superseded` or
    `missing`; `error` is None where nothing failed. `files` are counted once each, `tries` are the
    outcomes of this kind; of invocations that died without naming a file `files` counts requests.
    """

    outcome: str
    error: str | None
    files: int
    tries: int
    first_at: datetime
    last_at: datetime
    examples: tuple[str, ...]


@dataclass(slots=True)
class _Group:
    error: str | None
    first_at: datetime
    last_at: datetime
    files: set[int] = field(default_factory=set)
    tries: int = 0
    examples: list[str] = field(default_factory=list)


def group_outcomes(entries: Iterable[Entry]) -> list[ErrorGroup]:
    """Return what entries in time order tell, by outcome and error, the most files first.

    Holds a number for each file.
    """
    groups: dict[tuple[str, str], _Group] = {}
    for entry in entries:
        match entry:
            case Outcome():
                kind, example = kind_of(entry), entry.key
                line = None if entry.outcome == ARCHIVED else error_line(entry)
                file = hash((entry.key, entry.version_id, entry.etag))
            case FailedInvocation():
                kind, example = entry.reason, entry.request_id or entry.log_stream
                line = f"{entry.error.type}: {entry.error.message.partition(chr(10))[0]}"
                file = hash(example)
            case _:
                continue
        shared = pattern_of(line) if line is not None else ""
        if (kind, shared) not in groups and len(groups) >= _MOST_GROUPS:
            line = shared = _OTHERS
        at = entry.logged_at
        group = groups.setdefault((kind, shared), _Group(line, at, at))
        group.last_at = max(group.last_at, at)
        group.tries += 1
        if file not in group.files:
            group.files.add(file)
            if len(group.examples) < _EXAMPLES:
                group.examples.append(example)
    return [
        ErrorGroup(
            outcome=kind,
            error=group.error,
            files=len(group.files),
            tries=group.tries,
            first_at=group.first_at,
            last_at=group.last_at,
            examples=tuple(group.examples),
        )
        for (kind, _), group in sorted(groups.items(), key=lambda item: -len(item[1].files))
    ]


def iter_final(entries: Iterable[Entry]) -> Iterator[Outcome | FailedInvocation]:
    """Yield the last word on each file, in time order; of a request that named no file, on that.

    What a request died of is no last word once a later try of it names its file.
    """
    last: dict[object, Outcome | FailedInvocation] = {}
    for entry in entries:
        match entry:
            case Outcome():
                file = entry.key, entry.version_id, entry.etag
                last.pop(file, None)
                last[file] = entry
                last.pop(entry.request_id, None)
            case FailedInvocation():
                request = entry.request_id or entry.log_stream
                last.pop(request, None)
                last[request] = entry
    # What is said of a file last stands at its end.
    yield from last.values()
