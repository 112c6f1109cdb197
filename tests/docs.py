"""The generated parts of the manual: `python -m tests.docs` writes them, `cog --check` compares."""

from __future__ import annotations

import ast
import dataclasses
import enum
import importlib
import inspect
import itertools
import json
import re
import signal
import subprocess
import sys
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath
from typing import Any, Final

import click
from cfnlint.decode import cfn_yaml
from click.testing import CliRunner

from tests.queueing import PLUMBING, Load, simulate
from twobuckets import local, manual
from twobuckets.cli import cli, global_options, rows, views
from twobuckets.cli import records as records_
from twobuckets.doctor import list_checks
from twobuckets.errors import ExitStatus
from twobuckets.manual import TOPICS
from twobuckets.pipeline.lifecycle import Clearing, UploadEnd
from twobuckets.prices import (
    FARGATE_GB_HOUR_USD,
    FARGATE_VCPU_HOUR_USD,
    LAMBDA_GB_SECOND_USD,
    US_EAST_1,
)
from twobuckets.processor.contract import FAILED, Failure, Outcome
from twobuckets.records import type_of
from twobuckets.s3.answers import ListedObject
from twobuckets.s3.uploads import IncompleteUpload
from twobuckets.settings import Settings
from twobuckets.stack.template import template_text
from twobuckets.units import format_duration

WIDTH = 88
PAGES = sorted(p for p in Path(manual.__file__).parent.iterdir() if p.suffix in (".md", ".1"))
README = Path(__file__).parents[1] / "README.md"
NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)


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
    return f"\n## {' '.join(['twobuckets', *path])}\n\n```text\n{lines}\n```\n"


def topics_list() -> str:
    """Return the manual's pages, in the order of reading, as Markdown for the README."""
    return "\n".join(
        ["", *(f"- [{t.topic}](twobuckets/manual/{t.topic}.md): {t.says}" for t in TOPICS), ""]
    )


def settings_table() -> str:
    """Return every setting of `twobuckets.toml`, what it means, its variable and default."""
    rows = ["", "| in `twobuckets.toml` | means |", "|---|---|"]
    says = settings_say()
    for setting in fields(Settings):
        if "path" not in setting.metadata:
            continue
        text = says.get(setting.name, "")
        if variables := setting.metadata["environment"]:
            text += f" Variable: {', '.join(f'`{name}`' for name in variables)}."
        if setting.default not in (None, ()):
            text += f" Default: {_shown(setting.default)}."
        rows.append(f"| `{setting.metadata['path']}` | {text} |")
    return "\n".join([*rows, ""])


def heavy_costs() -> str:
    """Return what an hour of work costs in Lambda and in a job of as many processors."""
    rows = ["", "| an hour of work with | in Lambda | in a job |", "|---|---|---|"]
    for vcpus, memory_gb in ((1, 2), (4, 8), (16, 32)):
        # Lambda gives a processor for each 1,769 MB (Lambda developer guide, "Memory").
        lambda_gb = max(memory_gb, vcpus * 1769 / 1024)
        in_lambda = lambda_gb * 3600 * LAMBDA_GB_SECOND_USD["arm64"]
        in_job = vcpus * FARGATE_VCPU_HOUR_USD["arm64"] + memory_gb * FARGATE_GB_HOUR_USD["arm64"]
        fits = lambda_gb <= 10
        rows.append(
            f"| {vcpus} vCPU, {memory_gb} GB, arm64 | "
            + (f"${in_lambda:.2f}" if fits else "more than it has")
            + f" | ${in_job:.2f} |"
        )
    return "\n".join([*rows, "", "At list prices in us-east-1.", ""])


def settings_say() -> dict[str, str]:
    """Return what each field of the settings means."""
    return _texts_under(Settings)


def _texts_under(described: type) -> dict[str, str]:
    """Return the text that stands under each attribute of a class that has one, by its name."""
    (body,) = ast.parse(inspect.getsource(described)).body
    assert isinstance(body, ast.ClassDef)
    found = {}
    for attribute, text in itertools.pairwise(body.body):
        if not isinstance(text, ast.Expr) or not isinstance(text.value, ast.Constant):
            continue
        if isinstance(attribute, ast.AnnAssign):
            found[ast.unparse(attribute.target)] = str(text.value.value)
        elif isinstance(attribute, ast.Assign):
            found[ast.unparse(attribute.targets[0])] = str(text.value.value)
    return found


