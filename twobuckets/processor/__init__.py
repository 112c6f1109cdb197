"""What runs inside Lambda: processes each staged file and archives exactly that version.

The Lambda handler is `twobuckets.processor.handler`; nothing here imports the rest of the package.

Environment variables:

- `ARCHIVE_BUCKET`: the archive bucket. Required.
- `TWOBUCKETS_PROCESS`: the user's function as `module:function`, by default `processor:process`.
- `TWOBUCKETS_RECORD_CONCURRENCY`: records of one event processed side by side, by default 1.
- `TWOBUCKETS_COPY_CONCURRENCY`: parts of one file above 5 GB copied side by side, by default 8.
- `TWOBUCKETS_ARCHIVE_STORAGE_CLASS`: storage class of archived objects, by default S3's.
- `TWOBUCKETS_DEADLINE_MARGIN`: seconds before the function's time-out at which unfinished records
  are written down as failed, by default 3 (at most a quarter of the time there is).

Permissions. On staging's objects: s3:GetObject, s3:GetObjectVersion, s3:GetObjectTagging,
s3:GetObjectVersionTagging, s3:DeleteObject, s3:DeleteObjectVersion; on the staging bucket:
s3:ListBucket (without it S3 answers 403 for what is gone) and s3:ListBucketVersions. On the
archive's objects: s3:PutObject, s3:PutObjectTagging, s3:GetObject, s3:GetObjectVersion,
s3:AbortMultipartUpload; on the archive bucket: s3:ListBucket and s3:ListBucketVersions.
"""

from twobuckets.processor.file import File, Reject
from twobuckets.processor.runtime import handler

__all__ = ["File", "Reject", "handler"]
