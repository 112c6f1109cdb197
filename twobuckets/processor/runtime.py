"""One invocation: its records one by one or side by side, each with its own outcome line."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from importlib import import_module
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

from twobuckets.processor import answers, contract, heavy, looking, ordering
from twobuckets.processor import archive as archive_
from twobuckets.processor.contract import Failure, Outcome
from twobuckets.processor.copying import Destination
from twobuckets.processor.events import (
    Arrival,
    Batch,
    Ignored,
    Message,
    Record,
    Unreadable,
    parse_event,
)
from twobuckets.processor.file import File, Reject
from twobuckets.processor.looking import Archived, NotHere, Staged
from twobuckets.processor.outcome import failure_of, now_text, write_line
from twobuckets.processor.refusals import ClosedError
from twobuckets.processor.stream import ROOM_BYTES, RangeReader, find_expected, open_stream

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

Process = Callable[[File], object]


class ConfigurationError(Exception):
    """The function's environment or the user's module cannot be used as it is."""


class RecordsFailedError(Exception):
    """Some records are to be retried; raised at the end so that Lambda does it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment variables of the function say."""

    archive_bucket: str
    process: str
    record_concurrency: int
    copy_concurrency: int
    storage_class: str | None
    deadline_margin_seconds: float
    room_bytes: int
    """What a stream over a file may hold."""
    queue_url: str | None
    retry_seconds: int


def find_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings; raise ConfigurationError naming the variable that is wrong."""
    bucket = environ.get(contract.ARCHIVE_BUCKET, "")
    if not bucket:
        raise ConfigurationError(
            f"{contract.ARCHIVE_BUCKET} is not set: it names the archive bucket"
        )
    record_concurrency = _whole_number(environ, contract.RECORD_CONCURRENCY, 1, 64)
    # Lambda says how much there is (Lambda developer guide, "Defined runtime environment
    # variables"). An eighth for what is read leaves most of it to the user's function.
    memory_mb = environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    room_bytes = int(memory_mb) * 1024 * 1024 // 8 if memory_mb.isdecimal() else ROOM_BYTES
    return Settings(
        archive_bucket=bucket,
        process=environ.get(contract.PROCESS) or contract.DEFAULT_PROCESS,
        record_concurrency=record_concurrency,
        copy_concurrency=_whole_number(environ, contract.COPY_CONCURRENCY, 8, 64),
        storage_class=environ.get(contract.STORAGE_CLASS) or None,
        deadline_margin_seconds=_whole_number(environ, contract.DEADLINE_MARGIN, 3, 300),
        room_bytes=min(ROOM_BYTES, room_bytes) // record_concurrency,
        queue_url=environ.get(contract.QUEUE_URL) or None,
        retry_seconds=_whole_number(
            environ, contract.RETRY_SECONDS, contract.DEFAULT_RETRY_SECONDS, 3_600
        ),
    )


def _whole_number(environ: Mapping[str, str], name: str, default: int, largest: int) -> int:
    text = environ.get(name) or str(default)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= largest:
        raise ConfigurationError(f"{name} is {text!r}, expected a number from 1 to {largest}")
    return int(text)


def load_process(name: str) -> Process:
    """Return the user's function; raise ConfigurationError if `module:function` names none."""
    module_name, _, function_name = name.partition(":")
    if not module_name or not function_name:
        raise ConfigurationError(f"{contract.PROCESS} is {name!r}, expected module:function")
    try:
        process = getattr(import_module(module_name), function_name, None)
    except BaseException as error:
        raise ConfigurationError(
            f"importing {module_name!r} failed: {type(error).__name__}: {error}"
        ) from error
    if not callable(process):
        raise ConfigurationError(f"module {module_name!r} has no function {function_name!r}")
    code = getattr(process, "__code__", None)
    # Calling such a function runs nothing of it, and the file would be archived unprocessed.
    if code is not None and code.co_flags & (0x20 | 0x80 | 0x200):
        raise ConfigurationError(
            f"{name} is a generator or coroutine function; it has to be a plain function"
        )
    return process  # type: ignore[no-any-return]


def run_process(process: Process, file: File) -> tuple[str, ...]:
    """Call the user's function and return notes about what it returned; it may raise anything."""
    returned = process(file)
    if isinstance(returned, (CoroutineType, GeneratorType, AsyncGeneratorType)):
        if not isinstance(returned, AsyncGeneratorType):
            returned.close()
        raise ConfigurationError(
            f"process returned a {type(returned).__name__}, so nothing of it has run; "
            "it has to be a plain function"
        )
    if returned is not None:
        return (f"process returned a {type(returned).__name__}; what it returns is ignored",)
    return ()


