"""What `presign` and `credentials` hand out is accepted for what it says, and for nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from click.testing import CliRunner

from twobuckets.cli import cli
from twobuckets.pipeline import cors

if TYPE_CHECKING:
    from twobuckets import local
    from twobuckets.aws.clients import Aws

STAGING = "signed-staging"
KEY = "in/räder & co/100% *?${x}.csv"
CONTENT = b"a,b\n1,2\n"


@pytest.fixture
def aws(embedded: Aws, embedded_server: local.Server, monkeypatch) -> Aws:
    """A bucket on the embedded AWS, which the command line knows as any other endpoint."""
    embedded.s3.create_bucket(Bucket=STAGING)
    monkeypatch.setenv("TWOBUCKETS_STAGING", STAGING)
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", "signed-archive")
    monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", embedded_server.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", embedded_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", embedded_server.secret_key)
    monkeypatch.setenv("AWS_REGION", embedded_server.region)
    return embedded


def run(*arguments: str) -> list[dict[str, Any]]:
    result = CliRunner().invoke(cli, ["--json", *arguments])
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def send(
    request: dict[str, Any],
    body: bytes = CONTENT,
    *,
    without: tuple[str, ...] = (),
    url: str | None = None,
    **changed: str,
) -> HTTPResponse:
    """Send a signed request, with some of its headers changed or left out."""
    parts = urlsplit(url or request["url"])
    headers = {**request["headers"], **{k.replace("_", "-"): v for k, v in changed.items()}}
    headers["content-length"] = str(len(body))
    for name in without:
        del headers[name]
    assert parts.hostname is not None
    connection = HTTPConnection(parts.hostname, parts.port)
    connection.request(request["method"], f"{parts.path}?{parts.query}", body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def stored(aws: Aws, key: str = KEY) -> bytes | None:
    try:
        return aws.s3.get_object(Bucket=STAGING, Key=key)["Body"].read()
    except ClientError:
        return None


def test_a_signed_put_is_accepted_as_signed_and_refused_as_anything_else(aws, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes(CONTENT)
    request, summary = run("presign", KEY, "--file", str(file), "--no-overwrite")
    assert summary["type"] == "summary"
    assert send(request, content_type="text/html").status == 403
    assert send(request, without=("content-type",)).status == 403
    assert send(request, CONTENT + b"more").status == 403
    assert send(request, CONTENT[:-1]).status == 403
    assert send(request, if_none_match="other").status == 403
    assert send(request, without=("if-none-match",)).status == 403
    other = hashlib.sha256(b"other").hexdigest()
    assert send(request, x_amz_checksum_sha256=other).status == 403
    elsewhere = request["url"].replace("in/", "out/", 1)
    assert elsewhere != request["url"]
    assert send(request, url=elsewhere).status == 403
    # Same length, other bytes: the signature holds and the checksum does not.
    assert send(request, b"b,a\n1,2\n").status == 400
    assert stored(aws) is None

    assert send(request).status == 200
    assert stored(aws) == CONTENT
    assert aws.s3.head_object(Bucket=STAGING, Key=KEY)["ContentType"] == "text/csv"
    # Once more, as anybody with the URL can: the key is there.
    assert send(request).status == 412


def test_a_signed_put_that_may_overwrite_does(aws):
    request, _ = run("presign", KEY, "--content-type", "text/plain")
    assert send(request).status == 200
    assert send(request, b"other and longer").status == 200
    assert stored(aws) == b"other and longer"


def test_a_signed_put_is_refused_after_it_expired(aws):
    request, _ = run("presign", KEY, "--expires", "1s")
    time.sleep(2.1)
    assert send(request).status == 403
    assert stored(aws) is None


@pytest.mark.parametrize("key", [KEY, "a b/+/ü.csv", "dots/../x/./y.csv", "folder/", "-"])
def test_the_printed_command_line_uploads_what_was_signed(aws, tmp_path, key):
    file = tmp_path / "it's [1]{2}.csv"
    file.write_bytes(CONTENT)
    result = CliRunner().invoke(cli, ["presign", "--file", str(file), "--", key])
    assert result.exit_code == 0, result.stderr
    done = subprocess.run(["bash", "-e"], input=result.stdout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert stored(aws, key) == CONTENT


@pytest.mark.parametrize("options", [[], ["--post"]])
def test_a_file_whose_name_means_standard_input_to_curl_is_sent(
    aws, tmp_path, monkeypatch, options
):
    (tmp_path / "-").write_bytes(CONTENT)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(cli, ["presign", KEY, "--file", "-", *options])
    assert result.exit_code == 0, result.stderr
    (tmp_path / "script").write_text(result.stdout)
    done = subprocess.run(
        ["bash", "-e", "script"], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert stored(aws) == CONTENT


def test_a_signed_form_takes_up_to_its_limit_and_only_its_key(aws, tmp_path):
    file = tmp_path / "photo.jpg"
    command = ["presign", KEY, "--post", "--max-size", "10", "--content-type", "image/jpeg"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.stderr

    def post(content: bytes, script: str = result.stdout) -> bool:
        file.write_bytes(content)
        script = script.replace("FILE", str(file))
        done = subprocess.run(["bash", "-e"], input=script, capture_output=True, text=True)
        return done.returncode == 0

    assert not post(b"x" * 11)
    assert not post(b"x", result.stdout.replace("key=in/", "key=out/"))
    assert not post(b"x", result.stdout.replace("image/jpeg", "text/html"))
    assert stored(aws) is None
    assert post(b"x" * 10)
    assert stored(aws) == b"x" * 10
    assert aws.s3.head_object(Bucket=STAGING, Key=KEY)["ContentType"] == "image/jpeg"


def test_a_signed_multipart_upload_arrives_whole(aws, tmp_path):
    content = bytes(range(256)) * 4096 * 11
    file = tmp_path / "big.bin"
    file.write_bytes(content)
    records = run("presign", KEY, "--file", str(file), "--multipart", "2", "--no-overwrite")
    started, first, second, complete, abort, listing, summary = records
    assert started["type"] == "multipart-upload"
    assert summary["requests"] == 5
    assert [r["purpose"] for r in records[1:6]] == [
        "part",
        "part",
        "complete",
        "abort",
        "list-parts",
    ]

    cut = started["part_bytes"]
    assert send(first, content[: cut - 1]).status == 403
    etags = []
    for part, body in ((first, content[:cut]), (second, content[cut:])):
        answer = send(part, body)
        assert answer.status == 200
        etags.append(answer.headers["etag"])
    assert send(listing, b"").status == 200
    body = complete_body(etags)
    assert send(complete, body, without=("if-none-match",)).status == 403
    assert send(complete, body).status == 200
    assert stored(aws) == content
    assert send(abort, b"").status in (204, 404)


def test_whatever_is_signed_a_page_may_send(aws, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes(CONTENT)
    signed = [
        *run("presign", KEY, "--file", str(file), "--no-overwrite"),
        *run("presign", KEY, "--file", str(file), "--post"),
        *run("presign", KEY, "--file", str(file), "--multipart", "1", "--no-overwrite"),
    ]
    requests = [record for record in signed if "method" in record]
    assert {record["method"] for record in requests} == set(cors.METHODS) - {"HEAD"}
    # The browser says the length itself, and lets no page do so.
    headers = {name for record in requests for name in record["headers"]} - {"content-length"}
    assert headers == set(cors.SIGNED_HEADERS)


def test_a_signed_multipart_upload_can_be_aborted(aws):
    records = run("presign", KEY, "--multipart", "3")
    uploads = aws.s3.list_multipart_uploads(Bucket=STAGING)["Uploads"]
    assert [upload["UploadId"] for upload in uploads] == [records[0]["upload_id"]]
    abort = next(record for record in records if record.get("purpose") == "abort")
    assert send(abort, b"").status == 204
    assert not aws.s3.list_multipart_uploads(Bucket=STAGING).get("Uploads")


SHELLS = ("dash", "bash", "zsh", "mksh", "fish", "busybox")
AWKS = ("mawk", "gawk", "original-awk", "busybox")
BIG = bytes(range(256)) * 4096 * 11


def run_lines(shell: str, script: str, folder: Path, awk: str = ""):
    """Run lines in a shell, with an awk of choice; skip the test where there is none of them."""
    for program in (shell, awk):
        if program and shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")
    path = os.environ["PATH"]
    if awk:
        (folder / "bin").mkdir()
        found = shutil.which(awk)
        assert found is not None
        (folder / "bin" / "awk").symlink_to(found)
        path = f"{folder / 'bin'}:{path}"
    words = {"busybox": ["busybox", "sh"], "zsh": ["zsh", "-f"]}.get(shell, [shell])
    if shell != "fish":
        words = [*words, "-e"]
    (folder / "lines").write_text(script)
    return subprocess.run(
        [*words, "lines"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PATH": path, "HOME": str(folder)},
        stdin=subprocess.DEVNULL,
    )


def multipart_lines(file: Path, *options: str, key: str = KEY) -> str:
    words = ["presign", "--multipart", "2", *options, "--", key]
    if file.exists():
        words[1:1] = ["--file", file.name]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_the_printed_lines_upload_in_parts_from_the_first_to_the_last(
    aws, tmp_path, monkeypatch, shell
):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "it's [1] $b%d.bin"
    file.write_bytes(BIG)
    done = run_lines(shell, multipart_lines(file, "--no-overwrite"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert stored(aws) == BIG


@pytest.mark.parametrize("awk", AWKS)
def test_the_printed_lines_take_any_awk(aws, tmp_path, monkeypatch, awk):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "-x&\\1.bin"
    file.write_bytes(BIG)
    done = run_lines("bash", multipart_lines(file, key="folder/"), tmp_path, awk)
    assert done.returncode == 0, done.stderr
    assert stored(aws, "folder/") == BIG


def test_the_printed_lines_upload_parts_that_the_sender_cut(aws, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE.partaaaaa").write_bytes(BIG[: 6 * 1024 * 1024])
    (tmp_path / "FILE.partaaaab").write_bytes(BIG[6 * 1024 * 1024 :])
    done = run_lines("dash", multipart_lines(tmp_path / "FILE"), tmp_path)
    assert done.returncode == 0, done.stderr
    assert stored(aws) == BIG


@pytest.mark.parametrize("missing", ["sent", "refused"])
def test_the_printed_lines_complete_nothing_without_every_part(aws, tmp_path, monkeypatch, missing):
    monkeypatch.chdir(tmp_path)
    for name in ("FILE.partaaaaa", "FILE.partaaaab"):
        (tmp_path / name).write_bytes(BIG[: 6 * 1024 * 1024])
    lines = multipart_lines(tmp_path / "FILE").splitlines()
    (second,) = [n for n, line in enumerate(lines) if line.startswith("curl") and "aaaab" in line]
    if missing == "sent":
        del lines[second]
    else:
        lines[second] = lines[second].replace("X-Amz-Signature=", "X-Amz-Signature=0")
    # Pasted line by line, as a terminal runs them: what failed keeps nothing that follows back.
    script = "set +e\n" + "\n".join(lines)
    done = run_lines("dash", script, tmp_path)
    assert "part 2 was not sent" in done.stderr
    # Completing was not so much as asked for.
    assert done.stdout.count("<Error>") == (1 if missing == "refused" else 0)
    assert stored(aws) is None
    assert len(aws.s3.list_multipart_uploads(Bucket=STAGING)["Uploads"]) == 1


def test_an_upload_that_is_refused_at_the_end_is_a_failure(aws, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "big.bin"
    file.write_bytes(BIG)
    lines = multipart_lines(file, "--no-overwrite")
    aws.s3.put_object(Bucket=STAGING, Key=KEY, Body=b"there before")
    done = run_lines("dash", lines, tmp_path)
    assert done.returncode != 0
    assert "PreconditionFailed" in done.stdout
    assert stored(aws) == b"there before"


@pytest.mark.parametrize("options", [["--no-overwrite"], ["--post"], ["--multipart", "2"]])
def test_the_lines_for_powershell_upload_as_printed(aws, tmp_path, monkeypatch, options):
    if shutil.which("pwsh") is None:
        pytest.skip("pwsh is not installed")
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "it's [1] $b\u2019.bin"
    file.write_bytes(BIG)
    words = ["presign", KEY, "--file", file.name, "--shell", "powershell", *options]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.stderr
    (tmp_path / "lines.ps1").write_text(result.stdout)
    done = subprocess.run(["pwsh", "-NoProfile", "-File", "lines.ps1"], cwd=tmp_path)
    assert done.returncode == 0
    assert stored(aws) == BIG


def complete_body(etags: list[str]) -> bytes:
    parts = "".join(
        f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
        for number, etag in enumerate(etags, 1)
    )
    return f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()


@pytest.fixture
def upload_role(aws: Aws) -> str:
    """A role with the rights of the stack's."""
    trust = {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}
    rights = {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}
    role = aws.iam.create_role(RoleName="uploader", AssumeRolePolicyDocument=json.dumps(trust))
    aws.iam.put_role_policy(
        RoleName="uploader", PolicyName="upload", PolicyDocument=json.dumps(rights)
    )
    return role["Role"]["Arn"]


