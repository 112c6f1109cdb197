"""The known-bad example: a handler in the manner of the tutorials on this pattern.

It moves whatever is there when it comes to it, and lets nobody know of an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_plus


def handler_over(s3: Any, archive: str, process: Callable[[str, str], None]) -> Any:
    """Return a Lambda handler that archives into this bucket."""

    def handler(event: dict[str, Any], context: object) -> None:
        for record in event.get("Records", []):
            bucket = record["s3"]["bucket"]["name"]
            key = unquote_plus(record["s3"]["object"]["key"])
            try:
                process(bucket, key)
                source = {"Bucket": bucket, "Key": key}
                s3.copy_object(Bucket=archive, Key=key, CopySource=source)
                s3.delete_object(Bucket=bucket, Key=key)
            except Exception:
                pass

    return handler
