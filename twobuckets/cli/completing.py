"""What a shell completes: names that are known here, and keys that S3 is asked for.

A shell waits for the answer with its line half typed. So an answer is short, comes within two
seconds or not at all, starts and deploys nothing, and an error is no answer.
"""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ZshComplete,
    add_completion_class,
)

from twobuckets.text import visible

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import click

    from twobuckets.cli.app import App

    Find = Callable[["Question"], Iterable[str]]
    Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem[Any]]]


class Question(NamedTuple):
    """A word to complete, and the place of the bucket that its line names, if it does."""

    app: App
    place: str | None
    incomplete: str


PATIENCE_SECONDS: Final = 2.0
MOST: Final = 100


def files(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem[Any]]:
    """Let the shell complete the name of a file."""
    return [CompletionItem(incomplete, type="file")]


def _names(find: Find) -> Complete:
    """Make a completer of a function that returns names, which need not be bounded."""

    def complete(
        ctx: click.Context, _: click.Parameter, incomplete: str
    ) -> list[CompletionItem[Any]]:
        found: list[str] = []

        def look() -> None:
            # Whatever goes wrong, a person who types is not told.
            with contextlib.suppress(Exception):
                for name in find(
                    Question(ctx.find_root().obj, ctx.params.get("place"), incomplete)
                ):
                    # A name that a line can't show is typed otherwise.
                    if name.startswith(incomplete) and visible(name) == name:
                        found.append(name)
                    if len(found) == MOST:
                        return

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        looking.join(PATIENCE_SECONDS)
        return [
            CompletionItem(name, type="prefix" if name.endswith("/") else "plain")
            for name in found.copy()
        ]

    return complete


def _find_stacks(question: Question) -> Iterable[str]:
    yield "local"
    app = question.app
    # What is typed so far is no stack yet.
    app.flags["stack"] = None
    pages = app.aws.cloudformation.get_paginator("describe_stacks").paginate()
    yield from (stack["StackName"] for page in pages for stack in page["Stacks"])


def _find_profiles(_: Question) -> Iterable[str]:
    from twobuckets.aws.clients import list_profiles

    return list_profiles()


def _find_regions(_: Question) -> Iterable[str]:
    from twobuckets.aws.clients import list_regions

    return list_regions()


def _find_checks(_: Question) -> Iterable[str]:
    from twobuckets.doctor import list_checks

    checks = list(list_checks())
    return [*dict.fromkeys(check.family for check in checks), *(check.name for check in checks)]


def _find_topics(_: Question) -> Iterable[str]:
    from twobuckets.manual import TOPICS

    return [topic.topic for topic in TOPICS]


def _find_keys(*places: str) -> Find:
    def find(question: Question) -> Iterable[str]:
        app, named = question.app, question.place
        pipeline = app.known_pipeline()
        seen = set()
        for place in (named,) if named in ("staging", "archive") else places:
            page = app.aws.s3.list_objects_v2(
                Bucket=pipeline.archive if place == "archive" else pipeline.staging,
                Prefix=question.incomplete,
                Delimiter="/",
                MaxKeys=MOST,
            )
            for name in (
                *(prefix["Prefix"] for prefix in page.get("CommonPrefixes", [])),
                *(item["Key"] for item in page.get("Contents", [])),
            ):
                if name not in seen:
                    seen.add(name)
                    yield name

    return find


stacks: Final = _names(_find_stacks)
profiles: Final = _names(_find_profiles)
regions: Final = _names(_find_regions)
checks: Final = _names(_find_checks)
topics: Final = _names(_find_topics)
listed_keys: Final = _names(_find_keys("staging"))
staged_or_archived_keys: Final = _names(_find_keys("staging", "archive"))
archived_or_staged_keys: Final = _names(_find_keys("archive", "staging"))


class Bash(BashComplete):
    """As click does it, with words quoted, and no blank after the beginning of a key."""

    source_template = """\
%(complete_func)s() {
    local IFS=$'\\n' response completion kind value
    response=$(env COMP_WORDS="${COMP_WORDS[*]}" COMP_CWORD=$COMP_CWORD \\
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
    for completion in $response; do
        kind=${completion%%%%,*} value=${completion#*,}
        case $kind in
            file) COMPREPLY=(); compopt -o default ;;
            prefix) COMPREPLY+=("$(printf '%%q' "$value")"); compopt -o nospace ;;
            plain) COMPREPLY+=("$(printf '%%q' "$value")") ;;
        esac
    done
    # bash begins a new word after a colon, and replaces that word only.
    local typed=${COMP_LINE:0:COMP_POINT}
    typed=${typed##* }
    if [[ $typed == *:* && $COMP_WORDBREAKS == *:* ]]; then
        COMPREPLY=("${COMPREPLY[@]#"${typed%%"${typed##*:}"}"}")
    fi
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""

    @staticmethod
    def _check_version() -> None:
        """Print the script whatever bash is here: it may be for another machine."""


class Zsh(ZshComplete):
    """As click does it, with no blank after the beginning of a key."""

    source_template = ZshComplete.source_template.replace(
        """        elif [[ "$type" == "dir" ]]; then""",
        """        elif [[ "$type" == "prefix" ]]; then
            compadd -U -S '' -- "$key"
        elif [[ "$type" == "dir" ]]; then""",
    )


add_completion_class(Bash)
add_completion_class(Zsh)
