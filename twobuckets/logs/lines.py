"""What a log event says: an outcome of our processor, Lambda's own words, or plain text.

Outcome lines are the processor's contract with everything else. Lambda's words come as text or
as JSON, as the function is configured (Lambda guide, "Working with Lambda function logs" and
"Lambda Telemetry API event schema reference").
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from twobuckets.processor.contract import FAILED, Failure, is_outcome_line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from twobuckets.logs.events import LogEvent

TIMED_OUT: Final = "timed-out"
OUT_OF_MEMORY: Final = "out-of-memory"
CRASHED: Final = "crashed"
NOT_LOADED: Final = "not-loaded"
RAISED: Final = "raised"

OUTCOME_OR_FAILURE_PATTERN: Final = (
    '?twobuckets ?"Task timed out" ?"Runtime exited" ?errorType ?ERROR ?"platform.report"'
)
"""The filter pattern that selects at least outcome lines and what makes a FailedInvocation.

Each event is read as well: it is more than these, and an emulator may not apply it.
"""
FAILURE_PATTERN: Final = (
    f'{OUTCOME_OR_FAILURE_PATTERN} ?Traceback ?"START RequestId" ?"platform.start"'
)
"""The same with tracebacks, and with the starts that tell which invocation a line belongs to."""


class Outcome(NamedTuple):
    """What processing did to one object version, as our processor's line says.

    `outcome` is one of the contract's ARCHIVED to SUBMITTED; of the last, `job_id` names the job of
    AWS Batch that has the file, and `job_timeout` is how long one try of it may take. `attempt`
    counts this request's tries as far as one execution environment, or the EntryReader, saw them.
    `size_bytes` and what follows `key` are None where the line has none.
    """

    logged_at: datetime
    outcome: str
    bucket: str
    key: str
    version_id: str | None
    etag: str | None
    size_bytes: int | None
    duration: timedelta | None
    request_id: str | None
    attempt: int | None
    error: Failure | None
    reason: str | None
    duplicate: bool
    archive_version_id: str | None
    sequencer: str | None
    notes: tuple[str, ...]
    log_stream: str
    job_id: str | None = None
    job_timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class FailedInvocation:
    """An invocation that raised or that Lambda ended, as Lambda's own lines say.

    `reason` is `timed-out`, `out-of-memory`, `crashed`, `not-loaded` or `raised`. Of code that was
    not loaded the handler never ran.
    """

    logged_at: datetime
    reason: str
    request_id: str | None
    error: Failure
    log_stream: str


@dataclass(frozen=True, slots=True)
class InvocationStart:
    """Lambda's note that an invocation began."""

    logged_at: datetime
    request_id: str
    log_stream: str


@dataclass(frozen=True, slots=True)
class InvocationReport:
    """Lambda's report on an invocation that ended; `status` is `success` unless it says more."""

    logged_at: datetime
    request_id: str
    status: str
    duration: timedelta | None
    memory_mb: int | None
    max_memory_used_mb: int | None
    error_type: str | None
    log_stream: str


@dataclass(frozen=True, slots=True)
class PlatformLine:
    """Anything else that Lambda itself says, such as the end of an invocation or a cold start."""

    logged_at: datetime
    request_id: str | None
    message: str
    log_stream: str


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line that somebody's code wrote; `level` and `request_id` are None where it has none."""

    logged_at: datetime
    request_id: str | None
    level: str | None
    message: str
    log_stream: str


Entry = Outcome | FailedInvocation | InvocationStart | InvocationReport | PlatformLine | LogLine

