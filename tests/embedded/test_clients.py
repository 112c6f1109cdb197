"""Clients with the credentials of one key: what the manual shows is what runs here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from tests.embedded.test_presign import STAGING, aws, upload_role
from twobuckets import manual
from twobuckets.cli import cli

if TYPE_CHECKING:
    from twobuckets import local
    from twobuckets.aws.clients import Aws

__all__ = ["aws", "upload_role"]

PAGE = (Path(manual.__file__).parent / "clients.md").read_text("utf-8")
SHOWN = dict(re.findall(r"<!-- client: (\w+) -->\n```\w+\n(.*?)```", PAGE, re.DOTALL))
KEY = "in/rows.csv"
SIZES = {"one piece": 1000, "parts": 20 * 1024 * 1024}


def lent(role: str) -> dict[str, str]:
    """Return an environment of the variables that `credentials` prints, and of no others of AWS."""
    result = CliRunner().invoke(cli, ["credentials", KEY, "--role-arn", role])
    assert result.exit_code == 0, result.stderr
    ours = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    exported = subprocess.run(
        ["sh", "-c", f"{result.stdout}\nenv -0"],
        env=ours | {"AWS_CONFIG_FILE": "/dev/null", "AWS_SHARED_CREDENTIALS_FILE": "/dev/null"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return dict(line.split("=", 1) for line in exported.split("\0") if "=" in line)


def for_this_endpoint(shown: str, endpoint_url: str) -> str:
    """Return what is shown, as the page says that it is to be changed for such an endpoint."""
    return (
        shown.replace("--s3-provider AWS", f"--s3-provider Other --s3-endpoint {endpoint_url}")
        .replace("https://BUCKET.s3.$AWS_REGION.amazonaws.com", f"{endpoint_url}/BUCKET")
        .replace("BUCKET", STAGING)
    )


def command_of(client: str, script: str) -> list[str]:
    if client == "python":
        return [sys.executable, "-c", script]
    program = shutil.which(client)
    if program is None:
        pytest.skip(f"{client} is not installed")
    if client == "node":
        found = subprocess.run(
            [program, "-e", "require('@aws-sdk/lib-storage')"], check=False, capture_output=True
        )
        if found.returncode != 0:
            pytest.skip("@aws-sdk/lib-storage is not installed where Node.js finds it")
        return [program, "-e", script]
    if (
        client == "aws"
        and "aws-cli/2.9"
        in subprocess.run(
            [program, "--version"], capture_output=True, text=True, check=False
        ).stdout
    ):
        script = script.replace("aws ", 'aws --endpoint-url "$AWS_ENDPOINT_URL" ', 1)
    return ["sh", "-e", "-c", script]


def test_the_manual_shows_every_client():
    assert set(SHOWN) == {"aws", "s5cmd", "rclone", "python", "node", "curl"}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("client", SHOWN)
def test_a_client_uploads_with_what_is_lent_as_the_manual_shows(
    aws: Aws,
    embedded_server: local.Server,
    upload_role: str,
    tmp_path: Path,
    client: str,
    size: str,
):
    content = os.urandom(SIZES[size])
    (tmp_path / "rows.csv").write_bytes(content)
    script = for_this_endpoint(SHOWN[client], embedded_server.endpoint_url)
    if size == "parts":
        # So that it need not be a file of hundreds of MiB.
        script = script.replace("rclone copyto", "rclone copyto --s3-upload-cutoff 5Mi")
        script = script.replace("s5cmd cp", "s5cmd cp --part-size 5")
    environment = lent(upload_role) | {
        "S3_ENDPOINT_URL": embedded_server.endpoint_url,
        "RCLONE_CONFIG": "/dev/null",
    }
    done = subprocess.run(
        command_of(client, script), cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-500:] + done.stderr[-2000:]
    found = aws.s3.get_object(Bucket=STAGING, Key=KEY)
    assert found["Body"].read() == content
    if size == "parts" and client != "curl":
        assert found["ETag"].count("-") == 1
    assert not aws.s3.list_multipart_uploads(Bucket=STAGING).get("Uploads")
