"""The manual: it is whole, its links and commands lead somewhere, and `help` shows it."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from rich.console import Console

from tests import docs
from twobuckets import manual
from twobuckets.cli import COMMANDS, cli, global_options
from twobuckets.cli.views import human
from twobuckets.settings import Settings

PAGES = [docs.README, *(p for p in docs.PAGES if p.suffix == ".md")]
GLOBAL_OPTIONS = {name for option in global_options() for name in option.opts} | {
    "--help",
    "-h",
    "--version",
}


def run(*arguments: str):
    return CliRunner().invoke(cli, arguments, prog_name="twobuckets")


def test_what_is_generated_is_what_the_code_says():
    ran = subprocess.run(
        [sys.executable, "-m", "cogapp", "--check", docs.README, *docs.PAGES],
        capture_output=True,
        text=True,
        cwd=docs.README.parent,
    )
    assert ran.returncode == 0, f"run `python -m tests.docs`\n{ran.stdout}{ran.stderr}"


def test_every_page_is_a_topic_and_every_topic_has_a_page():
    assert {p.stem for p in docs.PAGES if p.suffix == ".md"} == {t.topic for t in manual.TOPICS}


def test_the_readme_is_short():
    assert len(docs.README.read_text("utf-8").splitlines()) <= 220


def test_the_changelog_has_every_entry_once_and_under_a_heading():
    text = (docs.README.parent / "CHANGELOG.md").read_text("utf-8")
    kinds = ("Added", "Changed", "Deprecated", "Removed", "Fixed", "Security")
    for release in text.split("\n## ")[1:]:
        title, *groups = release.split("\n### ")
        assert re.match(r"\[(Unreleased\]|\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d)", title), title
        assert "\n- " not in title, title
        assert [g.partition("\n")[0] for g in groups] == [
            kind for kind in kinds if any(g.startswith(f"{kind}\n") for g in groups)
        ]
        entries = [line for g in groups for line in g.splitlines() if line.startswith("- ")]
        assert len(entries) == len(set(entries))


@pytest.mark.parametrize("name", COMMANDS)
def test_every_commands_help_names_its_topic(name: str):
    assert f"Manual: `twobuckets help {manual.topic_of(name)}`." in run(name, "--help").stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_permissions_that_every_command_needs_are_named(name: str):
    lines = manual.read_page("permissions").text.splitlines()
    assert any(f"`{name}" in line.partition("**: ")[0] for line in lines if line[:3] == "- *")


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_to_what_is_there(page: Path):
    text = page.read_text("utf-8")
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", text):
        if not target.startswith("https://"):
            assert (page.parent / target).exists(), target


def commands_in(page: Path) -> Iterator[str]:
    """Yield the command lines of our program that a page shows, in blocks and in sentences."""
    text = page.read_text("utf-8")
    for block in re.findall(r"```(?:sh|console)\n(.*?)```", text, re.DOTALL):
        yield from re.findall(r"(?<![\w./])twobuckets [^\n|&;)]+", block)
    for words in re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        name = words.removeprefix("twobuckets ").partition(" ")[0]
        if words.startswith("twobuckets ") or (name in COMMANDS and " " in words):
            yield f"twobuckets {words.removeprefix('twobuckets ')}".replace("\\|", "|")


def known_options(words: list[str]) -> tuple[set[str], list[str]]:
    """Return the options that a command line may have, and the names of its commands."""
    command: click.Command = cli
    options, path = set(GLOBAL_OPTIONS), []
    takes_value = {n for o in global_options() if not o.is_flag and not o.count for n in o.opts}
    before = ""
    for word in words:
        is_value, before = before in takes_value, word
        if isinstance(command, click.Group) and not word.startswith("-") and not is_value:
            found = command.get_command(click.Context(command), word)
            if found is not None:
                command = found
                path.append(word)
    options |= {
        name for p in command.params for name in (*p.opts, *p.secondary_opts) if name[0] == "-"
    }
    return options, path


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_the_commands_that_pages_show_exist_with_their_options(page: Path):
    for line in commands_in(page):
        words = shlex.split(line.partition("|")[0], comments=True)[1:]
        options, path = known_options(words)
        if path[:2] == ["local", "exec"]:
            continue
        assert path or {"--stack", "--version"} & set(words) or "TOPIC" in line, line
        for word in words:
            if word.startswith("--") and len(word) > 2:
                assert word.partition("=")[0] in options, line


def test_every_setting_says_what_it_means():
    settings = {f.name for f in dataclasses.fields(Settings) if "path" in f.metadata}
    assert settings - docs.settings_say().keys() == set()


def test_a_pipe_gets_markdown_whose_links_are_commands():
    shown = run("help", "doctor").stdout
    assert shown.startswith("# Doctor\n")
    assert "design (`twobuckets help design`)" in shown
    assert "[[[" not in shown
    assert ".md)" not in shown


def test_a_commands_name_shows_the_page_that_explains_it():
    assert run("help", "presign").stdout == run("help", "uploading").stdout


def test_without_a_topic_it_lists_them():
    lines = run("help").stdout.splitlines()
    assert [line.split()[0] for line in lines] == [t.topic for t in manual.TOPICS]


def test_a_mistyped_topic_is_usage_and_names_the_nearest():
    result = run("help", "uplaoding")
    assert result.exit_code == 2
    assert "did you mean 'uploading'?" in result.stderr


def test_json_has_the_page_and_a_summary():
    page, summary = map(json.loads, run("help", "settings", "--json").stdout.splitlines())
    assert (page["type"], page["topic"]) == ("manual-page", "settings")
    assert page["text"].startswith("# Settings\n")
    assert summary == {"type": "summary", "topics": 1}


@pytest.mark.parametrize("topic", [topic.topic for topic in manual.TOPICS])
def test_no_word_is_cut_on_a_terminal_of_80_columns(topic: str):
    page = manual.read_page(topic)
    console = Console(width=80, file=io.StringIO())
    with console.capture() as shown:
        console.print(human(page))
    assert shown.get().count("…") == page.text.count("…")


def test_a_terminal_gets_the_page_laid_out_in_its_pager(tmp_path: Path):
    pager = tmp_path / "pager"
    pager.write_text(f"#!/bin/sh\ncat > {tmp_path / 'shown'}\n")
    pager.chmod(0o755)
    environment = os.environ | {"PAGER": str(pager), "TERM": "xterm-256color", "COLUMNS": "80"}
    child, terminal = pty.fork()
    if child == 0:
        os.execve(
            sys.executable,
            [sys.executable, "-m", "twobuckets", "help", "output"],
            environment,
        )
    # On Linux the end of the other side is an error.
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    shown = re.sub(r"\x1b\[[0-9;]*m", "", (tmp_path / "shown").read_text("utf-8"))
    assert "Output and exit status" in shown
    assert "# Output" not in shown
    assert max(map(len, shown.splitlines())) <= 80
