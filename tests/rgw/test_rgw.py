"""Files in, listed, signed for others, looked after and brought back, at Ceph's gateway."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from twobuckets.cli import cli

if TYPE_CHECKING:
    from pathlib import Path

    from tests.rgw.conftest import Gateway

LARGE_BYTES = 30_000_000
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"AWS": ["arn:aws:iam:::user/tests"]},
            "Action": ["sts:AssumeRole"],
        }
    ],
}
MAY_UPLOAD = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Action": ["s3:PutObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"],
            "Resource": "arn:aws:s3:::rgw-in/*",
        }
    ],
}


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def records(result: Result, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return [line for line in lines if line["type"] == kind]


def done(*arguments: str) -> Result:
    result = run(*arguments)
    assert result.exit_code == 0, result.output + result.stderr
    return result


def test_a_pipeline_at_the_gateway(
    gateway: Gateway, pair: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(os.urandom(3_000))
    large.write_bytes(os.urandom(LARGE_BYTES))
    monkeypatch.chdir(tmp_path)

    def stored(key: str, bucket: str = "rgw-in") -> bytes:
        body: bytes = pair.get_object(Bucket=bucket, Key=key)["Body"].read()
        return body

    # Small and in parts; the gateway ignores If-None-Match, so a look comes first.
    key = "dir/ä b+c&.bin"
    done("upload", str(small), "--key", "small")
    done("upload", str(large), "--key", key)
    assert (stored("small"), stored(key)) == (small.read_bytes(), large.read_bytes())
    pair.put_object(Bucket="rgw-in", Key="theirs", Body=b"theirs")
    kept = run("upload", str(small), "--key", "theirs", "--no-overwrite")
    assert kept.exit_code == 3
    assert stored("theirs") == b"theirs"
    assert (
        "may ignore If-None-Match"
        in done("upload", str(small), "--key", "new", "--no-overwrite").stderr
    )

    # Killed in the middle, and gone on with.
    command = [sys.executable, "-m", "twobuckets", "upload", str(large), "--key", "killed"]
    with subprocess.Popen([*command, "--bandwidth-limit", "6MiB"]) as process:
        until = time.monotonic() + 30
        parts = 0
        while not parts and time.monotonic() < until:
            listed = records(done("--json", "ls", "uploads"), "incomplete-upload")
            parts = sum(upload["parts"] for upload in listed if upload["key"] == "killed")
        process.kill()
    [uploaded] = records(done("--json", "upload", str(large), "--key", "killed"), "uploaded")
    assert uploaded["resumed_bytes"] > 0
    assert stored("killed") == large.read_bytes()

    # Signed for others.
    line = next(
        line
        for line in done("presign", "signed", "--file", str(small)).stdout.splitlines()
        if line.startswith("curl")
    )
    words = [str(small) if word == "FILE" else word for word in shlex.split(line)]
    subprocess.run(words, check=True, capture_output=True)
    assert stored("signed") == small.read_bytes()

    # Credentials for one key: they may not look at what they stored, and nobody is accused for it.
    gateway.admin("role", "create", "--role-name=up",
                  f"--assume-role-policy-doc={json.dumps(TRUST)}")  # fmt: skip
    gateway.admin("role-policy", "put", "--role-name=up", "--policy-name=upload",
                  f"--policy-doc={json.dumps(MAY_UPLOAD)}")  # fmt: skip
    given = done("credentials", "given", "--role-arn", "arn:aws:iam:::role/up", "--format",
                 "credential_process")  # fmt: skip
    keys = json.loads(given.stdout)
    with pytest.MonkeyPatch.context() as scoped:
        scoped.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
        scoped.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
        scoped.setenv("AWS_SESSION_TOKEN", keys["SessionToken"])
        assert "can't be verified" in done("upload", str(large), "--key", "given").stderr
        assert run("upload", str(large), "--key", "other").exit_code == 5
    assert stored("given") == large.read_bytes()

    # Looked after: what is found is mended, beside what is there.
    theirs: Any = {"ID": "theirs", "Status": "Enabled", "Prefix": "tmp/", "Expiration": {"Days": 9}}
    pair.put_bucket_lifecycle_configuration(
        Bucket="rgw-in", LifecycleConfiguration={"Rules": [theirs]}
    )
    found = {f["check"] for f in records(run("--json", "doctor"), "finding")}
    assert {"lifecycle-uploads", "lifecycle-loses-files"} <= found
    run("doctor", "--fix", "--yes", "--check", "lifecycle-uploads")
    rules = pair.get_bucket_lifecycle_configuration(Bucket="rgw-in")["Rules"]
    assert {rule["ID"] for rule in rules} == {"theirs", "twobuckets-abort-incomplete-uploads"}
    assert "lifecycle-uploads" not in {
        f["check"] for f in records(run("--json", "doctor"), "finding")
    }
    assert "rgw-in" in done("status").stdout

    # Brought back, and what waits is not replaced.
    pair.put_object(Bucket="rgw-out", Key="back", Body=b"one")
    pair.put_object(Bucket="rgw-out", Key="back", Body=b"two")
    [back] = records(done("--json", "reprocess", "back", "--yes"), "reprocessed")
    assert back["state"] == "done"
    assert (stored("back"), stored("back", "rgw-out")) == (b"two", b"two")
    pair.put_object(Bucket="rgw-out", Key="small", Body=b"older")
    waits = run("--json", "reprocess", "small", "--yes", "--restart")
    assert stored("small") == small.read_bytes(), waits.output
    assert len(pair.list_object_versions(Bucket="rgw-out", Prefix="back")["Versions"]) == 2
