"""The user's function in ours; READS names what it reads: nothing, text, or lines."""

import os

from twobuckets.processor import File

_READS = os.environ.get("READS", "nothing")


def process(file: File) -> None:
    """Read of the file what is to be read."""
    if _READS == "text":
        file.text()
    elif _READS == "lines":
        for _ in file.lines():
            pass
