"""Sends a probe, waits for it, and times each stage of its way."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar, Final

from twobuckets.errors import TwoBucketsError, UsageError
from twobuckets.logs.ends import follow_ends
from twobuckets.logs.events import iter_events
from twobuckets.logs.lines import InvocationStart, Outcome, parse_entry
from twobuckets.logs.objects import AwaitedVersion
from twobuckets.pipeline.conversation import checked, hold
from twobuckets.pipeline.lookups import CouldNotLook
from twobuckets.probe.cleaning import find_leftovers, remove_probe
from twobuckets.processor.contract import (
    ARCHIVED,
    PROBE_MARK,
    PROBE_PREFIX,
    PROBES,
    PROBES_KNOWN,
    Failure,
)
from twobuckets.s3.engine import Response
from twobuckets.s3.operations import put_object, read_date, read_etag, read_version_id
from twobuckets.s3.refusals import explain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twobuckets.logs.waiting import Fate
    from twobuckets.pipeline.conversation import Talk
    from twobuckets.pipeline.facts import Facts
    from twobuckets.s3.engine import Sender

SIGNED: Final = "signed"
STORED: Final = "stored"
TOLD: Final = "told"
STARTED: Final = "started"
SEEN: Final = "seen"

_LEFT_AFTER: Final = timedelta(hours=1)
_SKEWED_FROM: Final = timedelta(seconds=2)
# A line may take some seconds to be found by a search.
_LINE_TRIES: Final = 10
_LINE_PAUSE: Final = 1.0


@dataclass(frozen=True, slots=True)
class ProbeStage:
    """One stage of a probe's way, and how long it took after the one before.

    `stage` is `signed` (credentials were there), `stored` (S3 has it), `told` (Lambda began an
    invocation), `started` (the processor turned to it), `archived` (the processor was done) or
    `seen` (from here). What the log does not tell is left out.
    """

    stage: str
    at: datetime
    took: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSummary:
    """How a probe ended: its fate as `upload --wait` has it, and whether all of it was removed.

    `kept_because` says why something was left in a bucket, null where nothing was; `removed` are
    the versions that were deleted, those of `leftovers`, earlier probes that were cut short, among
    them. `skew` is how far this machine's clock is behind S3's where that is worth telling.
    """

    type_name: ClassVar[str] = "summary"
    key: str
    fate: str
    arrived: bool
    took: timedelta
    version_id: str | None
    archive_version_id: str | None
    request_id: str | None
    error: Failure | None
    detail: str | None
    removed: int
    leftovers: int
    kept_because: str | None
    skew: timedelta | None


def require_known(facts: Facts, key: str) -> None:
    """Raise UsageError where a probe would reach the user's code, or could never arrive.

    Raises CouldNotLook where that can't be told.
    """
    if facts.pipeline.function is None:
        raise UsageError(
            "The pipeline's function is not known, so nothing says that it tells probes from files",
            hint="Name function in twobuckets.toml, or set TWOBUCKETS_FUNCTION.",
        )
    if not facts.function.is_ours:
        raise UsageError(
            f"The processor {facts.function.name} is not one of ours: it would process a probe "
            "like any file",
            hint="Upload a file that it can take, with `twobuckets upload FILE --wait`.",
        )
    if facts.function.variables().get(PROBES) != PROBES_KNOWN:
        raise UsageError(
            f"The code of {facts.function.name} does not say that it keeps probes from process()",
            hint="Deploy it again with this release: `twobuckets deploy`.",
        )
    routes = facts.routes_to_function()
    if routes and not any(route.tells_of(key) for route in routes):
        raise UsageError(
            f"The notification's filter leaves out keys that begin with {PROBE_PREFIX}, so no "
            "probe can arrive",
            hint="Upload a file that the filter lets through: `twobuckets upload FILE --wait`.",
        )


def new_key() -> str:
    """Return a key that nothing has, and of which a probe's mark can be made."""
    return f"{PROBE_PREFIX}{uuid.uuid4()}"