def exit_statuses() -> str:
    """Return every exit status and what it means as Markdown."""
    rows = ["", "| exit status | means |", "|---|---|"]
    rows += [f"| {status} | {says} |" for status, says in _statuses()]
    return "\n".join([*rows, ""])


def _statuses() -> Iterator[tuple[int, str]]:
    says = _texts_under(ExitStatus)
    yield from ((status.value, says[status.name]) for status in ExitStatus)
    yield 128 + signal.SIGPIPE, "Whoever read the output stopped reading, as `head` does."


def checks_table() -> str:
    """Return every check of doctor with its family and what it means as Markdown."""
    rows = ["", "| finding | family | `--fix` | means |", "|---|---|---|---|"]
    rows += [
        f"| `{c.name}` | {c.family} | {'yes' if c.fixable else ''} | {c.says} |"
        for c in list_checks()
    ]
    return "\n".join([*rows, ""])


def _shown(default: object) -> str:
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    if hasattr(default, "total_seconds"):
        return f"`{format_duration(default)}`"  # type: ignore[arg-type]
    return f"`{default}`"


def gaps_table() -> str:
    """Return what the embedded AWS does otherwise than AWS as Markdown, from its docstring."""
    lines = (inspect.getdoc(local) or "").splitlines()
    table = "\n".join(lines[next(i for i, line in enumerate(lines) if line.startswith("|")) :])
    return "\n" + re.sub(r"\n(?!\|)\s*", " ", table) + "\n"


def outcome_line() -> str:
    """Return an outcome line of a failure, laid out, as Markdown."""
    outcome = Outcome(
        outcome=FAILED,
        bucket="intake-staging",
        key="in/report.csv",
        version_id="3HL4kqtJvjVBH40Nrjfkd",
        etag="9b2cf535f27731c974343645a3985328",
        size_bytes=2048,
        duration_ms=120,
        request_id="5f0e1c9a-7d53-4c53-9d4d-1b1b8e1f2a77",
        attempt=1,
        error=Failure("KeyError", "'id'", "Traceback (most recent call last): ..."),
        sequencer="0055AED6DCD90281E5",
    )
    shown = json.loads(outcome.line("2026-05-04T12:00:00.000+00:00"))
    return f"\n```json\n{json.dumps(shown, indent=2)}\n```\n"


