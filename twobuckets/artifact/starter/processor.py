"""Processes each file that arrives in staging."""

import hashlib
import logging

from twobuckets.processor import File

log = logging.getLogger(__name__)
log.setLevel(logging.INFO)


def process(file: File) -> None:
    """Count a file's lines and hash its bytes.

    When this returns, the file moves to the archive. An exception makes Lambda try again, twice;
    `raise Reject("why")` (from twobuckets.processor) says that trying again is of no use.

    `file` has bucket, key, version_id, etag, size, content_type and metadata. `file.open()` reads
    from S3 as it goes, so a file of any size fits in memory; small ones: `file.text()`.
    """
    lines = 0
    digest = hashlib.sha256()
    with file.open() as stream:
        while chunk := stream.read(1024 * 1024):
            lines += chunk.count(b"\n")
            digest.update(chunk)
    log.info("%s: %d bytes, %d lines, SHA-256 %s", file.key, file.size, lines, digest.hexdigest())
