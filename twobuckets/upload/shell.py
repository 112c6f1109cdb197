"""What a shell's command lines for signed requests have to do, whichever shell it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Shell(Protocol):
    """Writes the command lines that send signed requests, for one kind of shell.

    `headers` are what was signed. Raises UsageError for a file that the shell has no word for.
    """

    def put_line(self, url: str, headers: Mapping[str, str], file: str, *, key: str) -> str:
        """Return the line that sends a file with PUT."""

    def form_line(self, url: str, form: Mapping[str, str], file: str) -> str | None:
        """Return the line that posts a form with a file; None when it can't be written."""

    def cutting_line(self, file: str, part_bytes: int | None) -> str | None:
        """Return what comes before the lines of the parts, if anything does."""

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
        """Return the line that sends one part."""

    def completing_line(
        self, url: str, headers: Mapping[str, str], file: str, parts: int, *, key: str
    ) -> str:
        """Return the line that completes the upload, from what those of the parts left."""

    def plain_line(self, url: str, method: str, *, key: str) -> str:
        """Return the line for a request without a body."""
