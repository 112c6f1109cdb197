"""What the logs of a processor that is not ours say: which keys, and which error."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Sequence
from urllib.parse import unquote_plus

from twobuckets.processor.contract import Failure

_ERROR_LINE = re.compile(
    r"^([A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt)\w*)(?:: (.*))?$", re.MULTILINE
)


def find_error(texts: Sequence[str]) -> Failure | None:
    """Return the last error that the texts show, or None if they show none."""
    for text in reversed(texts):
        if "Traceback (most recent call last)" in text:
            shown = _ERROR_LINE.findall(text)
            kind, message = shown[-1] if shown else ("", text.strip().splitlines()[-1])
            return Failure(kind, message, text)
        if text.startswith("[ERROR]"):
            return Failure("", text.split("\t")[-1].strip())
    return None


_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"|\'((?:[^\'\\]|\\.)*)\'')


def find_keys(texts: Iterable[str], keys: Container[str]) -> set[str]:
    """Return the keys that the texts name, as they are or form-encoded as in S3's events."""
    found: set[str] = set()
    for text in texts:
        words = [a or b for a, b in _QUOTED.findall(text)]
        words += [word.strip("\"'`()[]{}<>,;:") for word in text.split()]
        for word in words:
            key = word[5:].partition("/")[2] if word.startswith("s3://") else word
            found.update(form for form in (key, unquote_plus(key)) if form in keys)
    return found
