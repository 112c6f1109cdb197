"""Why objects are stuck, as far as the processor's log tells: one pass, the newest part first.

Evidence counts by identity. An outcome line names its object; where there is none, as with
processors that are not ours, the lines of an invocation that mention a key tell of it; and an
invocation that died without a word is of the key that the log names under its request id. Only
those of which nothing names a key are left to be told by time, as a guess. What is held for an
object is a reference to a cause that it shares.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import quote_plus

from twobuckets.errors import AccessError, CredentialsError, NotFoundError, TwoBucketsError
from twobuckets.logs.errors import (
    error_line,
    first_line,
    kind_of,
    without_key,
    without_varying,
)
from twobuckets.logs.events import iter_events
from twobuckets.logs.foreign import find_keys
from twobuckets.logs.lines import (
    NOT_LOADED,
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
from twobuckets.processor.contract import FAILED, MISSING, REJECTED, SUBMITTED, SUPERSEDED
from twobuckets.processor.refusals import KMS, OWN_KEY

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
    '?failed ?rejected ?superseded ?missing ?submitted ?"Task timed out" ?timeout '
    '?"Runtime exited" ?OutOfMemory ?errorType ?"Error Type" ?ERROR'
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
# A filter pattern has at most 1,024 characters, a request id 36 (CloudWatch Logs API reference,
# FilterLogEvents).
_IDS_A_PATTERN: Final = 24
_MOST_LOOKED_UP: Final = 480
_MOST_LOOKED_UP_EVENTS: Final = 200_000
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
# What S3 says to a processor of somebody else's that it refuses one object.
_READING: Final = re.compile(r"\b(?:Get|Head|Copy)Object operation\b|\bUploadPartCopy operation\b")
_OF_KMS: Final = re.compile(r"\(KMS\.|\bkms:")
_LEFT_CHECK: Final = "stuck-left"
JOB_CHECK: Final = "stuck-job"
# What somebody prints who catches an error, in Python's words and S3's.
_COMPLAINT: Final = re.compile(
    r"\b(?:ERROR|CRITICAL|FATAL|\w*Error|\w*Exception|error occurred|NoSuchKey|AccessDenied)\b"
)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why objects are stuck: the check that says so, and the error they have in common."""

    check: str
    error: str


class LastWord(NamedTuple):
    """The latest that was said of an object: when, why it failed, and in which try if that is told.

    After the last try, or where an invocation ended well, nothing more will come by itself.
    """

    at: datetime
    cause: Cause
    attempt: int | None
    ended_well: bool = False


@dataclass(slots=True)
class Nameless:
    """The tries of one request that died, and of which nothing says what they worked on.

    `never_ran` tells that the function's code could not be loaded: then the handler of no
    invocation ran, whatever it was for.
    """

    first_at: datetime
    last_at: datetime
    cause: Cause
    deaths: int
    never_ran: bool


