"""The manual: one Markdown page a topic, the same file on the web and in `twobuckets help`.

`TOPICS` lists the pages in the order in which people need them, each with the commands whose help
names it. What follows from the code (checks, settings, records, help) stands between cog's marks
in the pages and is written by `tests/docs.py`. `twobuckets.1` is the man page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final


@dataclass(frozen=True, slots=True)
class Topic:
    """A page of the manual: its name, what it is for, and the commands that it explains."""

    topic: str
    says: str
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ManualPage:
    """A page as Markdown, with the commands that show other pages in place of links to them."""

    topic: str
    text: str


TOPICS: Final = (
    Topic(
        "processor",
        "Write process(), try it on a file; what is guaranteed, and what it may do.",
        ("init", "build"),
    ),
    Topic(
        "deploying",
        "Create, change and delete the stack; what is in it and what it costs.",
        ("template", "deploy", "destroy"),
    ),
    Topic(
        "uploading",
        "Files, folders and streams into staging, by you or by somebody without credentials.",
        ("upload", "presign", "credentials"),
    ),
    Topic(
        "browsers",
        "The upload page and its links: what senders see, what holders can do, the API.",
        ("link",),
    ),
    Topic("clients", "rclone, s5cmd, the AWS CLI, SDKs and curl with credentials for one key."),
    Topic(
        "status",
        "See what is in the pipeline and what became of each file.",
        ("status", "ls", "cat", "get", "logs", "trace", "probe", "watch"),
    ),
    Topic("heavy", "Files that are too much for Lambda, as jobs of AWS Batch."),
    Topic("doctor", "Find what is stuck, orphaned or miswired, and fix it.", ("doctor",)),
    Topic(
        "reprocessing", "Get objects processed again without losing any.", ("reprocess", "redrive")
    ),
    Topic("scale", "What each trigger carries and costs, and when one machine is not enough."),
    Topic("local", "The embedded AWS: a pipeline on your machine.", ("local",)),
    Topic("settings", "Every setting, its variable and default; pairs made by hand."),
    Topic("permissions", "The IAM actions that each command needs."),
    Topic("output", "Exit statuses, --json, and every record with its fields."),
    Topic("commands", "The --help of every command.", ("help", "completion")),
    Topic("design", "How the code is laid out, and how to add to it."),
    Topic("releasing", "How a release is made and checked."),
)
"""Every page, in the order of reading."""

_MARKS = re.compile(r"^<!--.*?-->\n", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\[([^\]]+)\]\(([a-z]+)\.md(?:#[^)]*)?\)")


def topic_of(command: str) -> str | None:
    """Return the topic that explains a command, None where none does."""
    return next((t.topic for t in TOPICS if command in t.commands), None)


def read_page(topic: str) -> ManualPage:
    """Return the page of one of `TOPICS`."""
    text = Path(__file__).with_name(f"{topic}.md").read_text("utf-8")
    return ManualPage(topic, _LINK.sub(r"\1 (`twobuckets help \2`)", _MARKS.sub("", text)))