class Probe:
    """One probe: sent, waited for, and taken away whatever happened."""

    def __init__(
        self,
        facts: Facts,
        sender: Sender,
        key: str,
        *,
        now: Callable[[], datetime],
        sleep: Callable[[float], None],
        signed_in: timedelta,
    ) -> None:
        self._facts = facts
        self._sender = sender
        self._key = key
        self._now = now
        self._sleep = sleep
        self._began_at = now() - signed_in
        self._signed_in = signed_in
        self._fate: Fate | None = None
        self._skew = timedelta()
        self._version_id: str | None = None

    def run(self, timeout: timedelta) -> Iterator[ProbeStage]:
        """Send the probe and yield its stages as they are known.

        Raises AccessError or TwoBucketsError when it can't be sent.
        """
        signed_at = self._began_at + self._signed_in
        yield ProbeStage(SIGNED, signed_at, self._signed_in)
        staged = self._send()
        stored_at = self._now()
        yield ProbeStage(STORED, stored_at, stored_at - signed_at)
        facts = self._facts
        ends = follow_ends(facts.aws, facts.pipeline, now=self._now, sleep=self._sleep)
        for fate in (*ends.add(staged), *ends.wait(timeout)):
            self._fate = fate
        seen_at = self._now()
        last_at = stored_at
        if self._fate is not None and self._fate.fate == ARCHIVED:
            for stage, at in self._find_times(self._fate.request_id):
                # Clocks of two machines: nothing ends before it begins.
                at = max(at - self._skew, last_at)
                yield ProbeStage(stage, at, at - last_at)
                last_at = at
            yield ProbeStage(SEEN, seen_at, max(seen_at - last_at, timedelta()))

    def _send(self) -> AwaitedVersion:
        (answer,) = hold(self._sender, [self._put()])
        if not isinstance(answer, Response) or not answer.ok:
            what = f"store the probe s3://{self._facts.pipeline.staging}/{self._key}"
            raise explain(answer, "PutObject", what)
        here = self._now()
        there = read_date(answer) or here
        # S3's own time is in whole seconds.
        skew = there - here.replace(microsecond=0)
        self._skew = skew if abs(skew) >= _SKEWED_FROM else timedelta()
        self._version_id = read_version_id(answer)
        return AwaitedVersion(
            self._key, self._version_id, read_etag(answer), there, len(self._body())
        )

    def _put(self) -> Talk[Response | Exception]:
        headers = (
            ("content-type", "application/json"),
            (f"x-amz-meta-{PROBE_MARK}", self._key.removeprefix(PROBE_PREFIX)),
        )
        bucket = self._facts.pipeline.staging
        (answer,) = yield [put_object(bucket, self._key, self._body(), headers=headers)]
        return checked(answer)

    def _body(self) -> bytes:
        # Two probes never hold the same bytes.
        return json.dumps({"twobuckets-probe": self._key}).encode()

    def _find_times(self, request_id: str | None) -> list[tuple[str, datetime]]:
        """Return when Lambda began the invocation, and when the processor began and was done."""
        log_group = self._facts.pipeline.log_group
        if request_id is None or log_group is None:
            return []
        times: dict[str, datetime] = {}
        try:
            for number in range(_LINE_TRIES):
                if number:
                    self._sleep(_LINE_PAUSE)
                for event in iter_events(
                    self._facts.aws.logs,
                    log_group,
                    start_at=self._began_at - timedelta(minutes=5),
                    pattern=f'"{request_id}"',
                ):
                    match parse_entry(event):
                        case InvocationStart() as start if start.request_id == request_id:
                            times.setdefault(TOLD, start.logged_at)
                        case Outcome() as outcome if outcome.key == self._key:
                            times[STARTED] = outcome.logged_at - (outcome.duration or timedelta())
                            times[ARCHIVED] = outcome.logged_at
                if ARCHIVED in times:
                    break
        except TwoBucketsError:
            # The stages that only the log tells stay untold; that it arrived is known without them.
            return []
        return [(stage, times[stage]) for stage in (TOLD, STARTED, ARCHIVED) if stage in times]

    def clean_up(self) -> ProbeSummary:
        """Take away what was sent, and what earlier probes left; return how it all ended."""
        fate = self._fate
        took = self._now() - self._began_at
        removed = leftovers = 0
        kept_because: str | None = None
        buckets = (self._facts.pipeline.staging, self._facts.pipeline.archive)
        try:
            removed = remove_probe(self._sender, buckets, self._key)
            left = {
                key
                for bucket in buckets
                for key in find_leftovers(self._sender, bucket, before=self._began_at - _LEFT_AFTER)
            }
            leftovers = len(left)
            removed += sum(remove_probe(self._sender, buckets, key) for key in sorted(left))
        except (TwoBucketsError, CouldNotLook) as error:
            kept_because = str(error)
        return ProbeSummary(
            key=self._key,
            fate=fate.fate if fate is not None else "unknown",
            arrived=fate is not None and fate.fate == ARCHIVED,
            took=took,
            version_id=self._version_id,
            archive_version_id=fate.archive_version_id if fate is not None else None,
            request_id=fate.request_id if fate is not None else None,
            error=fate.error if fate is not None else None,
            detail=fate.detail if fate is not None else None,
            removed=removed,
            leftovers=leftovers,
            kept_because=kept_because,
            skew=self._skew or None,
        )