_ID: Final = r"[0-9A-Za-z-]{8,64}"
_START = re.compile(rf"START RequestId: ({_ID})")
_END = re.compile(rf"END RequestId: ({_ID})")
_REPORT = re.compile(rf"REPORT RequestId: ({_ID})")
_REPORT_FIELD = re.compile(r"\t([A-Z][A-Za-z ]+): ([^\t\n]+)")
_TIMED_OUT = re.compile(rf"(?:\S+ )?({_ID}) (Task timed out after [\d.]+ seconds)")
_EXITED = re.compile(rf"RequestId: ({_ID}) (?:Process|Error:) ?(.*)", re.DOTALL)
_RAISED = re.compile(
    r"\[ERROR\] ([A-Za-z_][\w.]*)(?:: (.*?))?(?:[\r\n]+(Traceback \(most recent call last\).*))?\Z",
    re.DOTALL,
)
# What `logging` becomes in Lambda's Python runtime: level, time, request id, message.
_LOGGED = re.compile(rf"\[(\w+)\]\t(\S+Z)\t({_ID})?\t(.*)\Z", re.DOTALL)
_PLATFORM_PREFIXES = (
    "INIT_START ",
    "INIT_REPORT ",
    "RESTORE_",
    "EXTENSION\t",
    "TELEMETRY\t",
    "LOGS\t",
    "XRAY ",
)


def parse_entry(event: LogEvent) -> Entry:
    """Return what one event says; text that nothing is known about is a LogLine."""
    message = event.message
    if message.startswith("{"):
        fields = _parse_object(message)
        if fields is not None:
            return _from_json(event, fields)
    return _from_text(event, message.rstrip("\r\n"))


# Half of what json.loads takes on a line is the way to this.
_DECODE = json.JSONDecoder().raw_decode


