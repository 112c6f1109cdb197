"""The generated parts of the README: `cog -r README.md` writes them, `cog --check` compares."""

from __future__ import annotations

from dataclasses import fields

import click

from twobuckets.cli import COMMANDS, cli
from twobuckets.doctor import list_checks
from twobuckets.settings import Settings
from twobuckets.units import format_duration

WIDTH = 88


def command_help() -> str:
    """Return the help of the program and of every command as Markdown."""
    root = click.Context(cli, info_name="twobuckets", max_content_width=WIDTH, terminal_width=WIDTH)
    parts = [_block("twobuckets", cli.get_help(root))]
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        parts += _help_of(command, name, root)
    return "\n".join(parts)


def _help_of(command: click.Command, name: str, parent: click.Context) -> list[str]:
    context = click.Context(
        command, info_name=name, parent=parent, max_content_width=WIDTH, terminal_width=WIDTH
    )
    parts = [_block(context.command_path, command.get_help(context))]
    if isinstance(command, click.Group):
        for child_name in command.list_commands(context):
            child = command.get_command(context, child_name)
            assert child is not None
            parts += _help_of(child, child_name, context)
    return parts


def _block(path: str, text: str) -> str:
    lines = "\n".join(line.rstrip() for line in text.splitlines())
    return f"\n### {path}\n\n```text\n{lines}\n```\n"


def settings_table() -> str:
    """Return every setting of `twobuckets.toml` with its variable and default as Markdown."""
    rows = ["", "| in `twobuckets.toml` | environment | default |", "|---|---|---|"]
    for setting in fields(Settings):
        if "path" not in setting.metadata:
            continue
        variables = ", ".join(f"`{name}`" for name in setting.metadata["environment"])
        rows.append(f"| `{setting.metadata['path']}` | {variables} | {_shown(setting.default)} |")
    return "\n".join([*rows, ""])


def checks_table() -> str:
    """Return every check of doctor with its family and what it means as Markdown."""
    rows = ["", "| finding | family | `--fix` | means |", "|---|---|---|---|"]
    rows += [
        f"| `{c.name}` | {c.family} | {'yes' if c.fixable else ''} | {c.says} |"
        for c in list_checks()
    ]
    return "\n".join([*rows, ""])


def _shown(default: object) -> str:
    if default is None:
        return ""
    if default == ():
        return "none"
    if hasattr(default, "total_seconds"):
        return f"`{format_duration(default)}`"  # type: ignore[arg-type]
    return f"`{default}`"
