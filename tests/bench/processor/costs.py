"""Requests and CPU seconds as dollars and as seconds of a small function, and tables of them."""

from collections.abc import Mapping, Sequence

from twobuckets.prices import US_EAST_1

WRITES = frozenset(
    {
        "PutObject",
        "CopyObject",
        "CreateMultipartUpload",
        "UploadPart",
        "UploadPartCopy",
        "CompleteMultipartUpload",
        "ListObjects",
        "ListObjectVersions",
        "ListMultipartUploads",
        "ListParts",
        "DeleteObjects",
    }
)
"""What S3 charges as PUT, COPY, POST and LIST; the names are the yardstick's."""
FREE = frozenset({"DeleteObject", "AbortMultipartUpload", "connections"})
VCPU_MB = 1769
"""Memory for which Lambda gives one whole vCPU (Lambda developer guide, "Memory")."""


def count(requests: Mapping[str, int]) -> int:
    """Return how many requests there were."""
    return sum(number for kind, number in requests.items() if kind != "connections")


def dollars(requests: Mapping[str, int]) -> float:
    """Return what the requests cost at S3's list prices."""
    writes = sum(number for kind, number in requests.items() if kind in WRITES)
    reads = sum(
        number for kind, number in requests.items() if kind not in WRITES and kind not in FREE
    )
    return US_EAST_1.requests_usd(writes=writes, reads=reads)


def start_seconds(init_cpu: float, first_cpu: float, memory_mb: int) -> float:
    """Return how long INIT and the first invocation take, without waiting for the network.

    INIT has a whole vCPU whatever the memory is, an invocation its share of one.
    """
    return init_cpu + first_cpu * VCPU_MB / memory_mb


def shown(requests: Mapping[str, int]) -> str:
    """Return the requests by kind as text."""
    return " ".join(
        f"{kind}:{number}" for kind, number in sorted(requests.items()) if kind != "connections"
    )


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown, its columns aligned."""
    widths = [max(len(row[n]) for row in (head, *rows)) for n in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| "
        + " | ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        + " |"
        for line in lines
    )
