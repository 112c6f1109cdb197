"""What the processor and the rest of the tool agree on, on one page that both import.

The handler's name and the variables that configure it; the outcome line, which is all that anybody
learns of a file's processing; the origin note, which tells what an archived object was copied from;
and the wake event, which asks for one version again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

HANDLER: Final = "twobuckets.processor.handler"
"""What Lambda calls in a processor of ours; it calls the user's function."""

# --- the function's environment ------------------------------------------------------------------

ARCHIVE_BUCKET: Final = "ARCHIVE_BUCKET"
"""The archive bucket. Required."""
PROCESS: Final = "TWOBUCKETS_PROCESS"
"""The user's function as `module:function`, by default DEFAULT_PROCESS."""
DEFAULT_PROCESS: Final = "processor:process"
RECORD_CONCURRENCY: Final = "TWOBUCKETS_RECORD_CONCURRENCY"
"""Records of one event processed side by side, by default 1."""
STORAGE_CLASS: Final = "TWOBUCKETS_ARCHIVE_STORAGE_CLASS"
"""Storage class of archived objects, by default S3's."""
FOLDERS: Final = "TWOBUCKETS_FOLDERS"
"""What becomes of objects that stand for folders: SKIP_FOLDERS, the default, or PROCESS_FOLDERS."""
SKIP_FOLDERS: Final = "skip"
PROCESS_FOLDERS: Final = "process"
COPY_CONCURRENCY: Final = "TWOBUCKETS_COPY_CONCURRENCY"
"""Parts of one file of 1 GiB or more copied side by side, by default 8."""
DEADLINE_MARGIN: Final = "TWOBUCKETS_DEADLINE_MARGIN"
"""Seconds before the function's time-out at which unfinished records are written down as failed,
by default 3 (at most a quarter of the time there is)."""
QUEUE_URL: Final = "TWOBUCKETS_QUEUE_URL"
"""The queue that wakes the function. A FIFO queue, whose name ends in `.fifo`, orders: whatever
else wakes the function is sent there first, and processed when its turn comes."""
RETRY_SECONDS: Final = "TWOBUCKETS_RETRY_SECONDS"
"""Seconds until a message of that queue that failed is seen again, doubled each time; by default
DEFAULT_RETRY_SECONDS."""
DEFAULT_RETRY_SECONDS: Final = 60


def orders(queue_url: str | None) -> bool:
    """Tell whether a queue of the function's puts files into order.

    A FIFO queue's name ends so (SQS API reference, CreateQueue, QueueName).
    """
    return queue_url is not None and queue_url.endswith(".fifo")


HEAVY_QUEUE: Final = "TWOBUCKETS_HEAVY_QUEUE"
"""The queue of AWS Batch for files that are too much for Lambda; without it there are none."""
HEAVY_DEFINITION: Final = "TWOBUCKETS_HEAVY_DEFINITION"
"""The definition of their jobs, by name: the latest is used."""
HEAVY_LARGER_THAN: Final = "TWOBUCKETS_HEAVY_LARGER_THAN"
"""The number of bytes above which a file is too much; 0 for none."""
HEAVY_MATCH: Final = "TWOBUCKETS_HEAVY_MATCH"
"""Patterns, with commas between them, of the keys of other files that are too much."""
HEAVY_TIMEOUT: Final = "TWOBUCKETS_HEAVY_TIMEOUT"
"""Seconds that one try of a job may take."""
JOB_TRIES: Final = 3
"""How often a job is tried."""
WAKE: Final = "TWOBUCKETS_WAKE"
"""In a job's environment: the wake event of its version."""
ARTIFACT: Final = "TWOBUCKETS_ARTIFACT"
"""In a job's environment: the artifact whose code it runs, as `bucket/key`."""


def stands_for_folder(key: str, size_bytes: int | None) -> bool:
    """Tell whether an object only stands for a folder.

    S3 has none, so its console and other tools make an object of no bytes whose key ends in a slash
    (S3 user guide, "Organizing objects in the Amazon S3 console by using folders").
    """
    return size_bytes == 0 and key.endswith("/")


# --- probes --------------------------------------------------------------------------------------

PROBE_PREFIX: Final = "twobuckets-probe/"
"""What keys of probes begin with: files that are sent to see whether they arrive."""
PROBE_MARK: Final = "twobuckets-probe"
"""The name in a probe's metadata, whose value is the rest of its key."""
PROBES: Final = "TWOBUCKETS_PROBES"
"""Set to PROBES_KNOWN where the code that is deployed keeps probes from the user's function."""
PROBES_KNOWN: Final = "known"


def is_probe(key: str, metadata: Mapping[str, str]) -> bool:
    """Tell whether an object is a probe, and no file of anybody's whose key only looks like one."""
    name = key.removeprefix(PROBE_PREFIX)
    return name != key and metadata.get(PROBE_MARK) == name


# --- the outcome line ----------------------------------------------------------------------------

