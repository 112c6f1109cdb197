"""`twobuckets ls` over the wire: against moto's S3, and against answers that moto cannot give."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote_plus, unquote, urlsplit

import boto3
import pytest
from click.testing import CliRunner, Result
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.conftest import put_into_moto
from tests.s3.scripted import Received, answer, refuse, serving
from twobuckets.cli import cli, rows
from twobuckets.cli.output import Output
from twobuckets.pipeline.lifecycle import Clearing, UploadEnd
from twobuckets.prices import US_EAST_1
from twobuckets.records import json_line
from twobuckets.reprocess.selection import read_wanted
from twobuckets.s3.answers import ListedObject
from twobuckets.s3.uploads import IncompleteUpload

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

STAGING, ARCHIVE = "intake-staging", "intake-archive"
EVIL = 'in/\x1b[31m[bold]"\u202e\t\n.csv'


@pytest.fixture(autouse=True)
def pipeline(
    fake_credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> Callable[[str], None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TWOBUCKETS_STAGING", STAGING)
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", ARCHIVE)
    return lambda url: monkeypatch.setenv("TWOBUCKETS_ENDPOINT_URL", url)


@pytest.fixture
def s3(empty_moto_url: str, pipeline: Callable[[str], None]) -> S3Client:
    pipeline(empty_moto_url)
    client = boto3.client("s3", endpoint_url=empty_moto_url, region_name="eu-central-1")
    for bucket in (STAGING, ARCHIVE):
        client.create_bucket(
            Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
        )
    return client


def run(*arguments: str, exit_code: int = 0) -> Result:
    result = CliRunner().invoke(cli, ["ls", *arguments])
    assert result.exit_code == exit_code, result.output
    return result


def records(*arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run("--json", *arguments).stdout.splitlines()]


def test_a_pipe_gets_time_bytes_and_key_and_the_sum_goes_to_stderr(s3: S3Client):
    s3.put_object(Bucket=ARCHIVE, Key="in/a b.csv", Body=b"12345")
    s3.put_object(Bucket=ARCHIVE, Key="in/ü.csv", Body=b"1")
    result = run("archive")
    fields = [line.split("\t") for line in result.stdout.splitlines()]
    assert [f[1:] for f in fields] == [["5", "in/a b.csv"], ["1", "in/ü.csv"]]
    assert datetime.fromisoformat(fields[0][0]) > datetime.now(UTC) - timedelta(minutes=5)
    assert "2 objects, 6 B in intake-archive" in result.stderr


def test_more_than_a_page_comes_in_order_and_complete(s3: S3Client):
    keys = [f"k{n:05}" for n in range(1203)]
    put_into_moto(STAGING, keys)
    listed = records("staging")
    assert [r["key"] for r in listed[:-1]] == keys
    assert listed[-1] == {
        "type": "summary",
        "bucket": STAGING,
        "count": 1203,
        "size_bytes": 0,
        "cost_month_usd": 0.0,
    }


def test_a_prefix_bounds_the_listing(s3: S3Client):
    for key in ("in/a", "in/b", "out/c"):
        s3.put_object(Bucket=STAGING, Key=key, Body=b"")
    assert [r["key"] for r in records("staging", "--prefix", "in/")[:-1]] == ["in/a", "in/b"]


@pytest.mark.parametrize("place", ["staging", "uploads"])
def test_a_prefix_that_no_key_can_have_is_refused(place: str):
    assert "not UTF-8" in run(place, "--prefix", "bad\udcff", exit_code=2).stderr


@pytest.mark.parametrize("age", ["999999999d", "9" * 400])
def test_an_age_beyond_all_time_is_refused(age: str):
    assert "thousand years" in run("staging", "--older-than", age, exit_code=2).stderr


def test_incomplete_uploads_show_what_they_hold(s3: S3Client):
    upload = s3.create_multipart_upload(Bucket=STAGING, Key="in/big file.bin")["UploadId"]
    for number in (1, 2):
        s3.upload_part(
            Bucket=STAGING,
            Key="in/big file.bin",
            UploadId=upload,
            PartNumber=number,
            Body=b"x" * (5 * 1024 * 1024),
        )
    empty = s3.create_multipart_upload(Bucket=STAGING, Key="in/empty.bin")["UploadId"]
    first, second, summary = records("uploads")
    assert (first["key"], first["upload_id"]) == ("in/big file.bin", upload)
    assert (first["parts"], first["stored_bytes"]) == (2, 10 * 1024 * 1024)
    assert first["cost_month_usd"] == pytest.approx(0.000225, abs=1e-6)
    assert (second["upload_id"], second["parts"], second["abort_at"]) == (empty, 0, None)
    assert (summary["count"], summary["size_bytes"]) == (2, 10 * 1024 * 1024)
    fields = run("uploads", "--larger-than", "1MiB").stdout.rstrip("\n").split("\t")
    assert fields[1:4] == ["2", str(10 * 1024 * 1024), "-"]
    assert fields[-2:] == [upload, "in/big file.bin"]


def test_a_missing_bucket_is_named(s3: S3Client, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TWOBUCKETS_ARCHIVE", "not-there-at-all")
    result = run("archive", exit_code=4)
    assert "Could not list the bucket not-there-at-all" in result.stderr


# -- answers that moto cannot give


def instant(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def page(kind: str, body: str) -> bytes:
    text = (
        f"<{kind}><IsTruncated>false</IsTruncated><EncodingType>url</EncodingType>{body}</{kind}>"
    )
    return answer(200, text.encode())


def query_of(received: Received) -> dict[str, str]:
    target = urlsplit(received.head.split()[1])
    values = parse_qs(target.query, keep_blank_values=True)
    return {name: value[0] for name, value in values.items()}


def staged(ages: dict[str, timedelta]) -> Callable[[Received], bytes]:
    now = datetime.now(UTC)
    listed = "".join(
        f"<Contents><Key>{quote_plus(key)}</Key><LastModified>{instant(now - age)}</LastModified>"
        f"<ETag>&quot;e&quot;</ETag><Size>{size}</Size></Contents>"
        for size, (key, age) in enumerate(sorted(ages.items()))
    )
    return lambda received: page("ListBucketResult", listed)


AGES = {"a": timedelta(minutes=1), "b": timedelta(minutes=20), "c": timedelta(days=2)}


def test_json_keeps_any_key_exactly_and_text_shows_it_harmlessly(
    pipeline: Callable[[str], None],
):
    with serving(staged({EVIL: timedelta(), "plain": timedelta()})) as server:
        pipeline(server.url)
        assert [r["key"] for r in records("archive")[:-1]] == [EVIL, "plain"]
        first, second = run("archive").stdout.splitlines()
    assert first.split("\t")[2] == 'in/\\x1b[31m[bold]"\\u202e\\t\\n.csv'
    assert second.split("\t")[2] == "plain"


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ((), ["a", "b", "c"]),
        (("--older-than", "15m"), ["b", "c"]),
        (("--newer-than", "15m"), ["a"]),
        (("--older-than", "15m", "--newer-than", "1d"), ["b"]),
        (("--larger-than", "1"), ["c"]),
    ],
)
def test_ages_and_sizes_choose_what_is_shown(
    options: tuple[str, ...], keys: list[str], pipeline: Callable[[str], None]
):
    with serving(staged(AGES)) as server:
        pipeline(server.url)
        listed = records("staging", *options)
    assert [r["key"] for r in listed[:-1]] == keys
    assert listed[-1]["count"] == len(keys)
    ages = {r["key"]: r["age"] for r in listed[:-1]}
    for key in keys:
        assert ages[key] == pytest.approx(AGES[key].total_seconds(), abs=60)


def uploads_of(
    parts: dict[str, int], abort_at: datetime | None = None, denied: bool = False
) -> Callable[[Received], bytes]:
    """List one upload per key, whose parts of 5 MiB come in pages of three."""
    started = instant(datetime.now(UTC) - timedelta(days=3))

    def respond(received: Received) -> bytes:
        query = query_of(received)
        if "uploads" in query:
            listed = "".join(
                f"<Upload><Key>{key}</Key><UploadId>id-{key}</UploadId><Initiator><ID>arn:x</ID>"
                f"<DisplayName>ada</DisplayName></Initiator><Initiated>{started}</Initiated>"
                "<StorageClass>STANDARD</StorageClass></Upload>"
                for key in sorted(parts)
            )
            return page("ListMultipartUploadsResult", listed)
        if denied:
            return refuse(403, "AccessDenied")
        if "lifecycle" in query:
            return refuse(404, "NoSuchLifecycleConfiguration")
        key = unquote(urlsplit(received.head.split()[1]).path).split("/", 2)[2]
        if parts[key] < 0:
            return refuse(404, "NoSuchUpload")
        first = int(query.get("part-number-marker", "0"))
        shown = range(first + 1, min(first + 3, parts[key]) + 1)
        listed = "".join(
            f"<Part><PartNumber>{n}</PartNumber><Size>{5 * 1024 * 1024}</Size></Part>"
            for n in shown
        )
        more = str(first + 3 < parts[key]).lower()
        marker = f"<NextPartNumberMarker>{first + 3}</NextPartNumberMarker>"
        headers = []
        if abort_at is not None:
            headers = [
                f"x-amz-abort-date: {format_datetime(abort_at, usegmt=True)}",
                "x-amz-abort-rule-id: clear",
            ]
        body = (
            f"<ListPartsResult><IsTruncated>{more}</IsTruncated>{marker}{listed}</ListPartsResult>"
        )
        return answer(200, body.encode(), *headers)

    return respond


def test_parts_are_counted_over_all_their_pages_and_the_rules_date_is_told(
    pipeline: Callable[[str], None],
):
    abort_at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    with serving(uploads_of({"a": 7, "b": 3, "gone": -1}, abort_at)) as server:
        pipeline(server.url)
        first, second, summary = records("uploads")
    assert (first["key"], first["parts"], first["stored_bytes"]) == ("a", 7, 7 * 5 * 1024**2)
    assert (second["key"], second["parts"]) == ("b", 3)
    assert first["initiator"] == "ada"
    assert datetime.fromisoformat(first["abort_at"]) == abort_at
    assert first["abort_rule"] == "clear"
    assert first["age"] == pytest.approx(3 * 86400, abs=60)
    assert summary["count"] == 2


def test_parts_of_what_is_too_young_are_not_asked_for(pipeline: Callable[[str], None]):
    with serving(uploads_of({"a": 1})) as server:
        pipeline(server.url)
        assert len(records("uploads", "--older-than", "4d")) == 1
        assert not any("uploadId" in r.head for r in server.received)


def test_of_many_uploads_the_parts_are_asked_for_on_request(
    pipeline: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("twobuckets.cli.commands.ls._MOST_ASKED", 2)
    with serving(uploads_of({"a": 1, "b": 4, "c": 2, "d": 1})) as server:
        pipeline(server.url)

        def asked_for(*options: str) -> tuple[list[str], int, str]:
            server.received.clear()
            result = run("uploads", *options)
            parts = [line.split("\t")[1] for line in result.stdout.splitlines()]
            return parts, sum("uploadId" in r.head for r in server.received), result.stderr

        parts, requests, said = asked_for()
        assert (parts, requests) == (["1", "4", "-", "-"], 3)
        assert "2 more uploads were not asked for" in said
        assert "--parts" in said
        assert "access denied" not in said
        parts, requests, said = asked_for("--parts")
        assert (parts, requests) == (["1", "4", "2", "1"], 5)
        assert "not asked for" not in said
        # Sizes can't be compared without.
        assert asked_for("--larger-than", "6MiB")[0] == ["4", "2"]


def test_uploads_are_listed_also_where_their_parts_may_not_be(pipeline: Callable[[str], None]):
    with serving(uploads_of({"a": 1}, denied=True)) as server:
        pipeline(server.url)
        result = run("uploads")
    assert result.stdout.split("\t")[1:3] == ["-", "-"]
    assert "s3:ListMultipartUploadParts" in result.stderr


def test_a_refused_listing_names_the_permission(pipeline: Callable[[str], None]):
    with serving(lambda received: refuse(403, "AccessDenied")) as server:
        pipeline(server.url)
        result = run("staging", exit_code=5)
    assert "s3:ListBucket" in result.stderr
    assert STAGING in result.stderr


# -- rows


def objects(*keys: str) -> list[ListedObject]:
    at = datetime(2026, 5, 4, 13, 30, tzinfo=UTC)
    return [ListedObject(key, 5 * 1024**2, at, "e-2", "GLACIER") for key in keys]


def test_a_row_of_json_is_what_a_record_would_be():
    made = dataclasses.make_dataclass("Object", ListedObject._fields)
    for row in objects(EVIL, "a", "\ud800", "é"):
        assert rows.object_json([row]) == json_line(made(*row)) + "\n"


def test_a_person_sees_ages_sizes_and_two_lines_for_an_upload():
    now = datetime(2026, 5, 4, 16, 35, tzinfo=UTC)
    assert rows.object_table(objects("a\x1b"), now=now) == "   3h 5m     5.0 MiB  a\\x1b\n"
    assert rows.object_table(objects("a")) == "2026-05-04 13:30:00Z     5.0 MiB  a\n"
    at = now - timedelta(hours=49)
    upload = IncompleteUpload("k\n", "id", at, "ada", "STANDARD", 7, 7 * 1024**3, at, "r")
    ended = UploadEnd(Clearing.BY_RULE, at)
    shown = rows.upload_table([upload], now=now, prices=US_EAST_1, ends=lambda _: ended)
    assert shown == (
        "   2d 1h      7 parts    7.0 GiB   $0.16 a month  k\\n\n"
        "         by ada, aborted by a rule on 2026-05-02, id id\n"
    )


def test_lines_made_elsewhere_pass_the_last_guard(capsys: pytest.CaptureFixture[str]):
    Output().lines("a\tb\x1b\n")
    assert capsys.readouterr().out == "a\tb\ufffd\n"


ODD_KEYS = [
    "a\nb",
    "a\\nb",
    "a\\",
    "\\",
    " leading and trailing ",
    "tab\tin it",
    "cr\rin it",
    "{",
    ' {"key": "other"}',
    '"quoted"',
    f"{ARCHIVE},in,a,manifest",
    "Bucket,Key",
    "\ufeffmark",
    "\u202eoverride",
    # moto has no answer about keys with other controls.
    "\x85next line",
    "-rf",
    "//",
    "\\x41",
    "ünï/😀",
]


@pytest.mark.parametrize("form", [(), ("--null",)])
def test_what_a_pipe_gets_is_read_back_exactly(
    s3: S3Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Any, form: tuple[str, ...]
):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    put_into_moto(ARCHIVE, ODD_KEYS)
    listed = run("archive", *form).stdout
    if not form:
        listed = "".join(line.split("\t", 2)[2] + "\n" for line in listed.splitlines())
    arguments = ["reprocess", "--from-file", "-", "--dry-run", "--json"]
    planned = CliRunner().invoke(cli, arguments, input=listed.encode())
    # moto finds no object with a line end in its key.
    assert planned.exit_code in (0, 3), planned.output
    items = [json.loads(line) for line in planned.stdout.splitlines()]
    keys = [item["key"] for item in items if item["type"] == "item"]
    assert sorted(keys) == sorted(ODD_KEYS)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1))
@example('  {"')
@example("BUCKET,")
def test_any_key_alone_on_a_line_is_read_back_exactly(key: str):
    assume(len(key.encode()) <= 1024)
    found = ListedObject(key, 1, datetime.now(UTC), "e", "STANDARD")
    line = rows.object_lines([found], rows.KeyWriter((STAGING, ARCHIVE))).split("\t", 2)[2]
    assert line.endswith("\n")
    assert line.count("\n") == 1
    stream = io.BytesIO(line.encode())
    assert [w.key for w in read_wanted(stream, name="x", buckets=(STAGING, ARCHIVE))] == [key]


def test_what_nobody_has_to_escape_stays_as_it_is(s3: S3Client):
    put_into_moto(ARCHIVE, ["in/ü, 'x' {1} (2).csv", "report,final.csv"])
    keys = [line.split("\t")[2] for line in run("archive").stdout.splitlines()]
    assert keys == ["in/ü, 'x' {1} (2).csv", "report,final.csv"]


def test_null_is_no_form_for_programs_that_asked_for_json(s3: S3Client):
    assert "is for a pipe" in run("archive", "--null", "--json", exit_code=2).stderr
