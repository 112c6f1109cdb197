"""Command lines that send signed requests: safe to paste, whatever keys and files are called.

They take a POSIX shell, zsh or fish, curl 7.76 or newer, and POSIX's split and awk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.errors import UsageError
from twobuckets.text import UnquotableError, shell_word

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# Reads the answers' headers in the order of the parts and stops at a part without an ETag: S3 would
# complete the upload without that part. The names are those that `split` gives.
_COLLECT = """\
function name(n, i, s) {\
 for (i = 0; i < 5; i++) { s = substr("abcdefghijklmnopqrstuvwxyz", n % 26 + 1, 1) s;\
 n = int(n / 26) } return s }\
 BEGIN { print "<CompleteMultipartUpload>"; for (n = 0; n < ARGV[2]; n++) {\
 file = ARGV[1] ".part" name(n) ".headers"; etag = "";\
 while ((getline line < file) > 0) if (tolower(line) ~ /^etag:/) {\
 etag = line; sub(/^[^:]*:[ ]*/, "", etag); sub(/[^"]*$/, "", etag) } close(file);\
 if (etag == "") { print "part " n + 1 " was not sent" > "/dev/stderr"; exit 1 }\
 print "<Part><PartNumber>" n + 1 "</PartNumber><ETag>" etag "</ETag></Part>" }\
 print "</CompleteMultipartUpload>"; exit 0 }"""

# S3 can begin with 200 and then tell of an error (S3 API reference, CompleteMultipartUpload).
_PROVE = "{ print } /<CompleteMultipartUploadResult/ { done = 1 } END { exit !done }"


class Curl:
    """Lines for a POSIX shell, zsh or fish."""

    def put_line(self, url: str, headers: Mapping[str, str], file: str, *, key: str) -> str:
        """Return the line that sends a file with PUT."""
        return _joined([*_curl(headers, key), *_sending(file, key), url])

    def form_line(self, url: str, form: Mapping[str, str], file: str) -> str | None:
        """Return the line that posts a form; None when no shell has a word for its key."""
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

    def cutting_line(self, file: str, part_bytes: int | None) -> str | None:
        """Return the line that cuts a file into parts; None when that is for the sender to do."""
        if part_bytes is None:
            return None
        named = _named(file)
        return _joined(["split", "-a", "5", "-b", str(part_bytes), named, f"{named}.part"])

    def part_line(
        self,
        url: str,
        headers: Mapping[str, str],
        file: str,
        number: int,
        size_bytes: int | None,
        *,
        key: str,
    ) -> str:
        """Return the line that sends one part and keeps the answer's headers beside it."""
        piece = f"{_named(file)}.part{_suffix(number)}"
        kept = ["--dump-header", f"{piece}.headers"]
        return _joined([*_curl(headers, key), *kept, *_sending(piece, key), url])

    def completing_line(
        self, url: str, headers: Mapping[str, str], file: str, parts: int, *, key: str
    ) -> str:
        """Return the line that completes the upload with what the answers to its parts said."""
        named = _named(file)
        body = f"{named}.complete.xml"
        sending = ["--request", "POST", "--data-binary", f"@{body}", url]
        collect = _joined(["awk", _COLLECT, named, str(parts)])
        send = _joined([*_curl(headers, key), *sending])
        prove = _joined(["awk", _PROVE])
        return f"{collect} > {_joined([body])} && {send} | {prove}"

    def plain_line(self, url: str, method: str, *, key: str) -> str:
        """Return the line for a request without a body."""
        options = [] if method == "GET" else ["--request", method]
        return _joined([*_curl({}, key), *options, url])


def _curl(headers: Mapping[str, str], key: str) -> list[str]:
    words = ["curl", "--fail-with-body", "--globoff"]
    if any(segment in (".", "..") for segment in key.split("/")):
        words.append("--path-as-is")
    for name, value in headers.items():
        # curl says the file's own length.
        if name != "content-length":
            words += ["--header", f"{name}: {value}"]
    return words


def _sending(file: str, key: str) -> list[str]:
    # curl appends the file's name to a path that ends in a slash.
    if key.endswith("/"):
        return ["--request", "PUT", "--data-binary", f"@{_named(file)}"]
    return ["--upload-file", _named(file)]


def _suffix(number: int) -> str:
    """Return what `split -a 5` puts behind the name of a part, which counts from 1."""
    letters, rest = "", number - 1
    for _ in range(5):
        rest, digit = divmod(rest, 26)
        letters = chr(ord("a") + digit) + letters
    return letters


def _named(file: str) -> str:
    # Programs take a name that begins with a hyphen for an option, or for standard input.
    return f"./{file}" if file.startswith("-") else file


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