@dataclass(slots=True)
class Progress:
    """How far one record is, for the line written when time runs out."""

    arrival: Arrival
    stage: str = "waiting"
    read_bytes: int = 0
    size_bytes: int | None = None
    is_gone: bool = False
    is_settled: bool = False
    started: float = field(default_factory=time.monotonic)
    streams: list[BinaryIO] = field(default_factory=list)

    def __str__(self) -> str:
        if self.stage == "processing":
            return f"processing, {self.read_bytes} bytes read of {self.size_bytes}"
        return self.stage


@dataclass(frozen=True, slots=True)
class Invocation:
    """Everything that the records of one invocation share."""

    s3: S3Client
    settings: Settings
    process: Callable[[], Process]
    request_id: str | None
    attempt: int
    beside: Executor
    """Runs what can be asked at the same time, so that one wait does for both."""
    messages: Sequence[Message] = ()
    queue: ordering.Queue | None = None
    jobs: heavy.Jobs | None = None

    def run(self, progress: Progress) -> Outcome:
        """Process one record, write its outcome line and return the outcome; raise nothing."""
        progress.started = time.monotonic()
        try:
            outcome = self._settle(progress)
        except NotHere as gone:
            outcome = self._outcome(progress, gone.outcome, reason=gone.reason)
        except Reject as refusal:
            shown = failure_of(refusal)
            outcome = self._outcome(
                progress, contract.REJECTED, error=Failure(shown.type, shown.message)
            )
        except ClosedError as closed:
            shown = failure_of(closed)
            # What its uploader encrypted for themselves nobody processes; the rest may be mended.
            is_rejected = closed.is_lasting and closed.bucket == progress.arrival.bucket
            outcome = self._outcome(
                progress,
                contract.REJECTED if is_rejected else contract.FAILED,
                error=Failure(shown.type, shown.message),
            )
        except BaseException as error:  # noqa: BLE001 - `process` may raise even SystemExit
            outcome = self._outcome(progress, contract.FAILED, error=failure_of(error))
        finally:
            progress.is_settled = True
            for stream in progress.streams:
                _close(stream)
            progress.streams.clear()
        write_line(outcome.line(now_text()))
        return outcome

    def put_into_order(
        self, progress: Progress, queue: ordering.Queue, once: str
    ) -> Outcome | None:
        """Send one record to the queue that orders; write and return an outcome if that fails.

        `once` tells the message from all others, and is the same when this is tried again.
        """
        progress.started = time.monotonic()
        progress.stage = "being put into order"
        outcome = None
        try:
            queue.put(progress.arrival, once)
        except Exception as error:  # noqa: BLE001 - botocore's classes are those of the service
            outcome = self._outcome(progress, contract.FAILED, error=failure_of(error))
            write_line(outcome.line(now_text()))
        progress.is_settled = True
        return outcome

    def _settle(self, progress: Progress) -> Outcome:
        s3, arrival = self.s3, progress.arrival
        destination = Destination(
            self.settings.archive_bucket,
            self.settings.storage_class,
            self.settings.copy_concurrency,
        )
        if arrival.bucket == destination.bucket:
            raise ConfigurationError(
                f"{contract.ARCHIVE_BUCKET} is the bucket that the event is about, "
                f"{arrival.bucket!r}: archiving into it would wake the function again and delete "
                "the only copy"
            )
        progress.stage = "looking"
        try:
            return self._move(progress, destination)
        except NotHere as gone:
            # Where it is not, it may have arrived: another invocation can have been faster.
            seen = looking.find_archived(s3, destination.bucket, arrival.key)
            if seen is None or not archive_.finish(
                s3, arrival, destination, seen, is_gone=gone.is_for_good
            ):
                raise
            progress.size_bytes = int(seen.head["ContentLength"])
            return self._outcome(
                progress,
                contract.ARCHIVED,
                duplicate=True,
                archive_version_id=seen.version_id,
            )

    def _move(self, progress: Progress, destination: Destination) -> Outcome:
        arrival = progress.arrival
        asked = self.beside.submit(looking.find_archived, self.s3, destination.bucket, arrival.key)
        try:
            staged, place = looking.find_staged(self.s3, arrival)
        except BaseException:
            asked.cancel()  # no answer would change that
            raise
        # Whoever puts something over a version may have archived it a moment before: what is there
        # is looked at after that.
        is_on_top = not (place.is_hidden or place.is_replaced)
        seen = (
            asked.result()
            if is_on_top
            else looking.find_archived(self.s3, destination.bucket, arrival.key)
        )
        progress.size_bytes = staged.size_bytes
        notes: tuple[str, ...] = ()
        duplicate = seen is not None and looking.is_archived(self.s3, arrival, staged, seen)
        if not duplicate:
            looking.require_wanted(arrival, staged, place, seen)
            # By the object's size: an event's is what somebody wrote into it.
            if self.jobs is not None and self.jobs.take(staged.key, staged.size_bytes):
                progress.stage = "handing over to a job"
                return self._submit(progress, self.jobs, staged)
            progress.stage = "processing"
            notes = self._process(progress, staged, seen)
        progress.stage = "archiving"
        placed = archive_.archive(self.s3, arrival, staged, destination, seen)
        if placed.stays is not None:
            notes = (*notes, placed.stays)
        return self._outcome(
            progress,
            contract.ARCHIVED,
            duplicate=duplicate,
            archive_version_id=placed.version_id,
            notes=notes,
        )

    def _submit(self, progress: Progress, jobs: heavy.Jobs, staged: Staged) -> Outcome:
        job = jobs.submit(staged, progress.arrival.sequencer)
        return replace(
            self._outcome(progress, contract.SUBMITTED, duplicate=not job.is_new),
            job_id=job.job_id,
            job_timeout_seconds=job.timeout_seconds,
        )

    def _process(
        self, progress: Progress, staged: Staged, seen: Archived | None
    ) -> tuple[str, ...]:
        process = self.process()
        if contract.is_probe(staged.key, staged.metadata):
            return ("a probe, which process() does not see",)
        expected = find_expected(staged.head)

        def mark_gone() -> None:
            progress.is_gone = True

        def count(read_bytes: int) -> None:
            progress.read_bytes += read_bytes

        def opener() -> BinaryIO:
            reader = RangeReader(self.s3, staged.pinned, on_gone=mark_gone)
            stream = open_stream(
                reader, staged.size_bytes, expected, count, room_bytes=self.settings.room_bytes
            )
            progress.streams.append(stream)
            return stream

        file = File(
            bucket=staged.bucket,
            key=staged.key,
            version_id=staged.version_id,
            etag=staged.etag,
            size=staged.size_bytes,
            content_type=staged.head.get("ContentType", "binary/octet-stream"),
            metadata=staged.metadata,
            opener=opener,
            sequencer=progress.arrival.sequencer,
            attempt=progress.arrival.attempt or self.attempt,
        )
        try:
            return run_process(process, file)
        except BaseException:
            if progress.is_gone:
                # The error is a consequence: say what happened to the file instead.
                self._require_there(progress.arrival, staged, seen)
            raise

    def _require_there(self, arrival: Arrival, staged: Staged, seen: Archived | None) -> None:
        place = looking.find_place(self.s3, staged)
        looking.require_wanted(arrival, staged, place, seen)

    def _outcome(
        self,
        progress: Progress,
        outcome: str,
        *,
        error: Failure | None = None,
        reason: str | None = None,
        duplicate: bool = False,
        archive_version_id: str | None = None,
        notes: tuple[str, ...] = (),
    ) -> Outcome:
        arrival = progress.arrival
        size_bytes = progress.size_bytes if progress.size_bytes is not None else arrival.size_bytes
        return Outcome(
            outcome=outcome,
            bucket=arrival.bucket,
            key=arrival.key,
            version_id=arrival.version_id,
            etag=arrival.etag,
            size_bytes=size_bytes,
            duration_ms=round((time.monotonic() - progress.started) * 1000),
            request_id=self.request_id,
            attempt=arrival.attempt or self.attempt,
            error=error,
            reason=reason,
            duplicate=duplicate,
            archive_version_id=archive_version_id,
            sequencer=arrival.sequencer,
            notes=notes,
        )

    def foretell_timeout(self, records: list[Progress], remaining_seconds: float) -> None:
        """Write a failed line for each record that will not be done in time."""
        for progress in records:
            if not progress.is_settled:
                message = (
                    f"the function's time runs out in {remaining_seconds:.1f} s and the record is "
                    f"not done: {progress}. Raise the time-out, or split the work."
                )
                error = Failure("TimeoutForeseen", message)
                foretold = self._outcome(progress, contract.FAILED, error=error)
                write_line(foretold.line(now_text()))
        unsettled = {p.arrival.item_id for p in records if not p.is_settled}
        # The function may still run until then, and no other one beside it.
        self.show_again(unsettled, not_before=remaining_seconds + 1)

    def show_again(self, message_ids: Collection[str | None], *, not_before: float = 0) -> None:
        """Let messages of the function's queue that failed be seen again before long."""
        if self.queue is not None and self.queue.sent(self.messages):
            failed = [message for message in self.messages if message.id in message_ids]
            self.queue.show_again(failed, not_before=not_before)


