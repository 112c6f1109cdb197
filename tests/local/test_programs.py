"""What a program that `local exec` runs is given, and what it is not."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from twobuckets.local import Server, call_of, reserve_closed_port

SERVER = Server(
    endpoint_url="http://127.0.0.1:4321",
    pid=1,
    port=4321,
    access_key="LOCAKEY",
    secret_key="secret",
    log_file=Path("log"),
    region="us-east-1",
)
THEIRS = {
    "AWS_PROFILE": "mine",
    "AWS_SESSION_TOKEN": "of somebody else",
    "AWS_ENDPOINT_URL_S3": "https://elsewhere.example",
    "RCLONE_S3_ENDPOINT": "https://elsewhere.example",
    "RCLONE_CONFIG_MINE_TYPE": "s3",
    "S3_ENDPOINT_URL": "https://elsewhere.example",
    "https_proxy": "http://proxy.example",
    "No_Proxy": "*",
}


def test_nothing_of_the_users_leads_elsewhere_and_the_rest_stays():
    environ = {**THEIRS, "PATH": "/bin", "AWS_PAGER": "less -R"}
    call = call_of(SERVER, ["terraform", "plan"], environ, closed_port=7)
    assert call.arguments == ("terraform", "plan")
    assert (call.environment["PATH"], call.environment["AWS_PAGER"]) == ("/bin", "less -R")
    left = {name for name in THEIRS if call.environment.get(name) == THEIRS[name]}
    assert left == set()
    assert call.environment["AWS_ENDPOINT_URL"] == SERVER.endpoint_url
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        assert call.environment[name] == "http://127.0.0.1:7"
    assert "127.0.0.1" in call.environment["no_proxy"].split(",")


@pytest.mark.parametrize("name", ["aws", "/usr/bin/aws", "bin/aws.exe"])
def test_the_aws_cli_is_told_the_endpoint_where_every_version_takes_it(name: str):
    call = call_of(SERVER, [name, "s3", "ls"], {}, closed_port=7)
    assert call.arguments == (name, "--endpoint-url", SERVER.endpoint_url, "s3", "ls")


@pytest.mark.parametrize("name", ["awslocal", "aws-vault", "/opt/aws/run"])
def test_other_programs_keep_their_arguments(name: str):
    assert call_of(SERVER, [name, "s3"], {}, closed_port=7).arguments == (name, "s3")


HOLD = """
import os, sys
from twobuckets.local import reserve_closed_port
port = reserve_closed_port()
program = "import sys; print(sys.argv[1], flush=True); sys.stdin.read()"
os.execv(sys.executable, [sys.executable, "-c", program, str(port)])
"""


def test_the_closed_port_refuses_and_is_nobody_elses_while_the_program_runs():
    with subprocess.Popen(
        [sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        process.communicate("")
    assert 0 < reserve_closed_port() < 65_536