@dataclass(slots=True)
class Evidence:
    """What the log tells: the last word of each object by its key, and what died without a name.

    `is_complete` tells whether all of it was read that could matter.
    """

    last_words: dict[str, LastWord] = field(default_factory=dict)
    nameless: list[Nameless] = field(default_factory=list)
    jobs: dict[str, tuple[str, datetime]] = field(default_factory=dict)
    """The job that has an object, by its key, and when it was submitted."""
    is_complete: bool = True
    _by_request: dict[str, Nameless] = field(default_factory=dict)
    # Where no line counts the tries, as of a queue's messages, each of which has its own request.
    _failures: Counter[str] = field(default_factory=Counter)
    # A request id → the object that the log names under it, "" for one that is not looked into.
    _named: dict[str, str] = field(default_factory=dict)
    _shared: dict[tuple[str, str], Cause] = field(default_factory=dict)

    def cause(self, check: str, error: str, key: str = "") -> Cause:
        """Return the one cause for all errors that differ in the key, numbers and ids only."""
        if check in (_FAILED_CHECK, _CHECKS[REJECTED]):
            check = _closed_check(error) or check
        error = without_key(key, error)
        signature = check, without_varying(error)
        return self._shared.setdefault(signature, Cause(check, error[:_ERROR_CHARACTERS]))

    def note(self, key: str, word: LastWord) -> None:
        """Keep the latest word of an object."""
        known = self.last_words.get(key)
        if known is None or word.at >= known.at:
            self.last_words[key] = word

    def note_job(self, key: str, job_id: str, at: datetime) -> None:
        """Keep the latest job of an object, and that it was the last word if it was."""
        if key not in self.jobs or at >= self.jobs[key][1]:
            self.jobs[key] = job_id, at
        self.note(key, LastWord(at, Cause(JOB_CHECK, job_id), None))

    def name(self, request_id: str | None, key: str) -> None:
        """Remember which object a request is about; one that is looked into is worth more."""
        if request_id is not None and (key or request_id not in self._named):
            self._named[request_id] = key

    def note_death(self, failed: FailedInvocation) -> None:
        """Keep an invocation that died without a word, of which other lines may tell the object."""
        never_ran = failed.reason == NOT_LOADED
        said = f"{failed.error.type}: {first_line(failed.error.message)}".strip(": ")
        cause = self.cause(_CHECKS.get(failed.reason, _FAILED_CHECK), said)
        request_id = failed.request_id or f"{failed.log_stream} {failed.logged_at}"
        known = self._by_request.get(request_id)
        at = failed.logged_at
        if known is None:
            self._by_request[request_id] = Nameless(at, at, cause, 1, never_ran)
            return
        known.deaths += 1
        known.first_at = min(known.first_at, at)
        if at >= known.last_at:
            known.last_at, known.cause, known.never_ran = at, cause, never_ran

    def of_request(self, request_id: str) -> Nameless:
        """Return what is known of a request that died."""
        return self._by_request[request_id]

    def unnamed_requests(self) -> list[str]:
        """Return the ids of the requests that died, and under which nothing is named so far."""
        return [request_id for request_id in self._by_request if request_id not in self._named]

    def settle(self) -> None:
        """Give each death to the object that its request names, and keep the rest by time."""
        for request_id, died in self._by_request.items():
            key = self._named.get(request_id)
            if key:
                known = self.last_words.get(key)
                tries = died.deaths + (known.attempt or 0 if known is not None else 0)
                self.note(key, LastWord(died.last_at, died.cause, tries))
            elif key is None:
                self.nameless.append(died)
        self.nameless.sort(key=lambda died: died.first_at)
        for key, failures in self._failures.items():
            word = self.last_words.get(key)
            if word is not None and (word.attempt or 0) < failures:
                self.last_words[key] = word._replace(attempt=failures)

    def count_failures(self, key: str, failures: int) -> None:
        """Add up how often invocations failed on an object."""
        self._failures[key] += failures


def read_evidence(site: Site, staged: Mapping[str, Version]) -> Evidence:
    """Return what the log tells of staged objects by their key.

    Raises CouldNotLook; a log group that does not exist tells nothing.
    """
    evidence = Evidence()
    if not staged:
        return evidence
    oldest_at = min(one.modified_at for one in staged.values()) - _CLOCK_TOLERANCE
    is_ours = site.function.is_ours
    cuts = _cuts(staged, site.retries)
    budget = itertools.count()
    try:
        for start_at, end_at in _slices(oldest_at, site.now):
            pattern = _PATTERN if is_ours else ""
            read = _events(site, start_at, end_at, pattern, cuts)
            _hear(_limited(site, read, budget), site, staged, evidence, is_ours=is_ours)
            if site.is_stopped or _is_told(evidence, staged, start_at):
                break
            if next(budget) >= MOST_EVENTS:
                evidence.is_complete = False
                break
        if not site.is_stopped and len(evidence.last_words) < len(staged):
            _look_up_names(site, staged, evidence, is_ours=is_ours)
    except NotFoundError:
        pass
    except CredentialsError:
        raise
    except AccessError as error:
        what = f"the log {site.function.log_group}"
        raise CouldNotLook(what, "access denied", "logs:FilterLogEvents") from error
    except TwoBucketsError as error:
        reason = error.message.partition(": ")[2] or error.message
        raise CouldNotLook(f"the log {site.function.log_group}", reason, None) from error
    evidence.settle()
    return evidence


def _is_told(evidence: Evidence, staged: Mapping[str, Version], read_from: datetime) -> bool:
    """Tell whether older lines can say no more: of nothing untold that was there before them."""
    return not any(
        one.modified_at - _CLOCK_TOLERANCE < read_from
        for key, one in staged.items()
        if key not in evidence.last_words
    )


def _look_up_names(
    site: Site, staged: Mapping[str, Version], evidence: Evidence, *, is_ours: bool
) -> None:
    """Look for the objects of requests that died, in whatever else was logged under their ids.

    A later try that ended well names its object in a line that is not read otherwise.
    """
    ids = evidence.unnamed_requests()[:_MOST_LOOKED_UP]
    budget = itertools.count()
    for first in range(0, len(ids), _IDS_A_PATTERN):
        asked = ids[first : first + _IDS_A_PATTERN]
        died = [evidence.of_request(request_id) for request_id in asked]
        start_at = min(one.first_at for one in died) - site.timeout
        end_at = max(one.last_at for one in died) + site.retries.lasts
        pattern = " ".join(f'?"{request_id}"' for request_id in asked)
        reader = EntryReader()
        wanted = set(asked)
        for event in _events(site, start_at, end_at, pattern, []):
            if site.is_stopped or next(budget) >= _MOST_LOOKED_UP_EVENTS:
                return
            entry = reader.read(event)
            if entry is None or entry.request_id not in wanted:
                continue
            if isinstance(entry, Outcome):
                evidence.name(entry.request_id, entry.key if entry.key in staged else "")
            elif not is_ours and isinstance(entry, LogLine):
                for key in find_keys([entry.message], staged):
                    evidence.name(entry.request_id, key)


