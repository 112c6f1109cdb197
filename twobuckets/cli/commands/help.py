"""`twobuckets help`: the manual's pages."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from twobuckets.cli import command, completes
from twobuckets.cli.records import HelpSummary
from twobuckets.errors import UsageError
from twobuckets.manual import TOPICS, read_page, topic_of

if TYPE_CHECKING:
    from twobuckets.cli.app import App


@command("help")
@click.argument("topic", required=False, shell_complete=completes("topics"))
@click.pass_obj
def help(app: App, topic: str | None) -> None:  # noqa: A001 - named as it is typed
    """Show a page of the manual, or the list of its topics.

    TOPIC is one of the list's names, or a command. On a terminal the page is shown in your $PAGER,
    in a pipe as Markdown.

    \b
      twobuckets help
      twobuckets help uploading
    """
    if topic is None:
        app.out.stream(TOPICS)
        app.finish(HelpSummary(len(TOPICS)))
        return
    names = [known.topic for known in TOPICS]
    # A command may share its name with a topic: the topic is meant, and explains the command.
    name = topic if topic in names else topic_of(topic)
    if name is None:
        near = difflib.get_close_matches(topic, names, n=1)
        raise UsageError(
            f"The manual has no topic {topic!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            hint="`twobuckets help` lists the topics.",
        )
    app.out.page(read_page(name))
    app.finish(HelpSummary(1))
