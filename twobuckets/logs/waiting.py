"""What became of objects that were put into staging, told once for each, in few requests.

The processor's outcome lines are read as they come, all in one request a turn. Where there are
none, because the processor is not ours, the log can't be read, or a line is late or lost, S3 is
asked: an object that has left staging and is in the archive with the same ETag or size is
archived, whoever did it. Lambda's own words tell why an invocation of a foreign processor failed.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict, deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from twobuckets.errors import AccessError, CredentialsError, TwoBucketsError
from twobuckets.logs.events import Follower
from twobuckets.logs.hearing import EndedWell, FailedOn, Listener
from twobuckets.logs.lines import NOT_LOADED, FailedInvocation, Outcome
from twobuckets.logs.objects import CLOCK_TOLERANCE, AwaitedVersion, Whereabouts, find_whereabouts
from twobuckets.pipeline.retries import DEFAULT, Retries, of_job
from twobuckets.processor import contract
from twobuckets.processor.contract import (
    ARCHIVED,
    FAILED,
    MISSING,
    REJECTED,
    SUBMITTED,
    SUPERSEDED,
    Failure,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client

UNKNOWN: Final = "unknown"
"""The fate of an object of which nothing was heard until the time was up."""

# How long a later line may still correct what a first one said: the end of a record whose
# time-out was foretold, or the archiving that made the object's second event find it missing.
_SECOND_THOUGHT: Final = timedelta(seconds=3)
# How long an outcome line may take to explain what S3 shows already.
_LINE_DELAY: Final = timedelta(seconds=20)
_SHORTEST_LOG_PAUSE: Final = timedelta(milliseconds=500)
_LONGEST_LOG_PAUSE: Final = timedelta(seconds=5)
_SHORTEST_LOOK_PAUSE: Final = timedelta(seconds=2)
_LONGEST_LOOK_PAUSE: Final = timedelta(seconds=30)
# With outcome lines at hand S3 is only asked after what they did not tell.
_LATE: Final = timedelta(seconds=20)
_MOST_UNCLAIMED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of one staged object version.

    `fate` is `archived`, `failed`, `rejected`, `superseded`, `missing` or `unknown`. `is_final` is
    False for a failure that is tried again, and for `submitted`: a job has it. `bucket` and
    `archive_version_id` say where an archived object is, as far as that is known. `detail` says in
    words what `error` does not.
    """

    key: str
    version_id: str | None
    etag: str
    fate: str
    is_final: bool
    waited: timedelta
    attempts: int
    bucket: str | None
    archive_version_id: str | None
    error: Failure | None
    detail: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """When a failure is the end of the story.

    A failure is final at the last try (see `pipeline.retries`). `tells_retries` yields the failures
    before it as well, not final.
    """

    retries: Retries = DEFAULT
    tells_retries: bool = False


@dataclass(slots=True, eq=False)
class _Pending:
    """One version that is waited for, and what was heard of it so far."""

    staged: AwaitedVersion
    attempts: int = 0
    failed_at: datetime | None = None
    failure: Failure | None = None
    request_id: str | None = None
    # Of a file that a job has, its id and how long one try of it may take.
    job_id: str | None = None
    job_timeout: timedelta = timedelta()
    # The invocation logged an error and ended well: Lambda does not try again.
    is_swallowed: bool = False
    # When an invocation that named it was heard to have ended well, and the last that it wrote.
    ended_at: datetime | None = None
    last_words: str = ""
    # The fate it has unless something better is heard until then.
    likely: Fate | None = None
    settles_at: datetime | None = None


class _Pace:
    """When something is asked again: less and less often while nothing comes of it."""

    def __init__(self, shortest: timedelta, longest: timedelta) -> None:
        self.due_at: datetime | None = None
        self._shortest = shortest
        self._longest = longest
        self._pause = shortest

    def is_due(self, now: datetime) -> bool:
        return self.due_at is None or now >= self.due_at

    def put_off(self, now: datetime, *, was_fruitful: bool = False) -> None:
        self._pause = self._shortest if was_fruitful else min(self._pause * 1.5, self._longest)
        self.due_at = now + self._pause