def _slices(oldest_at: datetime, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Yield ranges of time back to the oldest, each longer than the one before it."""
    end_at, length = now + timedelta(minutes=1), _FIRST_SLICE
    while end_at > oldest_at:
        start_at = max(oldest_at, end_at - length)
        yield start_at, end_at
        end_at, length = start_at - timedelta(milliseconds=1), length * 4


def _cuts(staged: Mapping[str, Version], retries: Retries) -> list[datetime]:
    """Return instants between which about equally many lines are, as far as arrivals tell.

    Each try of an object writes a line, soon after the arrival or one of the pauses that follow.
    """
    step = max(1, len(staged) // _SAMPLED)
    arrivals = [one.modified_at for one in itertools.islice(staged.values(), 0, None, step)]
    tries = [retries.pause * number for number in range(min(retries.attempts or 1, _MOST_TRIES))]
    lines = sorted(arrived_at + pause for arrived_at in arrivals for pause in tries)
    apart = max(1, _LINES_A_READ // step)
    return list(dict.fromkeys(lines[apart::apart]))


def _events(
    site: Site, start_at: datetime, end_at: datetime, pattern: str, cuts: list[datetime]
) -> Iterator[LogEvent]:
    return iter_events(
        site.aws.logs,
        site.function.log_group,
        start_at=start_at,
        end_at=end_at,
        pattern=pattern,
        cuts=cuts,
    )


def _limited(
    site: Site, events: Iterator[LogEvent], budget: itertools.count[int]
) -> Iterator[LogEvent]:
    for event in events:
        yield event
        if next(budget) >= MOST_EVENTS or site.is_stopped:
            return


def _hear(
    events: Iterator[LogEvent],
    site: Site,
    staged: Mapping[str, Version],
    evidence: Evidence,
    *,
    is_ours: bool,
) -> None:
    if is_ours:
        _hear_outcomes(events, staged, evidence, staging=site.staging)
    else:
        _hear_anything(events, staged, evidence, staging=site.staging)


def _hear_outcomes(
    events: Iterator[LogEvent],
    staged: Mapping[str, Version],
    evidence: Evidence,
    *,
    staging: str,
) -> None:
    reader = EntryReader()
    for event in events:
        entry = reader.read(event)
        if isinstance(entry, Outcome):
            one = staged.get(entry.key)
            is_about = one is not None and _is_about(entry, one, staging)
            evidence.name(entry.request_id, entry.key if is_about else "")
            if is_about:
                _note_outcome(entry, evidence)
        elif isinstance(entry, FailedInvocation):
            evidence.note_death(entry)


def _note_outcome(outcome: Outcome, evidence: Evidence) -> None:
    if outcome.outcome == SUBMITTED and outcome.job_id is not None:
        evidence.note_job(outcome.key, outcome.job_id, outcome.logged_at)
        return
    if outcome.outcome not in (FAILED, REJECTED, SUPERSEDED, MISSING):
        return
    check = _CHECKS.get(kind_of(outcome), _FAILED_CHECK)
    cause = evidence.cause(check, error_line(outcome), outcome.key)
    ended_well = outcome.outcome != FAILED
    evidence.note(
        outcome.key, LastWord(outcome.logged_at, cause, outcome.attempt, ended_well=ended_well)
    )


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
    failed: list[FailedInvocation] = field(default_factory=list)
    is_over: bool = False
    last_at: datetime | None = None

    def add(self, text: str, at: datetime) -> None:
        self.last_at = at
        if self.characters < _HEARD_CHARACTERS:
            self.texts.append(text)
            self.characters += len(text)


def _hear_anything(
    events: Iterator[LogEvent],
    staged: Mapping[str, Version],
    evidence: Evidence,
    *,
    staging: str,
) -> None:
    odd = _odd_keys(staged)
    heard: OrderedDict[str, _Heard] = OrderedDict()
    reader = EntryReader()

    def attribute(request_id: str) -> None:
        _attribute(request_id, heard.pop(request_id), staged, odd, evidence, staging=staging)

    for event in events:
        entry = reader.read(event)
        if entry is None or entry.request_id is None:
            continue
        request_id = entry.request_id
        invocation = heard.setdefault(request_id, _Heard())
        _listen(entry, event.message, invocation)
        if isinstance(entry, InvocationReport) or len(heard) > _HEARD_INVOCATIONS:
            over = request_id if isinstance(entry, InvocationReport) else next(iter(heard))
            # A death is told after the report in text logs, before it in JSON ones: kept to the end
            # when the report says that there is one.
            if not isinstance(entry, InvocationReport) or entry.status == "success":
                attribute(over)
    for request_id in tuple(heard):
        attribute(request_id)


def _odd_keys(stuck: Iterable[str]) -> dict[str, re.Pattern[str]]:
    """Return what finds keys that lines can't be divided at; blanks alone tell nothing."""
    odd = (key for key in stuck if key.strip() and any(c in key for c in " \t\n'\""))
    return {
        key: re.compile(rf"(?<!\w){re.escape(key)}(?!\w)")
        for key in itertools.islice(odd, _ODD_KEYS)
    }


def _listen(entry: Entry, raw: str, invocation: _Heard) -> None:
    match entry:
        case FailedInvocation(error=error):
            invocation.failed.append(entry)
            invocation.reason = entry.reason
            invocation.error = f"{error.type}: {first_line(error.message)}".strip(": ")
            invocation.add(f"{error.message}\n{error.trace}", entry.logged_at)
        case LogLine(message=message, level=level):
            invocation.add(message, entry.logged_at)
            if not invocation.reason and level in _ERROR_LEVELS:
                invocation.error = _logged_error(raw) or first_line(message)
        case InvocationReport():
            invocation.is_over = True
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
    return f"{fields.get('errorType')}: {first_line(str(fields.get('errorMessage', '')))}"


def _raised(texts: list[str]) -> str:
    """Return the line that ends the last Python trace, which may be spread over events."""
    _, found, after = "\n".join(texts).rpartition(_TRACE)
    lines = after.splitlines()[1:] if found else []
    return next((line for line in lines if line and not line[0].isspace()), "")[:_ERROR_CHARACTERS]


def _attribute(
    request_id: str,
    invocation: _Heard,
    staged: Mapping[str, Version],
    odd: Mapping[str, re.Pattern[str]],
    evidence: Evidence,
    *,
    staging: str,
) -> None:
    at = invocation.last_at
    if at is None:
        return
    error = invocation.error
    if not invocation.reason:
        error = _raised(invocation.texts) or error
    keys = find_keys(invocation.texts, staged)
    keys.update(
        key
        for key, written in odd.items()
        if any(key in text and written.search(text) for text in invocation.texts)
    )
    if not keys and invocation.failed:
        for failed in invocation.failed:
            evidence.note_death(failed)
        if any(staging in text for text in invocation.texts):
            # It said what it worked on, and that is none of these.
            evidence.name(request_id, "")
    for key in keys:
        evidence.name(request_id, key)
        if at < staged[key].modified_at - _CLOCK_TOLERANCE:
            continue
        check = _CHECKS.get(invocation.reason, _FAILED_CHECK) if error else _LEFT_CHECK
        said = error or _complaint(invocation.texts, key, is_alone=len(keys) == 1)
        if check in (_FAILED_CHECK, _LEFT_CHECK) and _is_undecoded(key, said):
            check = "stuck-key"
        cause = evidence.cause(check, said, key)
        failures = len(invocation.failed)
        ended_well = invocation.is_over and not failures
        evidence.count_failures(key, failures)
        evidence.note(key, LastWord(at, cause, failures or None, ended_well=ended_well))


def _complaint(texts: list[str], key: str, *, is_alone: bool) -> str:
    """Return the last line that looks like an error about a key, "" if there is none.

    Where an invocation was about one key only (`is_alone`), it need not name it.
    """
    lines = [line.strip() for text in texts for line in text.splitlines()]
    complaints = [line for line in lines if _COMPLAINT.search(line)]
    about = [line for line in complaints if key in line or find_keys([line], {key})]
    return next(reversed(about or (complaints if is_alone else [])), "")[:_ERROR_CHARACTERS]


def _closed_check(error: str) -> str | None:
    """Return the check for an object that S3 refuses for its key, None for other errors."""
    is_read = _READING.search(error) is not None
    if OWN_KEY in error or (is_read and "form of Server Side Encryption" in error):
        return "stuck-own-key"
    if KMS in error or (is_read and _OF_KMS.search(error)):
        return "stuck-kms"
    return None


def _is_undecoded(key: str, error: str) -> bool:
    """Tell whether an error looks like a search for the key as S3's event encodes it."""
    return quote_plus(key, safe="/") != key and any(
        said in error for said in ("NoSuchKey", "404", "Not Found", "403", "AccessDenied")
    )