def _parse_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is, None if it is none."""
    try:
        fields, end = _DECODE(text)
    except (ValueError, RecursionError):
        return None
    return fields if isinstance(fields, dict) and not text[end:].strip() else None


class EntryReader:
    """Reads events in time order, and knows by what came before which invocation each belongs to.

    Lambda runs one invocation at a time in a log stream, so text without a request id belongs to
    the last one that started there. One failure is told in up to three lines, and what an outcome
    line has said comes again when its invocation fails: only the first is kept.
    """

    def __init__(self) -> None:
        self._running: OrderedDict[str, str] = OrderedDict()
        # By request: whether an outcome line told the failure.
        self._told: OrderedDict[str, bool] = OrderedDict()
        self._tries: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._unloaded: OrderedDict[str, Failure] = OrderedDict()

    def read(self, event: LogEvent) -> Entry | None:
        """Return what the event says, or None for what was said before."""
        entry = parse_entry(event)
        match entry:
            case Outcome(request_id=str(request_id)):
                if entry.outcome == FAILED:
                    _remember(self._told, request_id, True)
                return self._counted(entry, request_id)
            case InvocationStart():
                _remember(self._running, entry.log_stream, entry.request_id)
                # A retry has the request id of the first attempt, and is told anew.
                self._told.pop(entry.request_id, None)
            case FailedInvocation(reason=reason, request_id=None) if reason == NOT_LOADED:
                # Said before the invocation starts, once or twice: its report tells which it was.
                _remember(self._unloaded, entry.log_stream, entry.error)
                return PlatformLine(entry.logged_at, None, event.message, entry.log_stream)
            case FailedInvocation(reason=reason, request_id=str(request_id)) if (
                reason == NOT_LOADED or (reason == CRASHED and entry.log_stream in self._unloaded)
            ):
                return self._not_loaded(entry, request_id, entry.error)
            case InvocationReport(status="error", request_id=request_id) if (
                request_id not in self._told and entry.log_stream in self._unloaded
            ):
                return self._not_loaded(entry, request_id, _NOT_LOADED)
            case InvocationReport(status="success"):
                self._unloaded.pop(entry.log_stream, None)
            case PlatformLine():
                self._hear_of_loading(entry)
            case FailedInvocation(request_id=None) if (
                not entry.error.trace and entry.log_stream not in self._running
            ):
                # The trace is in lines of its own, and nothing has run here yet.
                _remember(self._unloaded, entry.log_stream, entry.error)
                return PlatformLine(entry.logged_at, None, event.message, entry.log_stream)
            case FailedInvocation():
                self._unloaded.pop(entry.log_stream, None)  # a handler ran
                failed_id = entry.request_id or self._running.get(entry.log_stream)
                if failed_id is None:
                    return entry
                by_outcome = self._told.get(failed_id)
                # What wrote an outcome line did not end like that: it is another try.
                is_another = by_outcome and entry.error.type in _ENDED_BY_LAMBDA
                if by_outcome is not None and not is_another:
                    return None
                _remember(self._told, failed_id, False)
                return replace(entry, request_id=failed_id)
            case LogLine(request_id=None):
                return replace(entry, request_id=self._running.get(entry.log_stream))
        return entry

    def _not_loaded(
        self, entry: FailedInvocation | InvocationReport, request_id: str, error: Failure
    ) -> FailedInvocation | None:
        """Return an invocation whose handler never ran, with what was said of its code before."""
        if request_id in self._told:
            return None
        _remember(self._told, request_id, False)
        error = self._unloaded.get(entry.log_stream, error)
        return FailedInvocation(entry.logged_at, NOT_LOADED, request_id, error, entry.log_stream)

    def _hear_of_loading(self, line: PlatformLine) -> None:
        """Remember whether the code of the environments of a log stream can be loaded."""
        if line.message.startswith("INIT_START ") or '"platform.initStart"' in line.message:
            self._unloaded.pop(line.log_stream, None)
        elif line.log_stream not in self._unloaded and (failed := _failed_init(line.message)):
            _remember(self._unloaded, line.log_stream, failed)

    def _counted(self, outcome: Outcome, request_id: str) -> Outcome:
        """Return an outcome that counts all tries: a retry may run in another environment."""
        seen = self._tries.get((request_id, outcome.key), 0)
        attempt = max(outcome.attempt or 1, seen + 1)
        if outcome.outcome == FAILED:
            _remember(self._tries, (request_id, outcome.key), attempt)
        return outcome if attempt == (outcome.attempt or 1) else outcome._replace(attempt=attempt)


def iter_entries(events: Iterable[LogEvent]) -> Iterator[Entry]:
    """Yield what events in time order say, each failure once."""
    reader = EntryReader()
    for event in events:
        entry = reader.read(event)
        if entry is not None:
            yield entry


_K = TypeVar("_K")
_T = TypeVar("_T")
_REMEMBERED: Final = 10_000


def _remember(places: OrderedDict[_K, _T], name: _K, value: _T) -> None:
    places[name] = value
    places.move_to_end(name)
    if len(places) > _REMEMBERED:
        places.popitem(last=False)


def _from_json(event: LogEvent, fields: Mapping[str, Any]) -> Entry:
    outcome = _outcome_of(event, fields)
    if outcome is not None:
        return outcome
    kind, record = fields.get("type"), fields.get("record")
    if isinstance(kind, str) and kind.startswith("platform.") and isinstance(record, dict):
        return _from_platform(event, kind, record)
    request_id = _text(fields.get("requestId")) or _text(fields.get("AWSRequestId"))
    message = fields.get("message", fields.get("errorMessage"))
    if isinstance(message, str) and '"twobuckets"' in message:
        # A logger wrapped the line.
        wrapped = _parse_object(message)
        if wrapped is not None and (outcome := _outcome_of(event, wrapped)):
            return outcome
    level = _text(fields.get("level")) or _text(fields.get("log_level"))
    error_type = _text(fields.get("errorType"))
    # What a logger wrote names it; the function may have gone on after that.
    if error_type is not None and "stackTrace" in fields and "logger" not in fields:
        error = Failure(
            error_type,
            _text(fields.get("errorMessage")) or _text(message) or "",
            _trace_of(fields["stackTrace"]),
        )
        return FailedInvocation(
            event.logged_at, _reason_of(error), request_id, error, event.log_stream
        )
    shown = message if isinstance(message, str) else event.message.rstrip("\r\n")
    timed_out = _TIMED_OUT.match(shown)
    if timed_out is not None:
        return _timed_out(event, timed_out.group(1), timed_out.group(2))
    return LogLine(event.logged_at, request_id, level, shown, event.log_stream)


def _from_platform(event: LogEvent, kind: str, record: Mapping[str, Any]) -> Entry:
    request_id = _text(record.get("requestId"))
    if kind == "platform.start" and request_id is not None:
        return InvocationStart(event.logged_at, request_id, event.log_stream)
    if kind == "platform.report" and request_id is not None:
        status = _text(record.get("status")) or "success"
        error_type = _text(record.get("errorType"))
        if status == "timeout":
            return _timed_out(event, request_id, "Task timed out")
        if error_type in _ENDED_BY_LAMBDA or error_type in _CODE_NOT_LOADED:
            ended = "Lambda ended the runtime"
            error = Failure(
                error_type, ended if error_type in _ENDED_BY_LAMBDA else _NOT_LOADED.message
            )
            return FailedInvocation(
                event.logged_at, _reason_of(error), request_id, error, event.log_stream
            )
        metrics = record.get("metrics")
        metrics = metrics if isinstance(metrics, dict) else {}
        duration_ms = _number(metrics.get("durationMs"))
        return InvocationReport(
            logged_at=event.logged_at,
            request_id=request_id,
            status=status,
            duration=_duration(duration_ms),
            memory_mb=_whole(metrics.get("memorySizeMB")),
            max_memory_used_mb=_whole(metrics.get("maxMemoryUsedMB")),
            error_type=error_type,
            log_stream=event.log_stream,
        )
    return PlatformLine(event.logged_at, request_id, event.message.rstrip("\r\n"), event.log_stream)


_NOT_LOADED: Final = Failure("", "the code could not be loaded")
_ENDED_BY_LAMBDA: Final = frozenset({"Runtime.OutOfMemory", "Runtime.ExitError"})
# What ends an invocation before its handler runs (Lambda developer guide, "Troubleshoot invocation
# issues"; the names are the runtimes').
_CODE_NOT_LOADED: Final = frozenset(
    {
        "Runtime.HandlerNotFound",
        "Runtime.ImportModuleError",
        "Runtime.InvalidEntrypoint",
        "Runtime.InvalidWorkingDir",
        "Runtime.MalformedHandlerName",
        "Runtime.UserCodeSyntaxError",
    }
)


# Whatever a module raises while it is imported is told with the trace of that. The runtime leaves
# its own frames out, so the first one is Python's; code that imports while it runs comes before it.
_IMPORTS: Final = re.compile(
    r"(?:Traceback \(most recent call last\):)?\s*"
    r'File "[^"\n]*[/\\]importlib[/\\]__init__\.py", line \d+, in import_module\b'
)
_INIT_FAILED: Final = re.compile(
    r'INIT_REPORT .*\bStatus: error(?:\s+Error Type: ([\w.]+))?|.*"platform\.initReport"', re.DOTALL
)


def _failed_init(message: str) -> Failure | None:
    """Return why an environment could not start, as Lambda's report on it says; None if it did.

    A time-out is none: then the code is loaded anew, with the time of the first invocation.
    """
    reported = _INIT_FAILED.match(message)
    if reported is None:
        return None
    fields = _parse_object(message) if message.startswith("{") else None
    if fields is None:
        return _NOT_LOADED._replace(type=reported.group(1) or "")
    record = fields.get("record")
    if not isinstance(record, dict) or record.get("status") != "error":
        return None
    return _NOT_LOADED._replace(type=_text(record.get("errorType")) or "")


def _from_text(event: LogEvent, message: str) -> Entry:
    at, stream = event.logged_at, event.log_stream
    if match := _START.match(message):
        return InvocationStart(at, match.group(1), stream)
    if match := _REPORT.match(message):
        return _of_report(event, match.group(1), message)
    if match := _END.match(message):
        return PlatformLine(at, match.group(1), message, stream)
    if message.startswith(_PLATFORM_PREFIXES):
        return PlatformLine(at, None, message, stream)
    if match := _TIMED_OUT.match(message):
        return _timed_out(event, match.group(1), match.group(2))
    if match := _EXITED.match(message):
        said = match.group(2).strip()
        error_type = said.splitlines()[-1] if "Runtime." in said else "Runtime.ExitError"
        error = Failure(error_type.strip(), said)
        return FailedInvocation(at, _reason_of(error), match.group(1), error, stream)
    if match := _LOGGED.match(message):
        level, _, request_id, text = match.groups()
        return LogLine(at, request_id, level, text, stream)
    if match := _RAISED.match(message):
        error_type, said, trace = match.groups("")
        error = Failure(error_type, said.strip(), trace)
        return FailedInvocation(at, _reason_of(error), None, error, stream)
    return LogLine(at, None, None, message, stream)


def _of_report(
    event: LogEvent, request_id: str, message: str
) -> InvocationReport | FailedInvocation:
    said = dict(_REPORT_FIELD.findall(message))
    error_type = said.get("Error Type", "").strip()
    if error_type in _CODE_NOT_LOADED:
        error = _NOT_LOADED._replace(type=error_type)
        return FailedInvocation(event.logged_at, NOT_LOADED, request_id, error, event.log_stream)
    return InvocationReport(
        logged_at=event.logged_at,
        request_id=request_id,
        status=said.get("Status", "success").strip(),
        duration=_duration(_number(said.get("Duration", "").removesuffix(" ms"))),
        memory_mb=_whole(said.get("Memory Size", "").removesuffix(" MB")),
        max_memory_used_mb=_whole(said.get("Max Memory Used", "").strip().removesuffix(" MB")),
        error_type=said.get("Error Type"),
        log_stream=event.log_stream,
    )


def _timed_out(event: LogEvent, request_id: str, message: str) -> FailedInvocation:
    error = Failure("Sandbox.Timedout", message)
    return FailedInvocation(event.logged_at, TIMED_OUT, request_id, error, event.log_stream)


def _reason_of(error: Failure) -> str:
    if error.type in ("Runtime.OutOfMemory", "MemoryError") or "signal: killed" in error.message:
        return OUT_OF_MEMORY
    if error.type == "Sandbox.Timedout":
        return TIMED_OUT
    if error.type in _CODE_NOT_LOADED or _IMPORTS.match(error.trace):
        return NOT_LOADED
    return CRASHED if error.type == "Runtime.ExitError" else RAISED


def _outcome_of(event: LogEvent, fields: Mapping[str, Any]) -> Outcome | None:
    get = fields.get
    if not is_outcome_line(fields):
        return None
    bucket, error, notes = get("bucket"), get("error"), get("notes")
    # By position, in the record's order: names would double the time of making one.
    return Outcome(
        event.logged_at,
        fields["outcome"],
        bucket if isinstance(bucket, str) else "",
        fields["key"],
        _text(get("version_id")),
        _text(get("etag")),
        _whole(get("size")),
        _duration(_number(get("duration_ms"))),
        _text(get("request_id")),
        _whole(get("attempt")),
        _failure_of(error) if isinstance(error, dict) else None,
        _text(get("reason")),
        get("duplicate") is True,
        _text(get("archive_version_id")),
        _text(get("sequencer")),
        tuple(str(note) for note in notes) if isinstance(notes, list) else (),
        event.log_stream,
        _text(get("job_id")),
        None if (seconds := _number(get("job_timeout"))) is None else timedelta(seconds=seconds),
    )


def _failure_of(fields: Mapping[str, Any]) -> Failure:
    return Failure(
        _text(fields.get("type")) or "",
        _text(fields.get("message")) or "",
        _text(fields.get("trace")) or "",
    )


def _trace_of(value: object) -> str:
    if isinstance(value, list):
        return "".join(f"{str(part).rstrip()}\n" for part in value).rstrip("\n")
    return _text(value) or ""


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _whole(value: object) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if abs(number) < _LARGEST else None


def _duration(milliseconds: float | None) -> timedelta | None:
    return None if milliseconds is None else timedelta(milliseconds=milliseconds)


# Beyond it a float is no longer exact, and a duration cannot be told.
_LARGEST: Final = 2.0**53
