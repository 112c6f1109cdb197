"""The content type that a file's name suggests, the same on every machine."""

from __future__ import annotations

import mimetypes
from functools import lru_cache
from typing import Final

from twobuckets.upload.files import STDIN

FALLBACK: Final = "application/octet-stream"
"""What S3 itself stores when nothing is said."""

# A compressed file is not what it holds: `rows.csv.gz` served as text/csv would be unreadable.
_COMPRESSED: Final = {
    "gzip": "application/gzip",
    "bzip2": "application/x-bzip2",
    "xz": "application/x-xz",
    "compress": "application/x-compress",
    "br": FALLBACK,
}
_NEWER: Final = {
    ".avif": "image/avif",
    ".geojson": "application/geo+json",
    ".jsonl": "application/jsonl",
    ".md": "text/markdown",
    ".ndjson": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".toml": "application/toml",
    ".webp": "image/webp",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".zst": "application/zstd",
}


def content_type_of(path: str, key: str, wish: str | None) -> str:
    """Return the content type that a file is stored with: the wish, or what its name suggests.

    Standard input has no name but its key.
    """
    return wish or guess_content_type(path if path != STDIN else key)


def guess_content_type(name: str) -> str:
    """Return the content type of a file or key by the end of its name."""
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    if not dot:
        return FALLBACK
    _, dot, inner = stem.rpartition(".")
    return _of_ending(f"x.{inner}.{last}" if dot else f"x.{last}")


@lru_cache(maxsize=1024)
def _of_ending(name: str) -> str:
    # The built-in table only: the one of the system differs from machine to machine.
    known = _table()
    content_type, encoding = known.guess_type(name.lower().replace(":", "_"))
    if encoding is not None:
        return _COMPRESSED.get(encoding, FALLBACK)
    return content_type or FALLBACK


@lru_cache(maxsize=1)
def _table() -> mimetypes.MimeTypes:
    table = mimetypes.MimeTypes()
    for ending, content_type in _NEWER.items():
        table.add_type(content_type, ending)
    return table