ARCHIVED: Final = "archived"
FAILED: Final = "failed"
REJECTED: Final = "rejected"
SUPERSEDED: Final = "superseded"
MISSING: Final = "missing"
SUBMITTED: Final = "submitted"
"""The file is a job's now, which writes an outcome of its own in the end."""
UNSUCCESSFUL: Final = frozenset({FAILED, REJECTED})
"""Outcomes after which the file is still to be processed."""

_FORMAT: Final = 1
"""The only form of lines, notes and events so far, as the value of `twobuckets` in them."""


class Failure(NamedTuple):
    """What went wrong: the exception's type and message, and its trace where there is one."""

    type: str
    message: str
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What processing did to one object version."""

    outcome: str
    bucket: str
    key: str
    version_id: str | None
    etag: str | None
    size_bytes: int | None
    duration_ms: int
    request_id: str | None
    attempt: int
    error: Failure | None = None
    reason: str | None = None
    duplicate: bool = False
    archive_version_id: str | None = None
    sequencer: str | None = None
    notes: tuple[str, ...] = ()
    job_id: str | None = None
    job_timeout_seconds: int | None = None
    """How long one try of the job may take."""

    def line(self, written_at: str) -> str:
        """Return the outcome as one line of JSON in ASCII; the time is as RFC 3339 has it."""
        fields: dict[str, object] = {
            "twobuckets": _FORMAT,
            "outcome": self.outcome,
            "bucket": self.bucket,
            "key": self.key,
            "version_id": self.version_id,
            "etag": self.etag,
            "size": self.size_bytes,
            "duration_ms": self.duration_ms,
            "request_id": self.request_id,
            "attempt": self.attempt,
            "error": None if self.error is None else self.error._asdict(),
            # What Lambda filters a log by; it takes a line for INFO unless both are there and valid
            # (Lambda developer guide, "Log-level filtering").
            "level": "ERROR" if self.outcome in UNSUCCESSFUL else "INFO",
            "timestamp": written_at,
        }
        extras = {
            "reason": self.reason,
            "duplicate": self.duplicate or None,
            "archive_version_id": self.archive_version_id,
            "sequencer": self.sequencer,
            "notes": list(self.notes) or None,
            "job_id": self.job_id,
            "job_timeout": self.job_timeout_seconds,
        }
        fields.update({name: value for name, value in extras.items() if value is not None})
        return json.dumps(fields, separators=(",", ":"))


def is_outcome_line(fields: Mapping[str, Any]) -> bool:
    """Whether the fields of a JSON line in a log are those of an outcome."""
    get = fields.get
    is_ours = get("twobuckets") == _FORMAT
    return is_ours and isinstance(get("outcome"), str) and isinstance(get("key"), str)


# --- the origin note -----------------------------------------------------------------------------

ORIGIN: Final = "twobuckets-origin"
"""The name of the note in an archived object's metadata; never part of what somebody uploaded."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which staged version an archived object was copied from.

    `staged_at` is S3's time of it in whole seconds, as `2026-01-31T12:00:00Z`.
    """

    bucket: str
    version_id: str | None
    etag: str
    sequencer: str | None
    staged_at: str

    def note(self) -> str:
        """Return the note as it stands in the archived object's metadata."""
        return json.dumps(
            {
                "bucket": self.bucket,
                "version_id": self.version_id,
                "etag": self.etag,
                "sequencer": self.sequencer,
                "staged_at": self.staged_at,
            },
            separators=(",", ":"),
        )


def read_origin(note: str | None) -> Origin | None:
    """Return what an origin note says, None where there is none or it is not one of ours."""
    try:
        fields = json.loads(note or "")
        origin = Origin(
            bucket=fields["bucket"],
            version_id=fields["version_id"],
            etag=fields["etag"],
            sequencer=fields["sequencer"],
            staged_at=fields["staged_at"],
        )
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    needed = (origin.bucket, origin.etag, origin.staged_at)
    optional = (origin.version_id, origin.sequencer)
    is_whole = all(isinstance(text, str) for text in needed)
    return origin if is_whole and all(isinstance(text, str | None) for text in optional) else None


# --- the wake event ------------------------------------------------------------------------------


def wake_event(
    bucket: str,
    key: str,
    *,
    version_id: str | None,
    etag: str | None,
    size_bytes: int | None,
    sequencer: str | None = None,
) -> dict[str, Any]:
    """Return the event that asks the processor for exactly one staged version.

    `sequencer` is the one of S3's own event, for whom passes that on.
    """
    wanted = {
        "bucket": bucket,
        "key": key,
        "version_id": version_id,
        "etag": etag,
        "size": size_bytes,
    }
    if sequencer is not None:
        wanted["sequencer"] = sequencer
    return {"twobuckets": _FORMAT, "wake": [wanted]}


def wanted_by(event: Mapping[str, Any]) -> list[Mapping[str, Any]] | None:
    """Return what a wake event asks for, None if the event is none."""
    wanted = event.get("wake")
    return wanted if event.get("twobuckets") == _FORMAT and isinstance(wanted, list) else None
