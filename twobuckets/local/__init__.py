"""The embedded AWS: S3, Lambda, CloudFormation and CloudWatch Logs on loopback, without an account.

lifecycle  starts, finds and stops the server process; cheap to import, never imports the emulator
state      what is kept in the state directory, and the proof of who runs there
programs   runs other people's programs against it, and keeps them from the real AWS
server     the server process, `python -m twobuckets.local.server`: only it imports ministack

What the emulator does otherwise than AWS, and what is done about it:

| Gap | Here |
|---|---|
| a burst starts a process per event and drops throttled events | a queue on disk; few children |
| a retry is a new request id | the same; AWS waits 1 and 2 minutes, here 1 and 2 seconds |
| queued events and retries die with the server | they are on disk and go on at the next start |
| `logging` reaches no log; late lines go to the next request | Lambda's text and JSON forms |
| Lambda children see the user's environment and packages | a clean one, boto3 beside the artifact |
| the root key's signature is not checked; `test` and account ids are root | refused by the guard |
| any web page can reach it; admin paths answer anybody | refused by the guard; a bucket's CORS
  rules let pages in whose origin they name without `*` |
| template: lifecycle, encryption, ownership and tags of buckets; dead-letter queue and reserved
  concurrency of functions | applied by `server/template_gaps.py` |
| state is saved only at an orderly end | saved a moment after every change |
| multipart uploads in progress | lost when the server ends |
| change sets list resources whose condition does not hold | left out |
| ranged reads of a version get all of it; each reads the whole file | only the part |
| every version's contents stay in memory | they stay on disk |
| memory and `/tmp` of functions are without limit | the same |
| lifecycle rules | stored and listed, never carried out |
| minimum part size, part order | not as on AWS |
| `FULL_OBJECT` checksums of multipart uploads, and of copied parts; who began one; speed of
  CRC64NVME | as on AWS, by
  `server/multipart_gaps.py` |
| keys that XML can't hold; destination `IfNoneMatch` on copies; line ends and wildcards of
  policies | as on AWS, by `server/s3_gaps.py` |
| `MaximumConcurrency` from a template's parameter is text, and the queue feeds nothing | a number |
| a FIFO queue feeds a function one batch at a time; SQS has no metrics; alarms compare values of
  other queues; batches ask for actions that IAM lacks | as on AWS, by `server/queue_gaps.py` |
| metrics in log lines stay text; an alarm without data stays as it is | as on AWS, by
  `server/metric_gaps.py` |
| `[watch]` is on by default | only where the settings say so: laptops sleep |
| jobs of AWS Batch succeed at once and run nothing; no stack can have its resources | they run as
  processes with the artifact, by `server/batch_gaps.py`; images, networks, vCPUs, memory, disk,
  dependencies and arrays of jobs are not emulated |
| S3 takes a FIFO queue for its notification | not refused as on AWS |
| a failed file of `deploy.trigger`'s queue is seen again after a minute | after a second |
| `delimiter` of `ListMultipartUploads` | ignored |
| `FilterLogEvents` cuts at `limit` without a token and ignores most patterns | pages, and the
  patterns that we send, by `server/log_gaps.py` |
"""

from twobuckets.local.lifecycle import (
    Server,
    Status,
    ensure_running,
    exclusively,
    find_running,
    find_status,
    start,
    stop,
)
from twobuckets.local.programs import Call, call_of, reserve_closed_port

__all__ = [
    "Call",
    "Server",
    "Status",
    "call_of",
    "ensure_running",
    "exclusively",
    "find_running",
    "find_status",
    "reserve_closed_port",
    "start",
    "stop",
]