def client_of(found: dict[str, Any]):
    return boto3.client(
        "s3",
        endpoint_url=found["endpoint_url"],
        region_name=found["region"],
        aws_access_key_id=found["access_key_id"],
        aws_secret_access_key=found["secret_access_key"],
        aws_session_token=found["session_token"],
        config=Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1}),
    )


def refusal(call: Any, **arguments: str | bytes) -> str:
    with pytest.raises(ClientError) as caught:
        call(Bucket=STAGING, **arguments)
    return str(caught.value.response["Error"]["Code"])


def test_scoped_credentials_upload_their_key_and_nothing_else(aws, upload_role):
    key = "in/only this one.csv"
    found, _ = run("credentials", key, "--role-arn", upload_role)
    s3 = client_of(found)
    s3.put_object(Bucket=STAGING, Key=key, Body=CONTENT)
    assert stored(aws, key) == CONTENT
    for other in ("in/only this one.csv2", "in/other.csv", "in/"):
        assert refusal(s3.put_object, Key=other, Body=b"") == "AccessDenied"
    assert refusal(s3.get_object, Key=key) == "AccessDenied"
    assert refusal(s3.delete_object, Key=key) == "AccessDenied"
    assert refusal(s3.list_objects_v2) == "AccessDenied"


def test_scoped_credentials_send_list_and_abort_a_multipart_upload(aws, upload_role):
    found, _ = run("credentials", "big.bin", "--role-arn", upload_role)
    s3 = client_of(found)
    where = {"Bucket": STAGING, "Key": "big.bin"}
    upload_id = s3.create_multipart_upload(**where)["UploadId"]
    s3.upload_part(**where, UploadId=upload_id, PartNumber=1, Body=CONTENT)
    assert len(s3.list_parts(**where, UploadId=upload_id)["Parts"]) == 1
    s3.abort_multipart_upload(**where, UploadId=upload_id)
    assert not aws.s3.list_multipart_uploads(Bucket=STAGING).get("Uploads")


@pytest.mark.parametrize("key", ["*", "in/*", "in/?.csv", "${aws:username}"])
def test_a_key_of_wildcards_opens_no_other_key(aws, upload_role, key):
    found, _ = run("credentials", "--role-arn", upload_role, "--", key)
    s3 = client_of(found)
    for other in ("secret.csv", "in/a.csv", "uploader"):
        assert refusal(s3.put_object, Key=other, Body=b"") == "AccessDenied"


def test_the_environment_form_is_what_a_shell_and_the_sdks_take(aws, upload_role):
    result = CliRunner().invoke(cli, ["credentials", "k'ey\n$(x)", "--role-arn", upload_role])
    assert result.exit_code == 0, result.stderr
    script = result.stdout + "env -0"
    done = subprocess.run(["bash", "-e"], input=script, capture_output=True, text=True, check=True)
    variables = dict(line.split("=", 1) for line in done.stdout.split("\0") if "=" in line)
    assert variables["AWS_ACCESS_KEY_ID"].startswith("ASIA")
    assert variables["AWS_SESSION_TOKEN"]
    assert "\nx" not in done.stderr
