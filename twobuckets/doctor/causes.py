"""Why objects are stuck, as far as the processor's log tells: one pass, the newest part first.

An outcome line names its object. Where there is none, as with processors that are not ours, the
lines of an invocation that mention a key tell of it. Invocations that died without a word about
any key are kept by time. What is held for an object is a reference to a cause that it shares.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

from twobuckets.errors import AccessError, NotFoundError, TwoBucketsError
from twobuckets.logs.events import iter_events
from twobuckets.logs.foreign import find_keys
from twobuckets.logs.lines import (
    OUT_OF_MEMORY,
    TIMED_OUT,
    EntryReader,
    FailedInvocation,
    InvocationReport,
    LogLine,
    Outcome,
    PlatformLine,
)
from twobuckets.pipeline.lookups import CouldNotLook
from twobuckets.processor.contract import FAILED, MISSING, REJECTED, SUPERSEDED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime

    from twobuckets.doctor.site import Site
    from twobuckets.logs.events import LogEvent
    from twobuckets.logs.lines import Entry
    from twobuckets.pipeline.retries import Retries
    from twobuckets.pipeline.versions import Version

MOST_EVENTS: Final = 1_000_000
"""How many log events are read at most, however many objects are stuck."""
# Everything but success, of our outcome lines and of Lambda's own words, as text or JSON.
_PATTERN: Final = (
    '?failed ?rejected ?superseded ?missing ?"Task timed out" ?timeout ?"Runtime exited" '
    "?OutOfMemory ?errorType ?ERROR"
)
_CLOCK_TOLERANCE: Final = timedelta(seconds=5)
_FIRST_SLICE: Final = timedelta(minutes=15)
# Three lines for each object are reckoned with, and mostly fewer are there: this makes parts of one
# to three pages of CloudWatch Logs, each 1 MB or some 1,400 outcome lines with their traces.
_LINES_A_READ: Final = 4_000
_MOST_TRIES: Final = 5
_SAMPLED: Final = 2_000
"""How many of the arrivals tell where in time the lines are."""
_HEARD_INVOCATIONS: Final = 10_000
_HEARD_CHARACTERS: Final = 20_000
_ODD_KEYS: Final = 200
_ERROR_CHARACTERS: Final = 300
_VARYING: Final = re.compile(r"0[xX][0-9a-fA-F]+|[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,})*|\d+")
# Keys that Python and URLs write as they are.
_WRITTEN_ALIKE: Final = re.compile(r"[A-Za-z0-9_.~/-]*")
_TRACE: Final = "Traceback (most recent call last):"
_ERROR_LEVELS: Final = frozenset({"ERROR", "CRITICAL", "FATAL"})
_CHECKS: Final = {
    REJECTED: "stuck-rejected",
    SUPERSEDED: "stuck-superseded",
    MISSING: "stuck-missed",
    TIMED_OUT: "stuck-timed-out",
    OUT_OF_MEMORY: "stuck-out-of-memory",
}
_FAILED_CHECK: Final = "stuck-failed"
_LEFT_CHECK: Final = "stuck-left"
# What somebody prints who catches an error, in Python's words and S3's.
_COMPLAINT: Final = re.compile(
    r"\b(?:ERROR|CRITICAL|FATAL|\w*Error|\w*Exception|error occurred|NoSuchKey|AccessDenied)\b"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why objects are stuck: the check that says so, and the error they have in common."""

    check: str
    error: str


@dataclass(frozen=True, slots=True)
class Death:
    """An invocation that ended badly and of which nothing says what it worked on."""

    died_at: datetime
    cause: Cause


@dataclass(slots=True)
class Told:
    """What the log told: a cause for each object by its key, and deaths without one.

    `is_complete` tells whether all of it was read that could matter.
    """

    causes: dict[str, tuple[datetime, Cause]] = field(default_factory=dict)
    deaths: list[Death] = field(default_factory=list)
    is_complete: bool = True
    _shared: dict[tuple[str, str], Cause] = field(default_factory=dict)

    def cause(self, check: str, error: str, key: str = "") -> Cause:
        """Return the one cause for all errors that differ in the key, numbers and ids only."""
        error = _without(key, error)
        signature = check, _VARYING.sub("#", error)
        return self._shared.setdefault(signature, Cause(check, error[:_ERROR_CHARACTERS]))

    def note(self, key: str, at: datetime, cause: Cause) -> None:
        """Keep the latest cause of an object."""
        known = self.causes.get(key)
        if known is None or at >= known[0]:
            self.causes[key] = at, cause


def _without(key: str, text: str) -> str:
    """Return a text with a placeholder where it names a key, as it is, quoted or in a URL."""
    text = _without_word(key, text)
    if _WRITTEN_ALIKE.fullmatch(key):
        return text
    for written in (repr(key)[1:-1], quote(key), quote_plus(key, safe="/")):
        text = _without_word(written, text)
    return text


def _without_word(word: str, text: str) -> str:
    if not word or word not in text:
        return text
    whole, *parts = text.split(word)
    for part in parts:
        inside = whole[-1:].isalnum() or part[:1].isalnum()
        whole += (word if inside else "…") + part
    return whole


