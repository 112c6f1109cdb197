"""Command lines that send signed requests with PowerShell, 5.1 or newer; a form takes 7.

They call no program: what PowerShell makes of quotes in a program's arguments differs by version.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.errors import UsageError
from twobuckets.text import is_hidden

if TYPE_CHECKING:
    from collections.abc import Mapping

# PowerShell takes each of these for a quote that ends a word (its language specification, 2.3.5.2).
_QUOTES = "'\u2018\u2019\u201a\u201b"


class PowerShell:
    """Lines for PowerShell."""

    def put_line(self, url: str, headers: Mapping[str, str], file: str, *, key: str) -> str:
        """Return the line that sends a file with PUT."""
        return f"{_request('Put', url, headers, key)} -InFile {_word(file)}"

    def form_line(self, url: str, form: Mapping[str, str], file: str) -> str | None:
        """Return the line that posts a form; None for a key that would not show in it."""
        if any(map(is_hidden, form["key"])):
            return None
        fields = [f"{_word(name)} = {_word(value)}" for name, value in form.items()]
        fields.append(f"'file' = Get-Item -LiteralPath {_word(file)}")
        return f"{_request('Post', url, {}, '')} -Form ([ordered]@{{ {'; '.join(fields)} }})"

    def cutting_line(self, file: str, part_bytes: int | None) -> str | None:
        """Return the line that opens a file to read part after part."""
        if part_bytes is None:
            return "$etag = @{}"
        path = f"(Resolve-Path -LiteralPath {_word(file)}).ProviderPath"
        return f"$etag = @{{}}; $in = New-Object IO.BinaryReader ([IO.File]::OpenRead({path}))"

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
        """Return the line that sends one part and keeps its ETag."""
        body = f"-Body $in.ReadBytes({size_bytes})"
        if size_bytes is None:
            body = f"-InFile {_word(f'{file}.part{number}')}"
        answer = f"({_request('Put', url, headers, key)} {body})"
        return f"$etag[{number}] = [string]{answer}.Headers['ETag']"

    def completing_line(
        self, url: str, headers: Mapping[str, str], file: str, parts: int, *, key: str
    ) -> str:
        """Return the line that completes the upload with the ETags of its parts."""
        collect = (
            f'$xml = 1..{parts} | ForEach-Object {{ if (-not $etag[$_]) {{ throw "part $_ was not '
            'sent" }; "<Part><PartNumber>$_</PartNumber><ETag>$($etag[$_])</ETag></Part>" }'
        )
        body = '"<CompleteMultipartUpload>$(-join $xml)</CompleteMultipartUpload>"'
        send = f"{_request('Post', url, headers, key)} -ContentType 'application/xml' -Body {body}"
        prove = (
            "if ([string]$done.Content -notmatch '<CompleteMultipartUploadResult') "
            "{ throw [string]$done.Content }"
        )
        return f"{collect}; $done = {send}; {prove}"

    def plain_line(self, url: str, method: str, *, key: str) -> str:
        """Return the line for a request without a body."""
        return _request(method.capitalize(), url, {}, key)


def _request(method: str, url: str, headers: Mapping[str, str], key: str) -> str:
    if any(segment in (".", "..") for segment in key.split("/")):
        raise UsageError(
            "Could not write a PowerShell line for this key: PowerShell takes '.' and '..' out of "
            "a URL",
            hint="Leave out --shell.",
        )
    words = ["Invoke-WebRequest", "-UseBasicParsing", "-Method", method, "-Uri", _word(url)]
    # What it says itself: the length, and the type by a parameter of its own.
    own = {n: v for n, v in headers.items() if n not in ("content-length", "content-type")}
    if "content-type" in headers:
        words += ["-ContentType", _word(headers["content-type"])]
    if own:
        pairs = "; ".join(f"{_word(name)} = {_word(value)}" for name, value in own.items())
        words += ["-Headers", f"@{{ {pairs} }}"]
    return " ".join(words)


def _word(text: str) -> str:
    """Return a text as PowerShell's literal. Raises UsageError for what would not show in it."""
    if any(map(is_hidden, text)):
        raise UsageError(
            "Could not write a PowerShell line for a name with characters that don't show",
            hint="Rename the file, or leave out --shell.",
        )
    return "'" + "".join(c * 2 if c in _QUOTES else c for c in text) + "'"
