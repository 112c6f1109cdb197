"""What is archived in each case, and the events of it."""

import re
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.bench.tools import ARCHIVE, STAGING
from tests.bench.yardstick import Yardstick

_ROW = re.compile(
    r"<Version><Key>(?P<key>.*?)</Key><VersionId>(?P<id>.*?)</VersionId>"
    r".*?<ETag>&quot;(?P<etag>.*?)&quot;</ETag><Size>(?P<size>\d+)</Size>"
)
KIB, MIB, GIB = 2**10, 2**20, 2**30


@dataclass(frozen=True, slots=True)
class Case:
    """How the buckets are filled before the events; `reads` is what the user's function reads."""

    name: str
    fill: Callable[[Yardstick], None]
    reads: str = "nothing"
    repeats: int = 1
    """How often each event is delivered."""


def _one(
    size: int, *, bodiless: bool = False, archived: bool = False
) -> Callable[[Yardstick], None]:
    def fill(server: Yardstick) -> None:
        more = {"bodiless": 1} if bodiless else {"crc32": 1}
        if archived:
            server.ask("fill", bucket=ARCHIVE, n=1, size=size + 1, **more)
        server.ask("fill", bucket=STAGING, n=1, size=size, **more)

    return fill


def _twice(server: Yardstick) -> None:
    for size in (4 * KIB, 5 * KIB):
        server.ask("fill", bucket=STAGING, n=1, size=size, crc32=1)


CASES = (
    Case("4 KiB, not read", _one(4 * KIB)),
    Case("4 KiB, `text()`", _one(4 * KIB), "text"),
    Case("100 MiB, not read", _one(100 * MIB, bodiless=True)),
    Case("1 GiB, by lines", _one(GIB), "lines"),
    Case("6 GiB, not read", _one(6 * GIB, bodiless=True)),
    Case("key is in the archive already", _one(4 * KIB, archived=True)),
    Case("key uploaded twice, both events", _twice),
    Case("event delivered twice", _one(4 * KIB), repeats=2),
)


def events(server: Yardstick) -> list[dict[str, Any]]:
    """Return one S3 event for each version in staging, the oldest first."""
    found: list[re.Match[str]] = []
    marker = ""
    while True:
        address = f"{server.control}/{STAGING}?versions{marker}"
        with urllib.request.urlopen(address) as answer:
            text = answer.read().decode()
        found += _ROW.finditer(text)
        if "<IsTruncated>true" not in text:
            break
        last = found[-1]
        marker = f"&key-marker={last['key']}&version-id-marker={last['id']}"
    found.sort(key=lambda row: row["id"])
    return [
        {
            "Records": [
                {
                    "eventVersion": "2.5",
                    "eventSource": "aws:s3",
                    "eventName": "ObjectCreated:Put",
                    "s3": {
                        "bucket": {"name": STAGING},
                        "object": {
                            "key": row["key"],
                            "versionId": row["id"],
                            "eTag": row["etag"],
                            "size": int(row["size"]),
                            "sequencer": f"{int(row['id'][1:]):016X}",
                        },
                    },
                }
            ]
        }
        for row in found
    ]
