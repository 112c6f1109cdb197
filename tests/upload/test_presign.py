"""What `presign` signs, what it refuses to sign, and that it tells nobody else."""

from __future__ import annotations

import base64
import json
import logging
import os
import shlex
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st

from tests.s3.credentials import FixedCredentials
from twobuckets.cli import cli
from twobuckets.errors import NotFoundError, UsageError
from twobuckets.s3.engine import Keys, SigV4Signer, connect, parse_endpoint
from twobuckets.text import is_hidden
from twobuckets.upload.powershell import PowerShell
from twobuckets.upload.presign import (
    Life,
    Terms,
    parse_sha256,
    plan_exactly,
    presign_multipart,
    presign_post,
    presign_put,
    terms_of,
)

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
LIFE = Life(timedelta(hours=1), NOW + timedelta(hours=1))
KEYS = Keys("AKIDEXAMPLE", "secret-of-the-tests")
# S3's own rule for keys: any Unicode text of 1 to 1,024 bytes.
keys = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200).filter(
    lambda key: len(key.encode()) <= 1024
)


def signer_at(now: datetime = NOW, region: str = "eu-central-1") -> SigV4Signer:
    endpoint = parse_endpoint(f"https://s3.{region}.amazonaws.com", region=region)
    return SigV4Signer(endpoint, FixedCredentials(KEYS), clock=now.timestamp)


@pytest.fixture
def run(monkeypatch, fake_credentials):
    """Run the program for a pair that is named, which needs no stack and no network."""
    monkeypatch.setenv("TWOBUCKETS_STAGING", "staging-bucket")
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", "archive-bucket")

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(cli, arguments)

    return invoke


def signed_headers(url: str) -> set[str]:
    return set(parse_qs(urlsplit(url).query)["X-Amz-SignedHeaders"][0].split(";"))