class Tracker:
    """Follows objects through the pipeline."""

    def __init__(
        self,
        *,
        s3: S3Client,
        staging: str,
        archive: str,
        logs: CloudWatchLogsClient | None,
        log_group: str | None,
        now: Callable[[], datetime],
        sleep: Callable[[float], None],
        policy: Policy = Policy(),
    ) -> None:
        self.problems: list[TwoBucketsError] = []
        """What could not be read, each once; the rest still tells."""
        self._s3 = s3
        self._staging = staging
        self._archive = archive
        self._logs = logs
        self._log_group = log_group if logs is not None else None
        self._now = now
        self._sleep = sleep
        self._policy = policy
        self._added: deque[AwaitedVersion] = deque()
        # By key: a key rarely has more than one version on its way.
        self._pending: dict[str, list[_Pending]] = {}
        self._count = 0
        self._unclaimed: OrderedDict[str, list[Outcome]] = OrderedDict()
        self._unclaimed_count = 0
        self._likely: set[_Pending] = set()
        self._listener: Listener | None = None
        self._jobs_end_at = datetime.min.replace(tzinfo=UTC)
        self._unattributed: FailedInvocation | None = None
        # Requests for which no code could be loaded, and the versions that they are taken for.
        self._shared: dict[str, _Pending] = {}
        self._turns: deque[_Pending] = deque()
        self._looks_at_s3 = True
        self._log_pace = _Pace(_SHORTEST_LOG_PAUSE, _LONGEST_LOG_PAUSE)
        self._look_pace = _Pace(_SHORTEST_LOOK_PAUSE, _LONGEST_LOOK_PAUSE)

    def add(self, staged: AwaitedVersion) -> None:
        """Wait for one more version."""
        self._added.append(staged)

    @property
    def is_waiting(self) -> bool:
        """Tell whether the fate of something is still open."""
        return bool(self._count or self._added)

    def poll(self) -> Iterator[Fate]:
        """Yield what is known by now, asking AWS only where that is due.

        What AWS can't be asked is put into `problems`; it is not an error here. Raises
        CredentialsError when AWS takes the credentials no longer.
        """
        now = self._now()
        for line in self._take_in(now):
            yield from self._hear_outcome(line, now)
        if not self._count:
            return
        if self._log_group is not None and self._log_pace.is_due(now):
            was_fruitful = False
            for fate in self._read_log(now):
                was_fruitful = True
                yield fate
            self._log_pace.put_off(self._now(), was_fruitful=was_fruitful)
        if self._looks_at_s3 and self._look_pace.is_due(now):
            yield from self._look()
            self._look_pace.put_off(self._now())
        yield from self._settle_likely(self._now())

    def wait(self, timeout: timedelta) -> Iterator[Fate]:
        """Yield until every fate is known or `timeout` is over; then what is open is told as it is.

        For what a job has the time is over no sooner than one try of the job must be.
        An object that failed and was not seen again is `failed`, the others are `unknown`.
        """
        ends_at = self._now() + timeout
        while True:
            yield from self.poll()
            now = self._now()
            lasts_until = max(ends_at, self._jobs_end_at)
            if not self.is_waiting or now >= lasts_until:
                break
            self._sleep(max(0.05, (self._next_due_at(lasts_until) - now).total_seconds()))
        yield from self._give_up()

    def _next_due_at(self, ends_at: datetime) -> datetime:
        due = [ends_at]
        if self._log_group is not None and self._log_pace.due_at is not None:
            due.append(self._log_pace.due_at)
        if self._looks_at_s3 and self._look_pace.due_at is not None:
            due.append(self._look_pace.due_at)
        due += [p.settles_at for p in self._likely if p.settles_at is not None]
        return min(due)

    def _take_in(self, now: datetime) -> Iterator[Outcome]:
        """Begin to wait for what was added; yield the lines about it that were read before."""
        while self._added:
            staged = self._added.popleft()
            self._pending.setdefault(staged.key, []).append(_Pending(staged))
            self._count += 1
            early = self._unclaimed.pop(staged.key, [])
            self._unclaimed_count -= len(early)
            yield from early
            if self._listener is None and self._logs is not None and self._log_group is not None:
                # Versions that were uploaded side by side are added in any order.
                start_at = staged.uploaded_at - timedelta(minutes=1)
                follower = Follower(self._logs, self._log_group, start_at=start_at)
                self._listener = Listener(follower, self._pending)
            if self._look_pace.due_at is None:
                self._look_pace.due_at = now + _SHORTEST_LOOK_PAUSE

    # -- the log

    def _read_log(self, now: datetime) -> Iterator[Fate]:
        if self._listener is None:
            return
        try:
            for heard in self._listener.poll(now):
                match heard:
                    case Outcome():
                        yield from self._hear_outcome(heard, now)
                    case FailedOn():
                        yield from self._hear_failure(heard, now)
                    case EndedWell():
                        self._hear_end(heard, now)
        except CredentialsError:
            raise
        except AccessError as error:
            self.problems.append(error)
            self._log_group = None
        except TwoBucketsError as error:
            # The network comes back, or the time is up.
            self._note(error)

    def _hear_outcome(self, line: Outcome, now: datetime) -> Iterator[Fate]:
        for pending in self._pending.get(line.key, ()):
            if self._is_about(line, pending.staged):
                break
        else:
            self._keep_unclaimed(line)
            return
        pending.request_id = line.request_id
        match line.outcome:
            case contract.ARCHIVED:
                fate = self._fate(
                    pending,
                    ARCHIVED,
                    bucket=self._archive,
                    archive_version_id=line.archive_version_id,
                    detail=line.reason,
                )
                yield self._settle(pending, fate)
            case contract.REJECTED:
                fate = self._fate(pending, REJECTED, error=line.error, detail=line.reason)
                yield self._settle(pending, fate)
            case contract.FAILED:
                error = line.error or Failure("", line.reason or "")
                began_at = line.logged_at - (line.duration or timedelta())
                yield from self._fail(pending, error, began_at, line.logged_at, now)
            case contract.SUPERSEDED | contract.MISSING:
                fate = self._fate(pending, line.outcome, detail=line.reason)
                self._expect(pending, fate, now + _SECOND_THOUGHT)
            case contract.SUBMITTED if line.job_id is not None and line.job_id != pending.job_id:
                pending.job_id = line.job_id
                pending.job_timeout = line.job_timeout or timedelta()
                self._jobs_end_at = max(self._jobs_end_at, now + pending.job_timeout)
                if self._policy.tells_retries:
                    detail = f"the job {line.job_id} of AWS Batch has it"
                    yield self._fate(pending, SUBMITTED, is_final=False, detail=detail)

    def _keep_unclaimed(self, line: Outcome) -> None:
        """Remember a line about what may be added yet: processors can be quicker than callers."""
        self._unclaimed.setdefault(line.key, []).append(line)
        self._unclaimed_count += 1
        while self._unclaimed_count > _MOST_UNCLAIMED:
            _, oldest = self._unclaimed.popitem(last=False)
            self._unclaimed_count -= len(oldest)

    def _is_about(self, line: Outcome, staged: AwaitedVersion) -> bool:
        if line.bucket != self._staging:
            return False
        if staged.version_id is not None and line.version_id is not None:
            if staged.version_id != line.version_id:
                return False
            if line.outcome == ARCHIVED:
                return True
        elif line.etag is not None and line.etag != staged.etag.strip('"'):
            return False
        # The same content may have been here before.
        return line.logged_at >= staged.uploaded_at - CLOCK_TOLERANCE

    def _fail(
        self,
        pending: _Pending,
        error: Failure,
        began_at: datetime,
        failed_at: datetime,
        now: datetime,
    ) -> Iterator[Fate]:
        # A time-out that is foretold and then happens is told twice, but began once.
        if pending.failed_at is None or began_at > pending.failed_at:
            pending.attempts += 1
            is_new = True
        else:
            is_new = False
        pending.failed_at = failed_at
        pending.failure = error
        retries = self._policy.retries
        if pending.job_id is not None:
            retries = of_job(pending.job_timeout)
        if retries.is_last(pending.attempts):
            self._expect(pending, self._fate(pending, FAILED, error=error), now + _SECOND_THOUGHT)
        elif is_new and self._policy.tells_retries:
            yield self._fate(pending, FAILED, error=error, is_final=False)

    def _share_out(self, failed: FailedInvocation) -> _Pending | None:
        """Return a version that an invocation which never reached its handler may have been for.

        Nothing says which one it was, and for none of them the handler ran: each request is taken
        for the version whose turn it is, and its next tries for the same.
        """
        request_id = failed.request_id or ""
        known = self._shared.get(request_id)
        if known is not None:
            return known
        for _ in range(2):
            while self._turns:
                pending = self._turns.popleft()
                is_open = pending in self._pending.get(pending.staged.key, ())
                if is_open and failed.logged_at >= pending.staged.uploaded_at - CLOCK_TOLERANCE:
                    pending.request_id = failed.request_id
                    self._shared[request_id] = pending
                    return pending
            self._turns.extend(itertools.chain.from_iterable(self._pending.values()))
        return None

    def _hear_failure(self, heard: FailedOn, now: datetime) -> Iterator[Fate]:
        failed = heard.invocation
        if not heard.keys:
            self._unattributed = failed
            if failed.reason == NOT_LOADED and (pending := self._share_out(failed)) is not None:
                yield from self._fail(
                    pending, failed.error, failed.logged_at, failed.logged_at, now
                )
        for key in heard.keys:
            for pending in tuple(self._pending.get(key, ())):
                if failed.logged_at >= pending.staged.uploaded_at - CLOCK_TOLERANCE:
                    pending.request_id = failed.request_id
                    yield from self._fail(
                        pending, failed.error, failed.logged_at, failed.logged_at, now
                    )

    def _hear_end(self, heard: EndedWell, now: datetime) -> None:
        for key in heard.keys:
            for pending in self._pending[key]:
                if pending.job_id is not None:
                    # The invocation only submitted it.
                    continue
                pending.request_id = heard.request_id
                if heard.error is not None:
                    pending.failure = heard.error
                    pending.is_swallowed = True
                pending.ended_at, pending.last_words = now, heard.last_words

    # -- S3

    def _look(self) -> Iterator[Fate]:
        """Ask S3 for what the log has not told."""
        now = self._now()
        open_ = [
            pending
            for versions in self._pending.values()
            for pending in versions
            if pending.likely is None
            and (
                self._listener is None
                or not self._listener.has_outcome_lines
                or self._log_group is None
                or now - pending.staged.uploaded_at >= _LATE
            )
        ]
        if not open_:
            return
        try:
            places = find_whereabouts(
                self._s3, self._staging, self._archive, [p.staged for p in open_]
            )
        except CredentialsError:
            raise
        except AccessError as error:
            self.problems.append(error)
            self._looks_at_s3 = False
            return
        except TwoBucketsError as error:
            self._note(error)
            return
        looked = list(zip(open_, places, strict=True))
        for pending, place in looked:
            if place is Whereabouts.STAGING and pending.is_swallowed:
                detail = "the processor logged the error and ended well: Lambda does not try again"
                fate = self._fate(pending, FAILED, error=pending.failure, detail=detail)
                yield self._settle(pending, fate)
            elif (
                place is Whereabouts.STAGING
                and pending.ended_at is not None
                and now - pending.ended_at >= _LINE_DELAY
            ):
                detail = "an invocation named it, ended without an error and left it in staging: "
                fate = self._fate(pending, UNKNOWN, detail=detail + pending.last_words)
                yield self._settle(pending, fate)
        for pending, place in looked:
            match place:
                case Whereabouts.ARCHIVE:
                    fate = self._fate(pending, ARCHIVED, bucket=self._archive)
                    yield self._settle(pending, fate)
                case Whereabouts.REPLACED:
                    detail = "another version of the key is in staging now"
                    self._expect_line(pending, SUPERSEDED, detail, now)
                case Whereabouts.NOWHERE:
                    detail = "it has left staging and is not in the archive under its key"
                    self._expect_line(pending, MISSING, detail, now)

    def _expect_line(self, pending: _Pending, fate: str, detail: str, now: datetime) -> None:
        """Take what S3 shows for the fate, unless an outcome line explains it soon."""
        waits = _LINE_DELAY if self._log_group is not None else timedelta()
        self._expect(pending, self._fate(pending, fate, detail=detail), now + waits)

    # -- the end

    def _expect(self, pending: _Pending, fate: Fate, settles_at: datetime) -> None:
        pending.likely = fate
        pending.settles_at = settles_at
        self._likely.add(pending)

    def _settle_likely(self, now: datetime) -> Iterator[Fate]:
        due = [p for p in self._likely if p.settles_at is not None and p.settles_at <= now]
        for pending in due:
            assert pending.likely is not None
            yield self._settle(pending, pending.likely)

    def _give_up(self) -> Iterator[Fate]:
        if self.is_waiting:
            self._log_pace.due_at = self._look_pace.due_at = self._now()
            yield from self.poll()
        for pending in [p for versions in self._pending.values() for p in versions]:
            fate = pending.likely
            if fate is None and pending.failure is not None:
                detail = f"not tried again so far (attempt {pending.attempts})"
                fate = self._fate(pending, FAILED, error=pending.failure, detail=detail)
            elif fate is None and pending.job_id is not None:
                detail = f"the job {pending.job_id} of AWS Batch has it still, or died with it"
                fate = self._fate(pending, UNKNOWN, detail=detail)
            elif fate is None:
                fate = self._fate(pending, UNKNOWN, detail=self._what_is_known())
            yield self._settle(pending, fate)

    def _what_is_known(self) -> str:
        failed = self._unattributed
        if failed is None:
            return "nothing was heard of it in time"
        said = f"{failed.error.type}: {failed.error.message}".strip(": ")
        return (
            "nothing was heard of it in time; an invocation that may be the one "
            f"{'raised' if failed.reason == 'raised' else failed.reason.replace('-', ' ')}: {said}"
        )

    def _settle(self, pending: _Pending, fate: Fate) -> Fate:
        versions = self._pending[pending.staged.key]
        versions.remove(pending)
        if not versions:
            del self._pending[pending.staged.key]
        self._likely.discard(pending)
        self._count -= 1
        return fate

    def _fate(
        self,
        pending: _Pending,
        fate: str,
        *,
        is_final: bool = True,
        bucket: str | None = None,
        archive_version_id: str | None = None,
        error: Failure | None = None,
        detail: str | None = None,
    ) -> Fate:
        staged = pending.staged
        attempts = pending.attempts
        if fate in (ARCHIVED, REJECTED):
            attempts += 1
        return Fate(
            key=staged.key,
            version_id=staged.version_id,
            etag=staged.etag.strip('"'),
            fate=fate,
            is_final=is_final,
            waited=max(self._now() - staged.uploaded_at, timedelta()),
            attempts=attempts,
            bucket=bucket,
            archive_version_id=archive_version_id,
            error=error,
            detail=detail,
            request_id=pending.request_id,
        )

    def _note(self, error: TwoBucketsError) -> None:
        if all(error.message != known.message for known in self.problems):
            self.problems.append(error)
