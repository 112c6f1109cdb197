"""What runs inside Lambda: processes each staged file and archives exactly that version.

contract     what the processor and the rest of the tool agree on; the rest imports this, comparing
             and copies
runtime      one invocation: its records, each with its own outcome line
events       every shape of event, as one list of records
answers      what is returned to senders that read it: SQS, Pipes, Batch Operations
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
outcome      lines for the log, without secrets
refusals     why S3 refuses one object where it gives others

The Lambda handler is `twobuckets.processor.handler`; nothing here imports the rest of the package,
and of what is here the rest imports `contract`, and the functions that judge versions.

Environment variables (their names stand in `contract`):

- `ARCHIVE_BUCKET`: the archive bucket. Required.
- `TWOBUCKETS_PROCESS`: the user's function as `module:function`, by default `processor:process`.
- `TWOBUCKETS_RECORD_CONCURRENCY`: records of one event processed side by side, by default 1.
- `TWOBUCKETS_ARCHIVE_STORAGE_CLASS`: storage class of archived objects, by default S3's.
- `TWOBUCKETS_FOLDERS`: what becomes of empty objects whose key ends in a slash, as consoles make
  them for folders: `skip`, the default, leaves them in staging, `process` takes them for files.

The stack sets these five. For functions that are deployed by other means there are two more:

- `TWOBUCKETS_COPY_CONCURRENCY`: parts of one file above 5 GB copied side by side, by default 8.
- `TWOBUCKETS_DEADLINE_MARGIN`: seconds before the function's time-out at which unfinished records
  are written down as failed, by default 3 (at most a quarter of the time there is).

What is guaranteed, without a database:

- An object version leaves staging only after a verified copy of it is in the archive. A crash
  between any two calls leaves it in staging, in the archive, or in both, and the next event for it
  goes on from there.
- S3's 404 for a version that it lists is no end: the record fails and is tried again.
- Only what `process` was done with is archived. A version that was replaced or deleted meanwhile
  is not, and stays as it is: its outcome is `superseded` or `missing`.
- `process` runs at least once for a version, and not again once that version is the archive's
  current object. Two deliveries of one event at the same time can both run it.
- The archive's current object of a key is the latest upload that was archived. S3's own order
  decides: the `sequencer` of the events, else the times; where neither can tell, the version stays
  in staging and its outcome is `superseded`. A copy of an archived object, which carries its origin
  note, counts as old as the version that the note names.
- Older versions under an archived one in a versioned staging bucket get a delete marker on top and
  go when the bucket's rule for noncurrent versions says so.

What takes versions in the buckets, with one key uploaded several times in the same moments:
without versions in staging two uploads of the same bytes cannot be told apart, so that A, B, A, B
can end with the second A on top of B in the archive; without versions in the archive A, B, A can
end with B, and the second A is gone. What needs a database: exactly one run of `process` for a
version, and waiting for an earlier upload of the same key.

The archived object's metadata has `twobuckets-origin`, a JSON object that names the staged version:
bucket, version_id, etag, sequencer, staged_at. It is left out where the uploader's own metadata
leaves no room for it; then repeats of that file are not recognised.

SQS event sources need `ReportBatchItemFailures`: only the failed messages come back.

The permissions that it needs are those of ProcessorRole in `twobuckets/stack/template.yaml`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.processor.file import File, Reject

if TYPE_CHECKING:
    from twobuckets.processor.runtime import handler

__all__ = ["File", "Reject", "handler"]


def __getattr__(name: str) -> object:
    # Whoever reads only the contract, as every command does, need not load the runtime for it.
    if name == "handler":
        from twobuckets.processor.runtime import handler

        return handler
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
