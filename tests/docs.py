"""The generated parts of the README: `cog -r README.md` writes them, `cog --check` compares."""

from __future__ import annotations

from dataclasses import fields

import click
from click.testing import CliRunner

from twobuckets.cli import cli
from twobuckets.doctor import list_checks
from twobuckets.settings import Settings
from twobuckets.units import format_duration

WIDTH = 88


def command_help() -> str:
    """Return what the program prints as its help and that of every command as Markdown."""
    return "\n".join(_help(path) for path in command_paths())


def command_paths(group: click.Group = cli, *path: str) -> list[tuple[str, ...]]:
    """Return the words of every group and command, in the order in which help names them."""
    paths = [path]
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            paths += command_paths(command, *path, name)
        else:
            paths.append((*path, name))
    return paths


def _help(path: tuple[str, ...]) -> str:
    shown = (
        CliRunner()
        .invoke(
            cli,
            [*path, "--help"],
            prog_name="twobuckets",
            max_content_width=WIDTH,
            terminal_width=WIDTH,
            catch_exceptions=False,
        )
        .stdout
    )
    lines = "\n".join(line.rstrip() for line in shown.splitlines())
    return f"\n### {' '.join(['twobuckets', *path])}\n\n```text\n{lines}\n```\n"


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