def test_every_term_is_in_the_signature_and_in_the_command_line(run, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes(b"1,2\n")
    result = run("presign", "in/rows.csv", "--file", str(file), "--no-overwrite")
    assert result.exit_code == 0, result.stderr
    comment, curl = result.stdout.splitlines()
    assert comment.startswith("# s3://staging-bucket/in/rows.csv, exactly 4 bytes, until ")
    words = shlex.split(curl)
    assert words[0] == "curl"
    assert words[words.index("--upload-file") + 1] == str(file)
    headers = {word.partition(": ")[0] for word in words if ": " in word}
    assert headers == {"content-type", "x-amz-checksum-sha256", "if-none-match"}
    assert signed_headers(words[-1]) == headers | {"host", "content-length"}


def test_the_url_is_of_the_buckets_region_and_lives_as_long_as_asked(run):
    result = run("presign", "k", "--expires", "15m", "--json")
    request, summary = map(json.loads, result.stdout.splitlines())
    assert request["type"] == "presigned-request"
    parts = urlsplit(request["url"])
    assert parts.netloc == "staging-bucket.s3.eu-central-1.amazonaws.com"
    query = parse_qs(parts.query)
    assert query["X-Amz-Expires"] == ["900"]
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert request["headers"] == {"content-type": "application/octet-stream"}
    assert summary == {"type": "summary", "requests": 1, "expires_at": request["expires_at"]}


@given(keys)
def test_the_url_leads_to_exactly_the_key_and_its_view_is_one_line(key):
    request = presign_put(signer_at(), "staging", terms_of(key), LIFE)
    path = request.url.partition("?")[0].partition("amazonaws.com/")[2]
    assert unquote(path, errors="strict") == key
    assert path.isascii()
    assert request.command is not None
    assert len(request.command.splitlines()) == 1
    assert shlex.split(request.command)[-1] == request.url


@given(keys.filter(lambda key: "${filename}" not in key), st.integers(1, 10**9))
@example("price in $.csv", 1)
def test_a_forms_policy_allows_exactly_the_key_and_is_signed_as_botocore_signs(key, limit):
    terms = Terms(key, "text/plain")
    request = presign_post(signer_at(), "staging", terms, LIFE, max_bytes=limit)
    policy_text = base64.b64decode(request.fields["policy"]).decode()
    assert "$" not in policy_text
    policy = json.loads(policy_text)
    assert {"key": key} in policy["conditions"]
    assert {"Content-Type": "text/plain"} in policy["conditions"]
    assert ["content-length-range", 0, limit] in policy["conditions"]
    assert policy["expiration"] == "2026-03-01T13:00:00Z"
    by_botocore = SigV4Auth(Credentials(*KEYS), "s3", "eu-central-1")
    asked = AWSRequest("POST", request.url)
    asked.context["timestamp"] = request.fields["x-amz-date"]
    signature = by_botocore.signature(request.fields["policy"], asked)
    assert request.fields["x-amz-signature"] == signature


def test_a_form_can_be_bound_to_one_size(run):
    result = run("presign", "k", "--post", "--size", "12", "--json")
    request = json.loads(result.stdout.splitlines()[0])
    policy = json.loads(base64.b64decode(request["fields"]["policy"]))
    assert ["content-length-range", 12, 12] in policy["conditions"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["k", "--expires", "8d"], "one second to 7 days"),
        (["k", "--expires", "0s"], "one second to 7 days"),
        (["k", "--max-size", "1MB"], "--max-size needs --post"),
        (["k", "--post"], "without a limit on its size"),
        (["k", "--post", "--max-size", "1MB", "--no-overwrite"], "does not overwrite"),
        (["a${filename}", "--post", "--max-size", "1MB"], "replaces ${filename}"),
        (["k", "--post", "--multipart", "2"], "can't be combined"),
        (["k", "--size", "6GiB"], "S3 takes 5.0 GiB in one"),
        (["k", "--sha256", "abc"], "is not a SHA-256"),
        (["k", "--multipart", "0"], "from 1 to 10,000 parts"),
        (["k", "--multipart", "10001"], "from 1 to 10,000 parts"),
        (["k", "--multipart", "3", "--size", "10MiB"], "into 3 parts"),
        (["k", "--multipart", "1", "--size", "6GiB"], "into 1 parts"),
        (["k", "--multipart", "2", "--sha256", "0" * 64], "for each part only"),
        (["k" * 1025], "it has 1,025 bytes"),
        ([""], "it is empty"),
    ],
)
def test_what_s3_could_not_hold_the_sender_to_is_refused_with_the_reason(run, arguments, said):
    result = run("presign", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""


def test_a_file_that_is_not_what_was_promised_is_refused(run, tmp_path):
    file = tmp_path / "rows.csv"
    file.write_bytes(b"1,2\n")
    assert run("presign", "k", "--file", str(file), "--size", "5").exit_code == 2
    assert run("presign", "k", "--file", str(file), "--sha256", "0" * 64).exit_code == 2
    missing = run("presign", "k", "--file", str(tmp_path / "gone"))
    assert missing.exit_code == 2
    assert "No such file" in missing.stderr
    assert run("presign", "k", "--file", str(tmp_path)).exit_code == 2


def test_a_url_that_would_outlive_its_credentials_is_refused(run, monkeypatch):
    ends_at = datetime.now(UTC) + timedelta(hours=2)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-the-tests")
    monkeypatch.setenv("AWS_CREDENTIAL_EXPIRATION", ends_at.isoformat())
    assert run("presign", "k", "--expires", "1h").exit_code == 0
    result = run("presign", "k", "--expires", "3h")
    assert result.exit_code == 5
    assert "the credentials in use expire in 1h 59m" in result.stderr
    assert result.stdout == ""


def test_temporary_credentials_without_an_end_are_pointed_out(run, monkeypatch):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token-of-the-tests")
    result = run("presign", "k")
    assert "temporary and don't say until when" in result.stderr
    assert "X-Amz-Security-Token=token-of-the-tests" in result.stdout


def test_what_stays_free_for_the_sender_is_said(run):
    loose = run("presign", "k").stderr
    assert "The size is not bound: the upload can have up to 5.0 GiB" in loose
    assert "replaces what is there; see --no-overwrite" in loose
    assert run("presign", "k", "--size", "5", "--no-overwrite").stderr == ""


def test_without_credentials_nothing_is_signed(run, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    result = run("presign", "k")
    assert result.exit_code == 5
    assert "no AWS credentials were found" in result.stderr


def test_a_url_is_on_stdout_only_and_never_logged(run, caplog):
    with caplog.at_level(logging.DEBUG):
        result = run("presign", "k", "-vv")
    assert "X-Amz-Signature" in result.stdout
    assert "X-Amz-Signature" not in result.stderr
    assert "X-Amz-Signature" not in caplog.text
    assert "X-Amz-Signature" not in repr(presign_put(signer_at(), "b", Terms("k", "t"), LIFE))


def test_a_key_that_acts_on_a_terminal_or_a_shell_stays_text(run):
    result = run("presign", "a\n$(touch x)\x1b[31m'")
    comment, curl = result.stdout.splitlines()
    assert shlex.split(comment)[1] == "s3://staging-bucket/a\\n$(touch x)\\x1b[31m',"
    assert "touch" not in shlex.split(curl)


def test_pasted_into_zsh_where_a_comment_is_a_command_no_key_runs(run, tmp_path):
    if shutil.which("zsh") is None:
        pytest.skip("there is no zsh")
    for key in ("$(touch PWNED)", "`touch PWNED`", "a;touch PWNED", "it's;touch PWNED"):
        comment, _ = run("presign", key).stdout.splitlines()
        done = subprocess.run(
            ["zsh", "-f", "-i"],
            input=f"{comment}\nprint -r -- end\n",
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
            start_new_session=True,
        )
        assert done.stdout == "end\n"
        assert list(tmp_path.iterdir()) == []


def test_a_form_for_a_key_that_no_shell_has_a_word_for_comes_without_a_line(run):
    shown = run("presign", "a\n", "--post", "--max-size", "1MiB")
    assert shown.exit_code == 0, shown.stderr
    assert all(line.startswith("# ") for line in shown.stdout.splitlines())
    request = json.loads(
        run("presign", "a\n", "--post", "--max-size", "1MiB", "--json").stdout.splitlines()[0]
    )
    assert (request["fields"]["key"], request["command"]) == ("a\n", None)
    # A PUT's URL holds any key, but no shell has a word for this file.
    assert "curl" in run("presign", "a\n").stdout


def read_powershell(line: str) -> list[str]:
    """Return the literals of a line as PowerShell reads them: any single quote ends one."""
    quotes = "'\u2018\u2019\u201a\u201b"
    words, at = [], 0
    while (at := next((n for n in range(at, len(line)) if line[n] in quotes), -1)) >= 0:
        word, at = "", at + 1
        while line[at] not in quotes or line[at + 1 : at + 2] in tuple(quotes):
            word += line[at]
            at += 2 if line[at] in quotes else 1
        words.append(word)
        at += 1
    return words


@given(st.text(min_size=1).filter(lambda name: not any(map(is_hidden, name))))
@example("it's \u2018quoted\u2019 $(x) `y` \u201bz")
def test_a_name_is_one_literal_of_powershell(name):
    terms = Terms("k", "text/plain", no_overwrite=True, file=name)
    request = presign_put(signer_at(), "staging", terms, LIFE, shell=PowerShell())
    assert request.command is not None
    url, kind, header, value, file = read_powershell(request.command)
    assert (url, kind, header, value) == (request.url, "text/plain", "if-none-match", "*")
    assert file == name


@pytest.mark.parametrize("key", ["a/../b", "./b"])
def test_a_key_that_powershell_would_change_is_refused(run, key):
    result = run("presign", key, "--shell", "powershell")
    assert result.exit_code == 2
    assert "PowerShell" in result.stderr


@pytest.fixture
def sender(staging):
    keys = Keys(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    endpoint = parse_endpoint(staging.endpoint_url, region="us-east-1")
    with connect(endpoint, FixedCredentials(keys)) as sender:
        yield sender


def test_a_multipart_upload_is_created_with_its_type_and_all_its_requests_are_signed(
    staging, sender
):
    terms = Terms("k", "text/csv", size_bytes=11 * 2**20, no_overwrite=True)
    started, requests = presign_multipart(sender, signer_at(), staging.bucket, terms, LIFE, parts=2)
    assert staging.uploads() == [("k", started.upload_id)]
    found = [(r.purpose, r.method, r.part_number, r.size_bytes) for r in requests]
    half = 11 * 2**19
    assert found == [
        ("part", "PUT", 1, half),
        ("part", "PUT", 2, half),
        ("complete", "POST", None, None),
        ("abort", "DELETE", None, None),
        ("list-parts", "GET", None, None),
    ]
    assert signed_headers(requests[0].url) == {"host", "content-length"}
    completing = {"host", "if-none-match", "x-amz-mp-object-size"}
    assert signed_headers(requests[2].url) == completing


def test_an_upload_that_could_not_be_signed_for_is_aborted(staging, sender):
    def broken_clock() -> float:
        raise RuntimeError("no time")

    endpoint = parse_endpoint("https://s3.us-east-1.amazonaws.com", region="us-east-1")
    signer = SigV4Signer(endpoint, FixedCredentials(KEYS), clock=broken_clock)
    with pytest.raises(RuntimeError, match="no time"):
        presign_multipart(sender, signer, staging.bucket, Terms("k", "t"), LIFE, parts=2)
    assert staging.uploads() == []


def test_an_upload_that_can_not_be_created_says_why(sender):
    with pytest.raises(NotFoundError, match=r"Could not create an upload of k: .*NoSuchBucket"):
        presign_multipart(sender, signer_at(), "no-such", Terms("k", "t"), LIFE, parts=2)


@given(st.integers(0, 6 * 5 * 2**30), st.integers(1, 10_000))
def test_parts_with_bound_lengths_make_up_the_whole_or_are_refused(size_bytes, parts):
    try:
        lengths = [part.length for part in plan_exactly(size_bytes, parts)]
    except UsageError:
        return
    assert len(lengths) == parts
    assert sum(lengths) == size_bytes
    assert all(5 * 2**20 <= length <= 5 * 2**30 for length in lengths[:-1])
    assert lengths[-1] > 0 or size_bytes == 0


@given(st.binary(min_size=32, max_size=32))
def test_a_sha256_may_be_given_as_hex_or_as_base64(digest):
    written = base64.b64encode(digest).decode()
    assert parse_sha256(digest.hex()) == written
    assert parse_sha256(written) == written


def test_lines_for_powershell_come_for_every_part_and_for_completing(staging, sender):
    terms = Terms("k", "text/plain", 11 * 1024 * 1024, file="f")
    started, requests = presign_multipart(
        sender, signer_at(), staging.bucket, terms, LIFE, parts=2, shell=PowerShell()
    )
    assert started.split is not None
    assert started.split.startswith("$etag = @{}; $in = ")
    first, second, completing, aborting, listing = (str(request.command) for request in requests)
    assert first.startswith("$etag[1] = ")
    assert first.endswith(" -Body $in.ReadBytes(5767168)).Headers['ETag']")
    assert second.startswith("$etag[2] = ")
    assert completing.startswith("$xml = 1..2 | ")
    assert "-Method Delete" in aborting
    assert "-Method Get" in listing
