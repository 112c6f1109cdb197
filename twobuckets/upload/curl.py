"""Command lines that send signed requests: safe to paste, whatever keys and files are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.errors import UsageError
from twobuckets.text import UnquotableError, shell_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


def line(url: str, headers: Mapping[str, str], options: list[str], *, key: str) -> str:
    """Return the line for a request; its length is not in it, because curl says the file's own."""
    words = ["curl", "--fail-with-body", "--globoff"]
    if any(segment in (".", "..") for segment in key.split("/")):
        words.append("--path-as-is")
    for name, value in headers.items():
        if name != "content-length":
            words += ["--header", f"{name}: {value}"]
    return _joined([*words, *options, url])


def form_line(url: str, form: Mapping[str, str], file: str) -> str | None:
    """Return the line that posts a form with a file; None when no shell has a word for its key."""
    try:
        shell_word(form["key"])
    except UnquotableError:
        return None
    words = ["curl", "--fail-with-body"]
    for name, value in form.items():
        # Not --form, which reads a file for a value that begins with @ or <.
        words += ["--form-string", f"{name}={value}"]
    escaped = _named(file).replace("\\", "\\\\").replace('"', '\\"')
    return _joined([*words, "--form", f'file=@"{escaped}"', url])


def sending(file: str, key: str) -> list[str]:
    """Return the options that send a file with PUT."""
    # curl appends the file's name to a path that ends in a slash.
    if key.endswith("/"):
        return ["--request", "PUT", "--data-binary", f"@{_named(file)}"]
    return ["--upload-file", _named(file)]


def split_line(file: str, part_bytes: int) -> str:
    """Return the line that cuts a file into the pieces of `piece`."""
    return _joined(["split", "-d", "-a", "5", "-b", str(part_bytes), file, f"{file}.part"])


def piece(file: str, number: int) -> str:
    """Return the name of a file's part; parts count from 1, and what `split` writes from 0."""
    return f"{file}.part{number - 1:05}"


def _named(file: str) -> str:
    # curl reads standard input for a file of this name.
    return "./-" if file == "-" else file


def _joined(words: Iterable[str]) -> str:
    """Return the words as a line. Raises UsageError for a file that no shell can name."""
    try:
        return " ".join(map(shell_word, words))
    except UnquotableError:
        raise UsageError(
            "Could not write a command line for a file whose name ends in a newline: no shell has a"
            " word for it",
            hint="Rename the file.",
        ) from None