def handler(event: object, context: object) -> dict[str, Any]:
    """Process and archive every object that the event names, or put it into order first.

    Returns the counts of the outcomes, `batchItemFailures` for messages of SQS, or results for the
    tasks of S3 Batch Operations. Raises UnknownEventError, and RecordsFailedError after all records
    were tried if any is to be retried and the sender reads no answer.
    """
    batch = _without_folders(parse_event(event))
    request_id = getattr(context, "aws_request_id", None)
    arrivals = [record for record in batch.records if isinstance(record, Arrival)]
    unreadable = [record for record in batch.records if isinstance(record, Unreadable)]
    ignored = Counter(record.name for record in batch.records if isinstance(record, Ignored))
    outcomes: list[Outcome | None] = []
    invocation = None
    if arrivals:
        settings = find_settings(os.environ)
        queue = _queue(settings)
        invocation = Invocation(
            s3=_client(settings),
            settings=settings,
            process=lambda: _process(settings.process),
            request_id=request_id,
            attempt=_count_attempt(request_id),
            beside=_beside(settings),
            messages=batch.messages,
            queue=queue,
            jobs=heavy.find_jobs(os.environ, _batch_client),
        )
        records = [Progress(arrival) for arrival in arrivals]
        with _deadline(context, settings, invocation, records):
            if queue is not None and queue.wants(batch.messages):
                outcomes = [
                    invocation.put_into_order(record, queue, ordering.once_of(request_id, number))
                    for number, record in enumerate(records)
                ]
            else:
                outcomes = _run_all(invocation, records)
    for record in unreadable:
        write_line(_plain_line("ERROR", record.reason, request_id))
    if ignored:
        names = ", ".join(f"{name} ({count})" for name, count in sorted(ignored.items()))
        write_line(_plain_line("INFO", f"ignored what is no file's arrival: {names}", request_id))
    if batch.from_sqs or batch.job is not None:
        following = iter(outcomes)
        settled = [
            (record, next(following) if isinstance(record, Arrival) else None)
            for record in batch.records
        ]
        if batch.job is not None:
            return answers.task_results(batch.job, settled)
        answer = answers.batch_item_failures(settled)
        if invocation is not None:
            failed_ids = {item["itemIdentifier"] for item in answer["batchItemFailures"]}
            invocation.show_again(failed_ids)
        return answer
    failed = [outcome for outcome in outcomes if outcome and outcome.outcome == contract.FAILED]
    if failed or unreadable:
        raise RecordsFailedError(_summary(failed, unreadable, len(batch.records)))
    counts = Counter("ordered" if outcome is None else outcome.outcome for outcome in outcomes)
    counts["ignored"] = ignored.total()
    return dict(+counts)


