"""What goes into the log: whole lines, with no secret in them.

Consumers take the last outcome line of a version in a request: a record that finishes after its
time-out was foretold writes a second line.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import traceback
from datetime import UTC, datetime
from types import TracebackType

from twobuckets.processor.contract import Failure

_MESSAGE_CHARACTERS = 2_000
_TRACE_CHARACTERS = 8_000
_HERE = os.path.dirname(__file__)
_writing = threading.Lock()


def now_text() -> str:
    """Return the present time as RFC 3339 has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def write_line(line: str) -> None:
    """Write one whole line to the log; a user's closed or replaced stdout loses none."""
    with _writing:
        for stream in (sys.stdout, sys.__stdout__, sys.__stderr__):
            try:
                if stream is not None:
                    stream.write(line + "\n")
                    stream.flush()
                    return
            except (OSError, ValueError):
                continue


def failure_of(error: BaseException) -> Failure:
    """Return an exception as a Failure: trimmed, secrets and signed URLs taken out."""
    try:
        message = str(error)
    except Exception as broken:  # noqa: BLE001 - a user's __str__ may raise anything
        message = f"(its message cannot be shown: {type(broken).__name__})"
    try:
        trace = "".join(traceback.format_exception(type(error), error, _from_process(error)))
    except Exception:  # noqa: BLE001 - the same, in a chained exception
        trace = ""
    return Failure(
        type=type(error).__name__,
        message=_head(redact(message), _MESSAGE_CHARACTERS),
        trace=_tail(redact(trace), _TRACE_CHARACTERS),
    )


def _from_process(error: BaseException) -> TracebackType | None:
    """Return the traceback from the user's function on; whole when the error is not from there."""
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        # The frames up to here are the same in every trace, and bury the line that failed.
        if code.co_name == "run_process" and os.path.dirname(code.co_filename) == _HERE:
            return step.tb_next or error.__traceback__
        step = step.tb_next
    return error.__traceback__


_SECRETS = (
    # The query of a presigned URL (SigV4 and SigV2) is a credential as a whole.
    (
        r"\?[^\s\"'<>]*\b(?:x-amz-signature|x-amz-security-token|signature)=[^\s\"'<>]*",
        "?[signature removed]",
    ),
    (
        r"\b(x-amz-(?:signature|credential|security-token))(=|:\s*)[^\s&\"',;]+",
        r"\1\2[removed]",
    ),
    (r"\b(authorization[\"']?\s*[:=]\s*[\"']?)[^\"'\r\n]+", r"\1[removed]"),
    (
        (
            r"\b((?:[a-z0-9_-]*(?:password|passwd|secret|token|api_?key|access_?key))"
            r"[\"']?\s*[:=]\s*[\"']?)[^\s\"'&,;)}]+"
        ),
        r"\1[removed]",
    ),
    (r"\b([a-z][a-z0-9+.-]*://[^\s/:@]+):[^\s/@]+@", r"\1:[removed]@"),
    (r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b", "[access key removed]"),
)
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")


def redact(text: str) -> str:
    """Return the text with credentials, signed URLs' queries and passwords taken out."""
    for name in _SECRET_VARIABLES:
        secret = os.environ.get(name)
        if secret:
            text = text.replace(secret, "[removed]")
    for pattern, substitute in _SECRETS:  # compiled on first use: most cold starts need none
        text = re.sub(pattern, substitute, text, flags=re.IGNORECASE)
    return text


def _head(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - 2] + " …"


def _tail(text: str, characters: int) -> str:
    """The end of a traceback names the error, so its beginning is what goes."""
    return text if len(text) <= characters else "… " + text[2 - characters :]
