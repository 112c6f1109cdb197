"""With `--json` every form of every command writes JSON lines and nothing else to stdout."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from click.testing import CliRunner

from tests import docs
from twobuckets.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

# Each form with the status it ends with on the pair below; those that need a real stack or server
# are tried where there is one.
FORMS: dict[str, int] = {
    "init new": 0,
    "build": 0,
    "template": 0,
    "status": 0,
    "upload some.txt": 0,
    "upload some.txt absent.txt": 3,
    "upload some.txt --dry-run": 0,
    "upload some.txt --discard": 0,
    "presign some.txt": 0,
    "presign some.txt --post --max-size 1MB": 0,
    "presign some.txt --multipart 2": 0,
    "presign some.txt --page -": 0,
    "presign some.txt --page-link": 0,
    "credentials some.txt --role-arn arn:aws:iam::123456789012:role/upload": 0,
    "credentials some.txt --format json --role-arn arn:aws:iam::123456789012:role/upload": 0,
    "ls staging": 0,
    "cat there": 0,
    "get there new.txt": 0,
    "cat absent": 4,
    "ls archive": 0,
    "ls uploads": 0,
    "logs": 0,
    "logs --raw": 0,
    "trace there": 0,
    "trace --prefix th": 0,
    "trace absent": 4,
    "probe": 2,
    "watch --count 1": 0,
    "doctor": 3,
    "doctor --list-checks": 0,
    "doctor --fix --dry-run": 3,
    "reprocess --prefix x --dry-run": 0,
    "local status": 4,
    "completion bash": 0,
    "help": 0,
    "help output": 0,
}
ELSEWHERE = {"deploy", "destroy", "link", "redrive", "local start", "local stop", "local exec"}


@pytest.fixture
def pair(
    empty_moto_url: str, fake_credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Two buckets and a log group, and a folder with a processor and a file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "some.txt").write_text("some")
    (tmp_path / "processor.py").write_text("def process(file):\n    return None\n")
    session = boto3.Session(region_name="eu-central-1")
    s3 = session.client("s3", endpoint_url=empty_moto_url)
    for name in ("staging", "archive"):
        s3.create_bucket(
            Bucket=f"pair-{name}",
            CreateBucketConfiguration={"LocationConstraint": "eu-central-1"},
        )
        monkeypatch.setenv(f"TWOBUCKETS_{name.upper()}", f"pair-{name}")
    s3.put_object(Bucket="pair-archive", Key="there", Body=b"some")
    logs = session.client("logs", endpoint_url=empty_moto_url)
    logs.create_log_group(logGroupName="/aws/lambda/pair")
    monkeypatch.setenv("TWOBUCKETS_LOG_GROUP", "/aws/lambda/pair")
    monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", empty_moto_url)


def test_every_command_is_tried():
    paths = {" ".join(path) for path in docs.command_paths()[1:]}
    tried = {path for path in paths if any(f"{form} ".startswith(f"{path} ") for form in FORMS)}
    assert paths - tried - ELSEWHERE == {"local"} - tried


@pytest.mark.parametrize("form", FORMS)
def test_stdout_is_json_lines_that_end_with_a_summary(pair: None, form: str):
    result = CliRunner().invoke(cli, ["--json", *form.split()])
    assert result.exit_code == FORMS[form], result.output
    lines: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines()]
    assert [next(iter(line)) for line in lines] == ["type"] * len(lines)
    types = [line["type"] for line in lines]
    assert types.index("summary") == len(lines) - 1 if types else result.exit_code in (2, 4)
    for line in result.stderr.splitlines():
        assert json.loads(line)["type"] in {"note", "warning", "error", "hint"}


def test_the_template_is_a_record_that_holds_it_whole(pair: None):
    told = CliRunner().invoke(cli, ["template", "--json"]).stdout.splitlines()
    assert json.loads(told[0])["body"] == CliRunner().invoke(cli, ["template"]).stdout
