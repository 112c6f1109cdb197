"""`twobuckets completion`: the script that makes a shell complete our commands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from twobuckets.cli import COMPLETE_VARIABLE, PROGRAM, command
from twobuckets.cli.records import CompletionScript, CompletionSummary

if TYPE_CHECKING:
    from twobuckets.cli.app import App


@command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_obj
def completion(app: App, shell: str) -> None:
    """Print the script that makes a shell complete commands, options and names.

    It completes files, stacks, profiles, regions, checks, topics, and keys in the bucket that is
    meant. The first line below is for ~/.bashrc, the second for ~/.zshrc, after compinit.

    \b
      eval "$(twobuckets completion bash)"
      eval "$(twobuckets completion zsh)"
      twobuckets completion fish > ~/.config/fish/completions/twobuckets.fish
    """
    from click.shell_completion import get_completion_class

    from twobuckets.cli import completing  # noqa: F401 - tells click of our classes

    writer = get_completion_class(shell)
    assert writer is not None
    root = click.get_current_context().find_root().command
    script = writer(root, {}, PROGRAM, COMPLETE_VARIABLE).source()
    if app.json:
        app.out.record(CompletionScript(shell, script))
        app.finish(CompletionSummary(shell))
    else:
        app.out.raw(script)
