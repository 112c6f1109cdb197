"""What runs inside Lambda: processes each staged file and archives exactly that version.

contract     what the processor and the rest of the tool agree on; the rest imports this, comparing
             and copies
runtime      one invocation: its records, each with its own outcome line
events       every shape of event, as one list of records
answers      what is returned to senders that read it: SQS, Pipes, Batch Operations
ordering     the queue that wakes the function: one file of a key at a time, failed ones again
file         what `process` gets, and Reject
stream       an object version as a binary stream
compressed   what a compressed file holds, as a stream
archive      moving one exact version to the archive
looking      what both buckets hold of a key, and whether it is archived already
copying      the copy, in one call or in parts, under conditions
annotations  what S3 leaves behind when it copies in parts
proving      that the copy holds what was processed, before that is deleted
comparing    whether two objects hold the same bytes
copies       whether an archived object is a copy of one exact staged version: the one rule for it
crc          the CRC of a whole from those of its parts
profile      what one run of `process` takes, for developers
heavy        what is too much for Lambda, and is handed to a job
job          what the job runs
outcome      lines for the log, without secrets
watcher      another function of the same zip: measures what is in staging, on a schedule
refusals     why S3 refuses one object where it gives others

The Lambda handler is `twobuckets.processor.handler`; nothing here imports the rest of the package,
and of what is here the rest imports `contract`, and the functions that judge versions.

What is guaranteed to users, and what would need a database, stands in manual/processor.md ("What is
guaranteed"), and tests/racemodel holds the code to it. The variables that configure a function are
in `contract`, the permissions that it needs are those of ProcessorRole in stack/template.yaml.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twobuckets.processor.file import File, Reject
    from twobuckets.processor.runtime import handler

__all__ = ["File", "Reject", "handler"]


def __getattr__(name: str) -> object:
    # Whoever reads only the contract, as every command does, need not load the rest for it.
    if name == "handler":
        from twobuckets.processor.runtime import handler

        return handler
    if name in ("File", "Reject"):
        from twobuckets.processor import file

        return getattr(file, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