def _without_folders(batch: Batch) -> Batch:
    """Return the batch with arrivals of objects that stand for folders as what they are."""
    if os.environ.get(contract.FOLDERS) == contract.PROCESS_FOLDERS:
        return batch

    def read(record: Record) -> Record:
        if (
            isinstance(record, Arrival)
            and not record.is_asked_for
            and contract.stands_for_folder(record.key, record.size_bytes)
        ):
            return Ignored("an empty object for a folder", record.item_id)
        return record

    return replace(batch, records=tuple(map(read, batch.records)))


def _run_all(invocation: Invocation, records: list[Progress]) -> list[Outcome | None]:
    """Run the records side by side, those of one key one after the other, as they came."""
    by_key: dict[tuple[str, str], list[int]] = {}
    for number, record in enumerate(records):
        by_key.setdefault((record.arrival.bucket, record.arrival.key), []).append(number)
    workers = min(invocation.settings.record_concurrency, len(by_key))
    if workers == 1:
        return [invocation.run(record) for record in records]
    from concurrent.futures import ThreadPoolExecutor

    outcomes: dict[int, Outcome] = {}

    def run_key(numbers: list[int]) -> None:
        for number in numbers:
            outcomes[number] = invocation.run(records[number])

    with ThreadPoolExecutor(workers, thread_name_prefix="twobuckets-record") as pool:
        list(pool.map(run_key, by_key.values()))
    return [outcomes[number] for number in range(len(records))]


def _summary(failed: list[Outcome], unreadable: list[Unreadable], total: int) -> str:
    reasons = [
        f"{outcome.key!r}: {outcome.error.type}: {outcome.error.message}"
        for outcome in failed
        if outcome.error
    ] + [record.reason for record in unreadable]
    shown = "; ".join(reason[:300] for reason in reasons[:5])
    more = f"; and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return f"{len(reasons)} of {total} records failed and are to be retried: {shown}{more}"