def read_causes(site: Site, stuck: Mapping[str, Version]) -> Told:
    """Return what the log tells of stuck objects by their key.

    Raises CouldNotLook; a log group that does not exist tells nothing.
    """
    told = Told()
    if not stuck:
        return told
    oldest_at = min(staged.modified_at for staged in stuck.values()) - _CLOCK_TOLERANCE
    is_ours = site.function.is_ours
    cuts = _cuts(stuck, site.retries)
    budget = itertools.count()
    for start_at, end_at in _slices(oldest_at, site.now):
        events = _limited(site, _events(site, start_at, end_at, cuts, is_ours), budget)
        try:
            if is_ours:
                _hear_outcomes(events, stuck, told, staging=site.staging)
            else:
                _hear_anything(events, stuck, told)
        except NotFoundError:
            break
        except AccessError as error:
            what = f"the log {site.function.log_group}"
            raise CouldNotLook(what, "access denied", "logs:FilterLogEvents") from error
        except TwoBucketsError as error:
            reason = error.message.partition(": ")[2] or error.message
            raise CouldNotLook(f"the log {site.function.log_group}", reason, None) from error
        if site.is_stopped or len(told.causes) == len(stuck):
            break
        if next(budget) >= MOST_EVENTS:
            told.is_complete = False
            break
    told.deaths.sort(key=lambda death: death.died_at)
    return told


