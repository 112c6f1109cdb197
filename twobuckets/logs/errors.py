"""What failures have in common: their kind, their error in one line, and what varies in it."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, quote_plus

from twobuckets.logs.lines import OUT_OF_MEMORY, TIMED_OUT
from twobuckets.processor.contract import FAILED, REJECTED

if TYPE_CHECKING:
    from collections.abc import Collection

    from twobuckets.logs.lines import Outcome

KINDS: Final = (FAILED, REJECTED, TIMED_OUT, OUT_OF_MEMORY)
"""How a file can fail, as `kind_of` tells it."""
_LONGEST_LINE: Final = 300
_VARYING: Final = re.compile(r"0[xX][0-9a-fA-F]+|[0-9a-fA-F]{8,}(?:-[0-9a-fA-F]{4,})*|\d+")
# Keys that Python and URLs write as they are.
_WRITTEN_ALIKE: Final = re.compile(r"[A-Za-z0-9_.~/-]*")
_SPECIAL: Final = re.compile(r"[*?[]")


def kind_of(outcome: Outcome) -> str:
    """Return the outcome, with time-outs and lack of memory told from other failures."""
    error = outcome.error
    if error is None:
        return outcome.outcome
    if error.type == "MemoryError":
        return OUT_OF_MEMORY
    is_late = "imeout" in error.type or "TimedOut" in error.type or "time-out" in error.message
    return TIMED_OUT if is_late and outcome.outcome == FAILED else outcome.outcome


def error_line(outcome: Outcome) -> str:
    """Return the error of an outcome in one line, with a placeholder where it names the key."""
    error = outcome.error
    if error is None:
        return outcome.reason or outcome.outcome
    message = first_line(without_key(outcome.key, error.message))
    return f"{error.type}: {message}".strip(": ")


def first_line(text: str) -> str:
    """Return the first line of a text, of at most 300 characters."""
    return text.strip().partition("\n")[0][:_LONGEST_LINE]


def without_varying(line: str) -> str:
    """Return what an error has in common with others that differ in numbers and ids only."""
    return _VARYING.sub("#", line)


def pattern_of(line: str) -> str:
    """Return a pattern that matches an error, and others that differ in key, numbers and ids."""
    literal = _SPECIAL.sub(lambda found: f"[{found[0]}]", line)
    return re.sub(r"\*[*]+", "*", _VARYING.sub("*", literal).replace("…", "*"))


def matches(line: str, patterns: Collection[str]) -> bool:
    """Tell whether an error is meant by one of these patterns; by none of them all are."""
    return not patterns or any(fnmatch.fnmatchcase(line, pattern) for pattern in patterns)


def without_key(key: str, text: str) -> str:
    """Return a text with a placeholder where it names a key, as it is, quoted or in a URL."""
    text = _without_word(key, text)
    if _WRITTEN_ALIKE.fullmatch(key):
        return text
    for written in (repr(key)[1:-1], quote(key), quote_plus(key, safe="/")):
        text = _without_word(written, text)
    return text


def _without_word(word: str, text: str) -> str:
    if not word or word not in text:
        return text
    whole, *parts = text.split(word)
    for part in parts:
        inside = whole[-1:].isalnum() or part[:1].isalnum()
        whole += (word if inside else "…") + part
    return whole
