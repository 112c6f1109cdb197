"""What `presign` and `credentials` hand out is accepted for what it says, and for nothing else."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import time
from http.client import HTTPConnection, HTTPResponse
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


def test_the_printed_script_splits_the_file_and_sends_its_parts(aws, tmp_path):
    content = bytes(range(256)) * 4096 * 11
    file = tmp_path / "it's big.bin"
    file.write_bytes(content)
    command = ["presign", KEY, "--file", str(file), "--multipart", "2"]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.stderr
    sending, _, completing = result.stdout.partition("# complete")
    done = subprocess.run(["bash", "-e"], input=sending, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    etags = re.findall(r"(?im)^etag: *(\S+)", done.stdout)
    (tmp_path / "complete.xml").write_bytes(complete_body(etags))
    script = "# complete" + completing
    done = subprocess.run(
        ["bash", "-e"], input=script, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert stored(aws) == content


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