def _slices(oldest_at: datetime, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield ranges of time back to the oldest, each longer than the one before it."""
    end_at, length = now + timedelta(minutes=1), _FIRST_SLICE
    while end_at > oldest_at:
        start_at = max(oldest_at, end_at - length)
        yield start_at, end_at
        end_at, length = start_at - timedelta(milliseconds=1), length * 4


def _cuts(stuck: Mapping[str, Version], retries: Retries) -> list[datetime]:
    """Return instants between which about equally many lines are, as far as arrivals tell.

    Each try of an object writes a line, soon after the arrival or one of the pauses that follow.
    """
    step = max(1, len(stuck) // _SAMPLED)
    arrivals = [staged.modified_at for staged in itertools.islice(stuck.values(), 0, None, step)]
    tries = [retries.pause * number for number in range(min(retries.attempts or 1, _MOST_TRIES))]
    lines = sorted(arrived_at + pause for arrived_at in arrivals for pause in tries)
    apart = max(1, _LINES_A_READ // step)
    return list(dict.fromkeys(lines[apart::apart]))


def _events(
    site: Site, start_at: datetime, end_at: datetime, cuts: list[datetime], is_ours: bool
) -> Iterator[LogEvent]:
    return iter_events(
        site.aws.logs,
        site.function.log_group,
        start_at=start_at,
        end_at=end_at,
        pattern=_PATTERN if is_ours else "",
        cuts=cuts,
    )


def _limited(
    site: Site, events: Iterator[LogEvent], budget: itertools.count[int]
) -> Iterator[LogEvent]:
    for event in events:
        yield event
        if next(budget) >= MOST_EVENTS or site.is_stopped:
            return


def _hear_outcomes(
    events: Iterator[LogEvent], stuck: Mapping[str, Version], told: Told, *, staging: str
) -> None:
    reader = EntryReader()
    for event in events:
        entry = reader.read(event)
        if isinstance(entry, Outcome):
            staged = stuck.get(entry.key)
            if staged is not None and _is_about(entry, staged, staging):
                _note_outcome(entry, told)
        elif isinstance(entry, FailedInvocation):
            _note_death(entry, told)


def _note_outcome(outcome: Outcome, told: Told) -> None:
    if outcome.outcome not in (FAILED, REJECTED, SUPERSEDED, MISSING):
        return
    error = outcome.error
    if error is None:
        said, kind = outcome.reason or outcome.outcome, outcome.outcome
    else:
        message = _first_line(_without(outcome.key, error.message))
        said = f"{error.type}: {message}".strip(": ")
        kind = outcome.outcome
        if error.type == "MemoryError":
            kind = OUT_OF_MEMORY
        elif "imeout" in error.type or "TimedOut" in error.type or "time-out" in error.message:
            kind = TIMED_OUT if kind == FAILED else kind
    check = _CHECKS.get(kind, _FAILED_CHECK)
    told.note(outcome.key, outcome.logged_at, told.cause(check, said, outcome.key))


def _note_death(failed: FailedInvocation, told: Told) -> None:
    said = f"{failed.error.type}: {_first_line(failed.error.message)}".strip(": ")
    check = _CHECKS.get(failed.reason, _FAILED_CHECK)
    told.deaths.append(Death(failed.logged_at, told.cause(check, said)))


def _is_about(outcome: Outcome, staged: Version, staging: str) -> bool:
    if outcome.bucket != staging:
        return False
    if staged.version_id is not None and outcome.version_id is not None:
        return staged.version_id == outcome.version_id
    if outcome.etag is not None and outcome.etag != staged.etag:
        return False
    # The same content may have been here before.
    return outcome.logged_at >= staged.modified_at - _CLOCK_TOLERANCE


@dataclass(slots=True)
class _Heard:
    """What one invocation of somebody else's processor said."""

    texts: list[str] = field(default_factory=list)
    characters: int = 0
    error: str = ""
    reason: str = ""
    last_at: datetime | None = None

    def add(self, text: str, at: datetime) -> None:
        self.last_at = at
        if self.characters < _HEARD_CHARACTERS:
            self.texts.append(text)
            self.characters += len(text)


def _hear_anything(events: Iterator[LogEvent], stuck: Mapping[str, Version], told: Told) -> None:
    odd = _odd_keys(stuck)
    heard: OrderedDict[str, _Heard] = OrderedDict()
    reader = EntryReader()
    for event in events:
        entry = reader.read(event)
        if entry is None or entry.request_id is None:
            continue
        request_id = entry.request_id
        invocation = heard.setdefault(request_id, _Heard())
        _hear(entry, event.message, invocation)
        if isinstance(entry, InvocationReport) or len(heard) > _HEARD_INVOCATIONS:
            over = request_id if isinstance(entry, InvocationReport) else next(iter(heard))
            # A death is told after the report in text logs, before it in JSON ones: kept to the end
            # when the report says that there is one.
            if not isinstance(entry, InvocationReport) or entry.status == "success":
                _attribute(heard.pop(over), stuck, odd, told)
    for invocation in heard.values():
        _attribute(invocation, stuck, odd, told)


def _odd_keys(stuck: Iterable[str]) -> dict[str, re.Pattern[str]]:
    """Return what finds keys that lines can't be divided at; blanks alone tell nothing."""
    odd = (key for key in stuck if key.strip() and any(c in key for c in " \t\n'\""))
    return {
        key: re.compile(rf"(?<!\w){re.escape(key)}(?!\w)")
        for key in itertools.islice(odd, _ODD_KEYS)
    }


def _hear(entry: Entry, raw: str, invocation: _Heard) -> None:
    match entry:
        case FailedInvocation(error=error):
            invocation.reason = entry.reason
            invocation.error = f"{error.type}: {_first_line(error.message)}".strip(": ")
            invocation.add(f"{error.message}\n{error.trace}", entry.logged_at)
        case LogLine(message=message, level=level):
            invocation.add(message, entry.logged_at)
            if not invocation.reason and level in _ERROR_LEVELS:
                invocation.error = _logged_error(raw) or _first_line(message)
        case PlatformLine():
            invocation.last_at = entry.logged_at


def _logged_error(raw: str) -> str:
    """Return the exception that Lambda's JSON log holds beside a message, "" if there is none."""
    if not raw.startswith("{") or '"errorType"' not in raw:
        return ""
    try:
        fields = json.loads(raw)
    except ValueError:
        return ""
    return f"{fields.get('errorType')}: {_first_line(str(fields.get('errorMessage', '')))}"


def _raised(texts: list[str]) -> str:
    """Return the line that ends the last Python trace, which may be spread over events."""
    _, found, after = "\n".join(texts).rpartition(_TRACE)
    lines = after.splitlines()[1:] if found else []
    return next((line for line in lines if line and not line[0].isspace()), "")[:_ERROR_CHARACTERS]


def _attribute(
    invocation: _Heard,
    stuck: Mapping[str, Version],
    odd: Mapping[str, re.Pattern[str]],
    told: Told,
) -> None:
    at = invocation.last_at
    if at is None:
        return
    error = invocation.error
    if not invocation.reason:
        error = _raised(invocation.texts) or error
    keys = find_keys(invocation.texts, stuck)
    keys.update(
        key
        for key, written in odd.items()
        if any(key in text and written.search(text) for text in invocation.texts)
    )
    if not keys and invocation.reason:
        check = _CHECKS.get(invocation.reason, _FAILED_CHECK)
        told.deaths.append(Death(at, told.cause(check, error)))
    for key in keys:
        if at < stuck[key].modified_at - _CLOCK_TOLERANCE:
            continue
        check = _CHECKS.get(invocation.reason, _FAILED_CHECK) if error else _LEFT_CHECK
        said = error or _complaint(invocation.texts, key, is_alone=len(keys) == 1)
        if check in (_FAILED_CHECK, _LEFT_CHECK) and _is_undecoded(key, said):
            check = "stuck-key"
        told.note(key, at, told.cause(check, said, key))


def _complaint(texts: list[str], key: str, *, is_alone: bool) -> str:
    """Return the last line that looks like an error about a key, "" if there is none.

    Where an invocation was about one key only (`is_alone`), it need not name it.
    """
    lines = [line.strip() for text in texts for line in text.splitlines()]
    complaints = [line for line in lines if _COMPLAINT.search(line)]
    about = [line for line in complaints if key in line or find_keys([line], {key})]
    return next(reversed(about or (complaints if is_alone else [])), "")[:_ERROR_CHARACTERS]


def _is_undecoded(key: str, error: str) -> bool:
    """Tell whether an error looks like a search for the key as S3's event encodes it."""
    return quote_plus(key, safe="/") != key and any(
        said in error for said in ("NoSuchKey", "404", "Not Found", "403", "AccessDenied")
    )


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0][:_ERROR_CHARACTERS]
