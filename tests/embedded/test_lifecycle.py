"""The server starts once, ends without a trace, and keeps what it held over any kind of end."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from botocore.config import Config

from tests.embedded.conftest import aws_of
from tests.embedded.pair import ARCHIVE, FUNCTION, STAGING, make_pair, zip_of
from twobuckets import local
from twobuckets.errors import TwoBucketsError
from twobuckets.local.state import StateDirectory, process_started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "state"
    yield directory
    local.stop(directory)
    assert processes_of(directory) == []


def start(state_dir: Path, **options: int) -> local.Server:
    return local.start(state_dir, environ=os.environ, **options)  # type: ignore[arg-type]


def processes_of(state_dir: Path) -> list[str]:
    """Return the command lines that name a state directory: the server's and its children's."""
    shown = subprocess.run(["ps", "-ewwo", "pid,args"], capture_output=True, text=True, check=True)
    return [line for line in shown.stdout.splitlines() if f"{state_dir}" in line]


def kill(server: local.Server) -> None:
    """End a server as a power cut does, and wait until it is gone."""
    started = process_started(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    wait_until_gone(server.pid, started)


def wait_until_gone(pid: int, started: str | None) -> None:
    deadline = time.monotonic() + 10
    while process_started(pid) == started:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_server_whose_installation_was_removed_is_replaced(state_dir: Path):
    first = start(state_dir)
    assert start(state_dir).pid == first.pid
    state = StateDirectory(state_dir)
    record = state.read_record()
    assert record is not None
    state.write_record(replace(record, program=f"{state_dir}/venv/gone.py"))
    second = start(state_dir)
    assert second.pid != first.pid
    wait_until_gone(first.pid, record.process_started)


def test_it_starts_answers_and_ends_without_a_trace(state_dir: Path):
    server = start(state_dir)
    pair = make_pair(aws_of(server))
    pair.put("a.txt", "sleep.txt")
    pair.wait_for_lines('"saw": "sleep.txt"', 1)
    assert len(processes_of(state_dir)) >= 2
    stopped = local.stop(state_dir)
    assert stopped == server
    assert processes_of(state_dir) == []
    assert local.find_running(state_dir) is None
    left = {path.name for path in state_dir.iterdir()}
    assert left.isdisjoint({"run", "server.json"})


def test_nothing_is_left_in_the_systems_temporary_directory(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    before = set(os.listdir("/tmp"))
    pair = make_pair(aws_of(start(state_dir)))
    pair.put("a.txt")
    pair.wait_for_archived({"a.txt"})
    local.stop(state_dir)
    assert list(temporary.iterdir()) == []
    assert not [name for name in set(os.listdir("/tmp")) - before if "ministack" in name]


def test_a_second_start_finds_the_first(state_dir: Path):
    first, is_new = local.ensure_running(state_dir, environ=os.environ)
    assert is_new
    assert local.ensure_running(state_dir, environ=os.environ) == (first, False)
    with pytest.raises(TwoBucketsError, match="already runs on port"):
        start(state_dir, port=first.port + 1)


def test_two_that_start_at_once_get_the_same_server(state_dir: Path):
    program = (
        "import os, sys, pathlib; from twobuckets import local;"
        "print(local.ensure_running(pathlib.Path(sys.argv[1]), environ=os.environ)[0].pid)"
    )
    commands = [[sys.executable, "-c", program, str(state_dir)]] * 4
    with ThreadPoolExecutor(4) as pool:
        shown = list(pool.map(lambda c: subprocess.check_output(c, text=True), commands))
    assert len(set(shown)) == 1
    assert len(processes_of(state_dir)) == 1


def test_it_survives_the_process_group_and_terminal_that_started_it(state_dir: Path):
    program = (
        "import os, sys, pathlib; from twobuckets import local;"
        "local.start(pathlib.Path(sys.argv[1]), environ=os.environ);"
        "os.killpg(0, 9)"
    )
    subprocess.run(
        [sys.executable, "-c", program, str(state_dir)], start_new_session=True, check=False
    )
    server = local.find_running(state_dir)
    assert server is not None
    os.kill(server.pid, signal.SIGHUP)
    aws_of(server).s3.list_buckets()
    assert os.getsid(server.pid) != os.getsid(0)


def test_a_restart_keeps_everything_and_the_port(state_dir: Path):
    server = start(state_dir)
    pair = make_pair(aws_of(server))
    pair.put("a.txt", body=b"kept")
    pair.wait_for_archived({"a.txt"})
    local.stop(state_dir)
    again = start(state_dir)
    assert (again.port, again.access_key, again.secret_key) == (
        server.port,
        server.access_key,
        server.secret_key,
    )
    aws = aws_of(again)
    assert aws.s3.get_object(Bucket=ARCHIVE, Key="a.txt")["Body"].read() == b"kept"
    pair = type(pair)(aws)
    pair.put("b.txt")
    pair.wait_for_archived({"a.txt", "b.txt"})
    assert pair.wait_for_lines('"saw": "a.txt"', 1)


def test_a_killed_server_loses_no_object_no_event_and_no_function(state_dir: Path):
    server = start(state_dir)
    aws = aws_of(server)
    pair = make_pair(aws)
    aws.s3.put_bucket_versioning(Bucket=ARCHIVE, VersioningConfiguration={"Status": "Enabled"})
    # A moment later the configuration is on disk.
    services = StateDirectory(state_dir).services
    deadline = time.monotonic() + 10
    while not (services / "lambda.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(2)
    keys = {f"{number:03}.txt" for number in range(60)}
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(pair.put, keys))
    kill(server)
    deadline = time.monotonic() + 5
    while processes_of(state_dir):
        assert time.monotonic() < deadline, "a child outlived its server"
        time.sleep(0.02)
    again = aws_of(start(state_dir))
    pair = type(pair)(again)
    pair.wait_for_archived(keys)
    status = again.s3.get_bucket_versioning(Bucket=ARCHIVE)
    assert status["Status"] == "Enabled"


def test_a_killed_server_is_no_server_and_leaves_nothing_after_a_stop(state_dir: Path):
    server = start(state_dir)
    kill(server)
    assert local.find_running(state_dir) is None
    assert local.stop(state_dir) is None
    assert not (state_dir / "server.json").exists()
    assert not (state_dir / "run").exists()


def test_a_reset_forgets_buckets_functions_and_the_key(state_dir: Path):
    server = start(state_dir)
    pair = make_pair(aws_of(server))
    pair.put("fail.txt")
    local.stop(state_dir, reset=True)
    assert {path.name for path in state_dir.iterdir()} == {"server.lock", "start.lock"}
    again = start(state_dir)
    assert again.access_key != server.access_key
    aws = aws_of(again)
    assert aws.s3.list_buckets()["Buckets"] == []
    assert aws.functions.list_functions()["Functions"] == []
    assert local.find_status(state_dir).waiting == 0


def test_a_taken_port_is_said_and_the_last_one_is_not_insisted_on(state_dir: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(TwoBucketsError, match=f"Port {port} on 127.0.0.1 is taken") as caught:
            start(state_dir, port=port)
        assert "--port" in str(caught.value.hint)
        (state_dir / "port").write_text(str(port))
        assert start(state_dir).port != port


def test_a_server_that_does_not_end_is_ended(state_dir: Path):
    server = start(state_dir)
    os.kill(server.pid, signal.SIGSTOP)
    assert local.stop(state_dir, timeout=local.lifecycle.POLL * 20) == server
    assert processes_of(state_dir) == []


def test_an_end_does_not_wait_for_whoever_waits_for_an_answer(state_dir: Path):
    server = start(state_dir)
    pair = make_pair(aws_of(server), timeout_seconds=60)
    event = {"Records": [{"s3": {"bucket": {"name": "b"}, "object": {"key": "sleep"}}}]}
    functions = pair.aws.session.client(
        "lambda", endpoint_url=server.endpoint_url, config=Config(retries={"total_max_attempts": 1})
    )
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(
            functions.invoke, FunctionName=FUNCTION, Payload=json.dumps(event).encode()
        )
        pair.wait_for_lines('"saw": "sleep"', 1)
        started = time.monotonic()
        local.stop(state_dir)
        assert time.monotonic() - started < 15
    assert answer.exception() is not None or "FunctionError" in answer.result()


def test_an_end_while_files_are_processed_runs_them_again_later(state_dir: Path):
    pair = make_pair(aws_of(start(state_dir)), timeout_seconds=4)
    pair.put("sleep.txt")
    pair.wait_for_lines('"saw": "sleep.txt"', 1)
    local.stop(state_dir)
    assert local.find_status(state_dir).waiting == 1
    aws = aws_of(start(state_dir))
    code = "def handler(event, context): print('done at last')\n"
    aws.functions.update_function_code(
        FunctionName=FUNCTION, ZipFile=zip_of({"processor.py": code})
    )
    type(pair)(aws).wait_for_lines("done at last", 1, seconds=40)


HOSTILE = {
    "AWS_ACCESS_KEY_ID": "AKIAREALACCOUNT",
    "AWS_SECRET_ACCESS_KEY": "real-secret",
    "AWS_SESSION_TOKEN": "real-token",
    "AWS_PROFILE": "production",
    "AWS_REGION": "eu-west-1",
    "AWS_DEFAULT_REGION": "eu-west-1",
    "AWS_ENDPOINT_URL": "http://192.0.2.1",
    "AWS_ENDPOINT_URL_S3": "http://192.0.2.2",
    "AWS_USE_DUALSTACK_ENDPOINT": "true",
    "AWS_USE_FIPS_ENDPOINT": "true",
    "AWS_CA_BUNDLE": "/nowhere",
    "HTTP_PROXY": "http://192.0.2.3:3128",
    "http_proxy": "http://192.0.2.3:3128",
    "ALL_PROXY": "http://192.0.2.3:3128",
    "LAMBDA_EXECUTOR": "docker",
    "SERVICES": "dynamodb",
    "BIND_HOST": "0.0.0.0",
    "AUTH": "false",
    "PERSIST_STATE": "0",
    "PYTHONPATH": "/nowhere",
}


def test_the_users_aws_settings_reach_neither_the_clients_nor_the_function(
    state_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    config = tmp_path / "config"
    config.write_text(
        "[default]\nregion = eu-west-1\nendpoint_url = http://192.0.2.4\n"
        "s3 =\n  addressing_style = virtual\n"
        "[profile production]\nregion = eu-west-1\nservices = elsewhere\n"
        "[services elsewhere]\ns3 =\n  endpoint_url = http://192.0.2.5\n"
    )
    credentials = tmp_path / "credentials"
    credentials.write_text(
        "[production]\naws_access_key_id = AKIAREALPROFILE\naws_secret_access_key = x\n"
    )
    for name, value in HOSTILE.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(credentials))
    server = start(state_dir)
    aws = aws_of(server)
    assert aws.s3.meta.endpoint_url == server.endpoint_url
    assert aws.s3.meta.region_name == "us-east-1"
    assert "twobuckets-local" in aws.sts.get_caller_identity()["Arn"]
    source = "import json, os\ndef handler(event, context): print(json.dumps(dict(os.environ)))\n"
    pair = make_pair(aws, source=source)
    pair.put("a.txt")
    (line,) = pair.wait_for_lines("AWS_ENDPOINT_URL", 1)
    environment = json.loads(line)
    assert environment["AWS_ENDPOINT_URL"] == server.endpoint_url
    assert environment["AWS_ACCESS_KEY_ID"] not in (server.access_key, *HOSTILE.values())
    assert environment["ARCHIVE"] == ARCHIVE
    assert not {"AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "HTTP_PROXY", "HOME"} & set(environment)
    for value in ("REAL", "production", "192.0.2", "eu-west-1", server.secret_key):
        assert value not in line
    presigned = aws.s3.generate_presigned_url("get_object", {"Bucket": STAGING, "Key": "a.txt"})
    assert presigned.startswith(server.endpoint_url)