def _plain_line(level: str, message: str, request_id: str | None) -> str:
    import json

    fields = {"level": level, "timestamp": now_text(), "message": message}
    return json.dumps({**fields, "request_id": request_id})


@contextmanager
def _deadline(
    context: object, settings: Settings, invocation: Invocation, records: list[Progress]
) -> Iterator[None]:
    remaining_ms = getattr(context, "get_remaining_time_in_millis", None)
    if remaining_ms is None:
        yield
        return
    remaining = remaining_ms() / 1000
    margin = min(settings.deadline_margin_seconds, remaining / 4)
    timer = threading.Timer(
        remaining - margin, lambda: invocation.foretell_timeout(records, remaining_ms() / 1000)
    )
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _close(stream: BinaryIO) -> None:
    with suppress(OSError, ValueError):
        stream.close()


# --- once per environment ------------------------------------------------------------------------

_once = threading.Lock()
_clients: dict[str, Any] = {}
_executors: dict[str, Executor] = {}
_processes: dict[str, Process] = {}
_failed_early: dict[str, ConfigurationError] = {}
_attempts: OrderedDict[str, int] = OrderedDict()


def _client(settings: Settings) -> S3Client:
    client: S3Client = _client_of("s3", **client_options(settings))
    return client


def client_options(settings: Settings) -> dict[str, Any]:
    """Return how the client talks to S3, as botocore's Config takes it."""
    per_record = settings.copy_concurrency + 4
    return {
        "max_pool_connections": settings.record_concurrency * per_record,
        "retries": {"mode": "standard", "max_attempts": 5},
        "signature_version": "s3v4",
        # botocore's own is made anew for each request, which takes a twentieth of its time.
        "user_agent": "twobuckets-processor",
    }


def _queue(settings: Settings) -> ordering.Queue | None:
    if settings.queue_url is None:
        return None

    def client() -> SQSClient:
        # Failed files wait for this while the function's time is running out.
        patience = {"connect_timeout": 3, "read_timeout": 5}
        found: SQSClient = _client_of(
            "sqs", retries={"mode": "standard", "max_attempts": 3}, **patience
        )
        return found

    return ordering.Queue(client, settings.queue_url, settings.retry_seconds)


def _batch_client() -> Any:
    return _client_of("batch", retries={"mode": "standard", "max_attempts": 5})


def _client_of(service: Literal["s3", "sqs", "batch"], **options: Any) -> Any:
    with _once:
        if service not in _clients:
            import boto3
            from botocore.config import Config

            botocore_log = logging.getLogger("botocore")
            if botocore_log.level == logging.NOTSET:
                # At INFO it says where it found its credentials: noise in every log.
                botocore_log.setLevel(logging.WARNING)
            _clients[service] = boto3.client(service, config=Config(**options))
        return _clients[service]


def _beside(settings: Settings) -> Executor:
    from concurrent.futures import ThreadPoolExecutor

    with _once:
        if "beside" not in _executors:
            _executors["beside"] = ThreadPoolExecutor(
                settings.record_concurrency, thread_name_prefix="twobuckets-beside"
            )
        return _executors["beside"]


def _process(name: str) -> Process:
    with _once:
        # Told once: what failed at the start can be whole by the next event.
        if error := _failed_early.pop(name, None):
            raise error
        if name not in _processes:
            _processes[name] = load_process(name)
        return _processes[name]


def _start_early() -> None:
    """Make the client and load the user's module before the first event comes.

    Lambda gives a starting environment a whole processor, and an invocation memory/1,769 of one
    (Lambda developer guide, "Lambda execution environment lifecycle", "Configure Lambda function
    memory"). Nothing here asks the network. What is wrong the handler tells, with a line for each
    record.
    """
    with suppress(Exception):
        settings = find_settings(os.environ)
        _client(settings)
        _beside(settings)
        try:
            _process(settings.process)
        except ConfigurationError as error:
            _failed_early[settings.process] = error


def _count_attempt(request_id: str | None) -> int:
    """Lambda keeps the request id when it retries an asynchronous event, but says no number.

    So the count is what this environment has seen: a lower bound. In a job AWS Batch says it.
    """
    if (number := os.environ.get("AWS_BATCH_JOB_ATTEMPT", "")).isdecimal():
        return int(number)
    if request_id is None:
        return 1
    with _once:
        _attempts[request_id] = attempt = _attempts.pop(request_id, 0) + 1
        while len(_attempts) > 1_000:
            _attempts.popitem(last=False)
    return attempt


if "AWS_LAMBDA_FUNCTION_NAME" in os.environ:
    _start_early()