def backlogs_table() -> str:
    """Return what becomes of some loads as Markdown, simulated."""
    names = (
        "files",
        "a second",
        "one takes",
        "at once",
        "most waiting",
        "longest wait",
        "all done",
    )
    lines = ["", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    for load in _LOADS:
        flow = simulate(load)
        room = f"5 to {load.at_once:,}" if load.begins_with is not None else f"{load.at_once:,}"
        failing = f", {100 // load.fails_every} % fail" if load.fails_every else ""
        wait, done = (
            format_duration(timedelta(seconds=round(seconds)))
            for seconds in (flow.longest_wait, flow.done_after)
        )
        lines.append(
            f"| {load.files:,}{failing} | {load.a_second:,} | {load.seconds} s | {room} | "
            f"{flow.most_waiting:,} | {wait} | {done} |"
        )
    return "\n".join([*lines, ""])


# Lambda developer guide, "Configuring scaling behavior for SQS event source mappings": five batches
# at first, 300 more a minute.
_LOADS: Final = (
    Load(10_000, 3_500, 0.5, 10),
    Load(10_000, 3_500, 0.5, 100),
    Load(10_000, 3_500, 0.5, 1_000),
    Load(10_000, 3_500, 0.5, 1_000, begins_with=5, more_a_minute=300),
    Load(20_000, 100, 0.5, 55),
    Load(20_000, 120, 0.5, 50),
    Load(20_000, 100, 0.5, 60, fails_every=20),
)


def triggers_table() -> str:
    """Return what each trigger costs a million files, beside the requests for the file."""
    lines = ["", "| trigger | SQS and Lambda requests for a file | a million |", "|---|---|---|"]
    for name, plumbing in PLUMBING.items():
        of_sqs = (1 + 2 / plumbing.batch) * plumbing.has_queue
        of_lambda = plumbing.invoked / plumbing.batch
        lines.append(f"| {name} | {of_sqs:g} and {of_lambda:g} | ${plumbing.usd_a_million():.2f} |")
    return "\n".join([*lines, ""])


def processor_permissions() -> str:
    """Return what the template lets the processor do as Markdown."""
    resources = cfn_yaml.loads(template_text())["Resources"]
    (policy,) = resources["ProcessorRole"]["Properties"]["Policies"]
    lines = [""]
    for statement in policy["PolicyDocument"]["Statement"]:
        statement = where_it_holds(statement)
        actions, places = statement["Action"], statement["Resource"]
        shown = ", ".join(f"`{a}`" for a in ([actions] if isinstance(actions, str) else actions))
        places = places if isinstance(places, list) else [places]
        lines.append(f"- on {' and '.join(map(_place, places))}: {shown}")
    return "\n".join([*lines, ""])


def where_it_holds(statement: dict[str, Any]) -> dict[str, Any]:
    """Return what a policy's statement is where its condition, if it has one, holds."""
    held: dict[str, Any] = statement["Fn::If"][1] if "Fn::If" in statement else statement
    return held


_PLACES = {
    "StagingBucketName}/*": "staging's objects",
    "ArchiveBucketName}/*": "the archive's objects",
    "StagingBucketName}": "the staging bucket",
    "ArchiveBucketName}": "the archive bucket",
    "ProcessorLog": "its log group",
    "ArtifactBucket": "artifacts, for jobs",
    "job-queue": "jobs' queue and definition",
    "*": "everything, for AWS Batch knows no resource for it",
    "FailureQueue": "the failure queue",
    "ArrivalQueue": "the queue that feeds it, if there is one",
    "OrderedQueue": "the queue that feeds it in order",
}


def _place(resource: object) -> str:
    return next(says for name, says in _PLACES.items() if name in str(resource))


# Files of views, in the order of the manual, → the commands that show their records.
_SHOWN_BY: Final = {
    "artifact": "init, build",
    "stack": "template, deploy, destroy",
    "upload": "upload",
    "presign": "presign, credentials",
    "waiting": "upload --wait, reprocess --wait",
    "status": "status",
    "": "ls",
    "logs": "logs",
    "trace": "trace",
    "probe": "probe",
    "watch": "watch",
    "doctor": "doctor",
    "reprocess": "reprocess",
    "redriving": "redrive",
    "local": "local",
    "manual": "help",
}
_TOLD_BY: Final = {"Progressed": "upload", "TracedKey": "trace", "FleetSummary": "status"}


def records() -> str:
    """Return every JSON record with its fields as Markdown, by the commands that write it."""
    files = dict.fromkeys((*_SHOWN_BY, *sorted(set(views.FILES.values()) - {"commands"})))
    made = [r for r in vars(records_).values() if getattr(r, "__module__", "") == records_.__name__]
    lines: list[str] = []
    for file in files:
        heading = _SHOWN_BY.get(file, file)
        lines += ["", f"### {heading}", ""]
        lines += _listed() if heading == "ls" else ()
        shown = [*(views.views_of(file) if file else ()), *(r for r in made if _is_of(r, heading))]
        made = [r for r in made if r not in shown]
        lines += map(_record, sorted(shown, key=lambda r: _type_of_class(r) == "summary"))
    return "\n".join([*lines, *(["", "### others", "", *map(_record, made)] if made else []), ""])


def _is_of(record: type, heading: str) -> bool:
    """Tell by its name whether one of these commands makes a record itself."""
    name = _TOLD_BY.get(record.__name__, record.__name__).lower()
    return any(name.startswith(command) for command in heading.split(", "))


def _type_of_class(record: type) -> str:
    """Return the `"type"` of a class of records."""
    return type_of(record.__new__(record)) if not issubclass(record, tuple) else _kebab(record)


def _kebab(record: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", record.__name__).lower()


def _record(record: type) -> str:
    says = " ".join((inspect.getdoc(record) or "").split())
    says = says.replace("None", "null").replace("True", "true").replace("False", "false")
    held = "; ".join(f"`{name}` {kind}" for name, kind in _fields(record))
    return f"- **`{_type_of_class(record)}`**: {says} Fields: {held}."


def _fields(record: type) -> Iterator[tuple[str, str]]:
    hints = typing.get_type_hints(record, localns=_names_for_types(record))
    names = getattr(record, "_fields", None) or [f.name for f in dataclasses.fields(record)]
    for name in names:
        yield name, _kind(hints[name])


def _names_for_types(record: type) -> dict[str, object]:
    """Return what the record's module imports for type checkers only."""
    names: dict[str, object] = {}
    for node in ast.walk(ast.parse(inspect.getsource(sys.modules[record.__module__]))):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for imported in node.body:
                if isinstance(imported, ast.ImportFrom) and imported.module is not None:
                    module = importlib.import_module(imported.module)
                    names |= {
                        a.asname or a.name: getattr(module, a.name, object) for a in imported.names
                    }
    return names


_KINDS: dict[object, str] = {
    str: "text",
    int: "number",
    float: "number",
    bool: "true or false",
    datetime: "instant",
    timedelta: "seconds",
    type(None): "null",
}


def _kind(hint: typing.Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if hint in _KINDS:
        return _KINDS[hint]
    if origin in (types.UnionType, typing.Union):
        return " or ".join(dict.fromkeys(map(_kind, inner)))
    if origin is typing.Literal:
        return " or ".join(f"`{value}`" for value in inner)
    if origin is not None and issubclass(origin, Mapping):
        return f"object of {_kind(inner[1])}"
    if origin is not None:
        return f"list of {_kind(inner[0])}"
    if issubclass(hint, enum.Enum):
        return " or ".join(f"`{member.value}`" for member in hint)
    if issubclass(hint, PurePath):
        return "text"
    if dataclasses.is_dataclass(hint) or hasattr(hint, "_fields"):
        return "{" + ", ".join(f"`{name}` {kind}" for name, kind in _fields(hint)) + "}"
    return "value"


def _listed() -> Iterator[str]:
    """Yield the rows of `ls`, which are no records, by what is written of one."""
    listed = ListedObject("in/a.csv", 1, NOON, "etag", "STANDARD")
    upload = IncompleteUpload(
        key="in/a.csv",
        upload_id="id",
        initiated_at=NOON,
        initiator="arn",
        storage_class="STANDARD",
        parts=1,
        stored_bytes=1,
        abort_at=NOON,
        abort_rule="rule",
    )
    for says, line in (
        ("An object; `age` in staging only.", rows.object_json([listed], now=NOON)),
        (
            "An incomplete upload; what is not known is null.",
            rows.upload_json(
                [upload],
                now=NOON,
                prices=US_EAST_1,
                ends=lambda _: UploadEnd(Clearing.BY_RULE, NOON),
            ),
        ),
    ):
        row = json.loads(line)
        name = row.pop("type")
        held = "; ".join(f"`{field}` {_kind_of_value(field, row[field])}" for field in row)
        yield f"- **`{name}`**: {says} Fields: {held}."


def _kind_of_value(field: str, value: object) -> str:
    if field.endswith("_at"):
        return "instant"
    return "seconds" if field == "age" else _KINDS[type(value)]


def man_page() -> str:
    """Return the commands and their options in roff, from what the program says of itself."""
    root = click.Context(cli, info_name="twobuckets")
    lines = [".SH GLOBAL OPTIONS", "Accepted before and after the command's name."]
    for option in global_options():
        lines += _man_option(option, root)
    lines.append(".SH COMMANDS")
    for path in command_paths()[1:]:
        command, context = _command(path)
        if isinstance(command, click.Group):
            continue
        pieces = " ".join(command.collect_usage_pieces(context))
        lines += [f'.SS "{_roff(" ".join(path))} {_roff(pieces)}"', *_man_text(command.help or "")]
        for parameter in command.params:
            if parameter.expose_value:
                lines += _man_option(parameter, context)
    lines.append(".SH EXIT STATUS")
    for status, says in _statuses():
        lines += [".TP", f".B {status}", _roff(says)]
    return "\n".join(["", *lines, ""])


def _command(path: tuple[str, ...]) -> tuple[click.Command, click.Context]:
    command: click.Command = cli
    context = click.Context(cli, info_name="twobuckets")
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(context, name)
        assert found is not None
        command, context = found, click.Context(found, info_name=name, parent=context)
    return command, context


def _man_option(parameter: click.Parameter, context: click.Context) -> list[str]:
    shown = parameter.get_help_record(context)
    if shown is None or not shown[1]:
        return []
    return [".TP", f".B {_roff(shown[0])}", _roff(shown[1])]


def _man_text(text: str) -> Iterator[str]:
    for paragraph in inspect.cleandoc(text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            yield from (".nf", *map(_roff, paragraph.splitlines()[1:]), ".fi")
        else:
            yield from (".PP", _roff(" ".join(paragraph.split())))


def _roff(text: str) -> str:
    """Return text that roff shows as it is."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace('"', "\\(dq")
    return "\\&" + escaped if escaped.startswith((".", "'")) else escaped


if __name__ == "__main__":
    subprocess.run([sys.executable, "-m", "cogapp", "-r", README, *PAGES], check=True)
