"""`local exec` with the programs that people have: those that can be found on the PATH here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from twobuckets.aws.clients import Aws

BUCKET = "programs"
ODD = "in/a b+ü%.txt"


def local_exec(*command: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "twobuckets", "local", "exec", *command]
    return subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)


def find_program(name: str) -> str:
    """Return a program's path, or skip the test."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def every_aws_cli() -> list[str]:
    """Return each AWS CLI on the PATH; a distribution's may be too old for AWS_ENDPOINT_URL."""
    found = (Path(folder, "aws") for folder in os.get_exec_path())
    return [str(path) for path in found if os.access(path, os.X_OK)]


@pytest.fixture
def file(embedded: Aws, tmp_path: Path) -> Path:
    embedded.s3.create_bucket(Bucket=BUCKET)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    return path


def assert_stored(embedded: Aws, key: str = ODD) -> None:
    assert embedded.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read() == b"content"


def test_every_aws_cli_reaches_the_embedded_aws(embedded: Aws, file: Path):
    clis = every_aws_cli()
    if not clis:
        pytest.skip("aws is not installed")
    for number, aws_cli in enumerate(clis):
        key = f"{number}/{ODD}"
        done = local_exec(aws_cli, "s3", "cp", str(file), f"s3://{BUCKET}/{key}")
        assert done.returncode == 0, (aws_cli, done.stderr)
        assert_stored(embedded, key)
        account = embedded.sts.get_caller_identity()["Account"]
        done = local_exec(aws_cli, "sts", "get-caller-identity", "--output", "text")
        assert account in done.stdout, (aws_cli, done.stderr)


def test_s5cmd_reaches_the_embedded_aws(embedded: Aws, file: Path):
    s5cmd = find_program("s5cmd")
    done = local_exec(s5cmd, "cp", str(file), f"s3://{BUCKET}/{ODD}")
    assert done.returncode == 0, done.stderr
    assert_stored(embedded)


def test_rclone_reaches_the_embedded_aws(embedded: Aws, file: Path):
    rclone = find_program("rclone")
    done = local_exec(rclone, "copyto", str(file), f":s3:{BUCKET}/{ODD}")
    assert (done.returncode, done.stderr) == (0, "")
    assert_stored(embedded)


def test_a_program_that_knows_no_endpoint_reaches_nothing(embedded: Aws, tmp_path: Path):
    # The old CLI under another name is a program that is not known.
    asks = "import urllib.request as r; r.urlopen('{}://s3.us-east-1.amazonaws.com', timeout=20)"
    commands = [[sys.executable, "-c", asks.format(scheme)] for scheme in ("https", "http")]
    if curl := shutil.which("curl"):
        commands.append([curl, "-sS", "https://s3.us-east-1.amazonaws.com"])
    for number, cli in enumerate(every_aws_cli()):
        unknown = tmp_path / f"tool-{number}"
        unknown.symlink_to(cli)
        said = local_exec(str(unknown), "--version").stdout
        if said.startswith("aws-cli/2.9."):
            commands.append([str(unknown), "s3", "ls"])
    for command in commands:
        done = local_exec(*command)
        assert done.returncode != 0, command
        assert any(word in done.stderr.lower() for word in ("refused", "proxy", "127.0.0.1")), (
            done.stderr
        )
