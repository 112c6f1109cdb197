"""What the broker signs for the holder of a link, and that it signs nothing else for anybody."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
import pytest
from botocore.config import Config

from twobuckets.broker import grants, handler
from twobuckets.broker.grants import CACHE_SECONDS, Grant, Links, id_of
from twobuckets.broker.storage import Bucket

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

STAGING, ARTIFACTS = "broker-staging", "broker-artifacts"
LINKS = Links(Bucket(ARTIFACTS), "intake")
TOKEN = base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")
DELIVERY = "20260504T120000Z-abcdefghijkm"
KEY = f"acme/{DELIVERY}/a.csv"
MIB = 1024 * 1024
GRANT = Grant("acme/", 100 * MIB, time.time() + 3600, title="For Acme")


@pytest.fixture
def s3(empty_moto_url: str, monkeypatch: pytest.MonkeyPatch) -> S3Client:
    """A pipeline's buckets, and the environment that Lambda gives the function."""
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "ASIAOFTHEROLE"),
        ("AWS_SECRET_ACCESS_KEY", "secret-of-the-role"),
        ("AWS_SESSION_TOKEN", "session"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", empty_moto_url),
        ("STAGING_BUCKET", STAGING),
        ("LINKS_BUCKET", ARTIFACTS),
        ("LINKS_STACK", "intake"),
        ("SIGNATURE_SECONDS", "3600"),
        ("PAGE_TITLE", "Send us files"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(grants, "_cache", {})
    client = boto3.client("s3", config=Config(s3={"addressing_style": "path"}))
    client.create_bucket(Bucket=STAGING)
    client.create_bucket(Bucket=ARTIFACTS)
    mint(client)
    return client


def mint(s3: S3Client, grant: Grant | str = GRANT, token: str = TOKEN) -> None:
    body = grant if isinstance(grant, str) else grant.dump()
    s3.put_object(Bucket=ARTIFACTS, Key=LINKS.key(id_of(token)), Body=body.encode())


def event(
    action: str, body: object = None, token: str | None = TOKEN, **more: Any
) -> dict[str, Any]:
    headers = {} if token is None else {"x-upload-token": token}
    return {
        "headers": headers,
        "pathParameters": {"action": action},
        "requestContext": {"http": {"method": "POST", "sourceIp": "203.0.113.9"}},
        "body": body if isinstance(body, str) or body is None else json.dumps(body),
        **more,
    }


def ask(action: str, body: object = None, token: str | None = TOKEN, **more: Any) -> Any:
    answer = handler(event(action, body, token, **more), None)
    return answer["statusCode"], json.loads(answer["body"])


def started(**changed: Any) -> dict[str, Any]:
    return {"path": "a.csv", "size": 5, "type": "text/csv", "delivery": DELIVERY, **changed}


def query_of(request: dict[str, Any]) -> dict[str, str]:
    found = parse_qs(urlsplit(request["url"]).query, keep_blank_values=True)
    return {name: values[0] for name, values in found.items()}


def bound(request: dict[str, Any]) -> set[str]:
    return set(query_of(request)["X-Amz-SignedHeaders"].split(";"))


def test_a_small_file_is_signed_for_as_one_request_with_all_of_its_terms(s3):
    crc = "rosUhgp5mIg="
    status, found = ask("start", started(path="Ordner\\käse .csv", crc64nvme=crc))
    assert status == 200
    assert found["key"] == f"acme/{DELIVERY}/Ordner/käse .csv"
    put = found["put"]
    assert put["method"] == "PUT"
    assert put["headers"] == {
        "content-type": "text/csv",
        "if-none-match": "*",
        "x-amz-checksum-crc64nvme": crc,
    }
    assert bound(put) == {"host", "content-length", *put["headers"]}
    assert unquote(urlsplit(put["url"]).path) == f"/{STAGING}/{found['key']}"


def test_a_large_file_is_signed_for_in_parts_of_exact_lengths(s3):
    size = 20 * MIB
    _, begun = ask("start", started(path="film.mov", size=size, type="nonsense"))
    assert begun["create"]["headers"]["content-type"] == "application/octet-stream"
    asked = {"key": begun["key"], "upload_id": "u.1", "size": size}
    numbers = [{"number": 1, "crc64nvme": "rosUhgp5mIg="}, {"number": 3}]
    _, found = ask("parts", {**asked, "parts": numbers})
    assert list(found["parts"]) == ["1", "3"]
    for number, request in found["parts"].items():
        assert query_of(request)["partNumber"] == number
        assert query_of(request)["uploadId"] == "u.1"
        assert "content-length" in bound(request)
    _, found = ask("finish", {**asked, "crc64nvme": "rosUhgp5mIg=", "after": 1000})
    complete = found["complete"]["headers"]
    assert complete["x-amz-mp-object-size"] == str(size)
    assert (complete["if-none-match"], complete["x-amz-checksum-type"]) == ("*", "FULL_OBJECT")
    assert query_of(found["list"])["part-number-marker"] == "1000"
    assert [found[name]["method"] for name in ("list", "complete", "abort")] == [
        "GET",
        "POST",
        "DELETE",
    ]


def test_what_became_of_a_key_is_asked_by_a_listing_of_that_key(s3):
    _, found = ask("state", {"key": KEY})
    asked = query_of(found["list"])
    assert (asked["prefix"], asked["max-keys"]) == (KEY, "1")


def test_the_terms_are_the_links_and_its_looks_the_stacks(s3):
    _, found = ask("about")
    assert (found["title"], found["max_bytes"]) == ("For Acme", GRANT.max_bytes)
    assert found["delivery"] != ask("about")[1]["delivery"]
    mint(s3, GRANT._replace(title=""))
    grants._cache.clear()
    assert ask("about")[1]["title"] == "Send us files"


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


OTHER_TOKEN = base64.urlsafe_b64encode(b"x" * 32).decode().rstrip("=")
PARTS = {"key": KEY, "upload_id": "u", "size": 20 * MIB}
HOSTILE: list[tuple[str, str, object, dict[str, Any], int]] = [
    # who: tokens guessed, taken from the bucket, sent otherwise
    ("no token", "about", None, {"token": None}, 401),
    ("an empty token", "about", None, {"token": ""}, 401),
    ("a random token", "about", None, {"token": OTHER_TOKEN}, 401),
    ("the hash as the token", "about", None, {"token": id_of(TOKEN)}, 401),
    ("the hash as a token's text", "about", None, {"token": id_of(TOKEN)[:43]}, 401),
    ("another case", "about", None, {"token": TOKEN.swapcase()}, 401),
    ("a token with more", "about", None, {"token": f"{TOKEN}A"}, 401),
    ("a token with a line", "about", None, {"token": f"{TOKEN}\n"}, 401),
    ("a path as the token", "about", None, {"token": "../" * 14 + "a"}, 401),
    ("a token in the body", "about", {"token": TOKEN}, {"token": None}, 401),
    ("a token in the query", "about", None, {"token": None, "rawQueryString": TOKEN}, 401),
    ("a token of other headers", "about", None, {"headers": {"authorization": TOKEN}}, 401),
    ("no headers at all", "about", None, {"headers": None}, 401),
    # what: actions that are none
    ("another action", "delete", {}, {}, 404),
    ("an action of Python's", "__class__", {}, {}, 404),
    ("no action", "", {}, {}, 404),
    ("no parameters", "about", {}, {"pathParameters": None}, 404),
    # bodies
    ("no JSON", "start", "{", {}, 400),
    ("a list", "start", [], {}, 400),
    ("a text", "start", '"a"', {}, 400),
    ("a number", "start", "1", {}, 400),
    ("nothing", "start", "null", {}, 400),
    ("nothing at all", "start", None, {}, 400),
    ("a bomb", "start", deep(30_000), {}, 400),
    ("a bomb of objects", "start", '{"a":' * 10_000 + "1" + "}" * 10_000, {}, 400),
    ("ten megabytes", "start", "x" * 10_000_000, {}, 413),
    ("ten megabytes of base64", "start", "A" * 10_000_000, {"isBase64Encoded": True}, 413),
    ("base64 that is none", "start", "%%%", {"isBase64Encoded": True}, 400),
    ("bytes that are no text", "start", "gIGC", {"isBase64Encoded": True}, 400),
    ("a number that is none", "start", '{"size": NaN}', {}, 400),
    ("digits without end", "start", '{"size": ' + "9" * 5000 + "}", {}, 400),
    # sizes
    ("a size below nothing", "start", started(size=-1), {}, 413),
    ("a size above the link's", "start", started(size=100 * MIB + 1), {}, 413),
    ("a size above S3's", "start", started(size=2**63), {}, 413),
    ("a size as a text", "start", started(size="5"), {}, 400),
    ("a size in halves", "start", started(size=5.5), {}, 400),
    ("a size that is true", "start", started(size=True), {}, 400),
    ("no size", "start", {"path": "a", "delivery": DELIVERY}, {}, 400),
    ("parts of a larger file", "parts", {**PARTS, "size": 10**12, "parts": []}, {}, 413),
    ("the end of a larger file", "finish", {**PARTS, "size": 10**12}, {}, 413),
    # names
    ("no name", "start", started(path=""), {}, 422),
    ("only dots", "start", started(path="../.././/.."), {}, 422),
    ("only blanks", "start", started(path=" / \u3000 /\u00a0"), {}, 422),
    ("a name that is a list", "start", started(path=["a"]), {}, 400),
    ("a name that is too long", "start", started(path="ü" * 600), {}, 422),
    ("a delivery that climbs", "start", started(delivery="../" + DELIVERY), {}, 422),
    ("a delivery of one's own", "start", started(delivery="mine"), {}, 422),
    ("a delivery with more", "start", started(delivery=f"{DELIVERY}/x"), {}, 422),
    ("a delivery with a line", "start", started(delivery=f"{DELIVERY}\n"), {}, 422),
    ("no delivery", "start", {"path": "a", "size": 1}, {}, 400),
    # keys that come back
    ("another prefix", "state", {"key": f"other/{DELIVERY}/a.csv"}, {}, 403),
    ("a prefix that begins so", "state", {"key": f"acme2/{DELIVERY}/a.csv"}, {}, 403),
    ("the prefix alone", "state", {"key": "acme/"}, {}, 403),
    ("the delivery alone", "state", {"key": f"acme/{DELIVERY}/"}, {}, 403),
    ("half a delivery", "state", {"key": "acme/2026"}, {}, 403),
    ("no key", "state", {"key": ""}, {}, 403),
    ("no key at all", "state", {}, {}, 400),
    ("a key that climbs", "state", {"key": f"acme/{DELIVERY}/../../secret"}, {}, 403),
    ("a key with two slashes", "state", {"key": f"acme/{DELIVERY}//a"}, {}, 403),
    ("a key with a NUL", "state", {"key": f"acme/{DELIVERY}/a\0b"}, {}, 403),
    ("a key that turns around", "state", {"key": f"acme/{DELIVERY}/\u202egnp.exe"}, {}, 403),
    ("a key of half a character", "state", {"key": f"acme/{DELIVERY}/\ud800"}, {}, 403),
    ("a key in pieces", "state", {"key": f"acme/{DELIVERY}/a\u0308"}, {}, 403),
    ("a key that is too long", "state", {"key": f"acme/{DELIVERY}/{'a' * 1024}"}, {}, 403),
    ("parts of another key", "parts", {**PARTS, "key": "x", "parts": []}, {}, 403),
    ("the end of another key", "finish", {**PARTS, "key": "x"}, {}, 403),
    # plans of parts
    ("part zero", "parts", {**PARTS, "parts": [{"number": 0}]}, {}, 422),
    ("a part too many", "parts", {**PARTS, "parts": [{"number": 4}]}, {}, 422),
    ("a part below", "parts", {**PARTS, "parts": [{"number": -1}]}, {}, 422),
    ("a part as a text", "parts", {**PARTS, "parts": [{"number": "1"}]}, {}, 400),
    ("a part that is a number", "parts", {**PARTS, "parts": [1]}, {}, 400),
    ("a hundred and one parts", "parts", {**PARTS, "parts": [{"number": 1}] * 101}, {}, 422),
    ("parts that are a table", "parts", {**PARTS, "parts": {"1": 1}}, {}, 400),
    ("no parts", "parts", PARTS, {}, 400),
    ("an upload of more queries", "finish", {**PARTS, "upload_id": "u&tagging="}, {}, 422),
    ("an upload with a line", "finish", {**PARTS, "upload_id": "u\n"}, {}, 422),
    ("no upload", "finish", {**PARTS, "upload_id": ""}, {}, 422),
    ("an upload that is a number", "finish", {**PARTS, "upload_id": 7}, {}, 400),
    ("a list from elsewhere", "finish", {**PARTS, "after": "1&x=1"}, {}, 400),
    ("a list from below", "finish", {**PARTS, "after": -1}, {}, 400),
    # headers smuggled in by what becomes one
    ("a checksum with a line", "start", started(crc64nvme="rosUhgp5mIg=\nx: y"), {}, 422),
    ("a checksum that is none", "start", started(crc64nvme="short"), {}, 422),
    ("a checksum that is a list", "start", started(crc64nvme=["rosUhgp5mIg="]), {}, 422),
    ("a part's checksum", "parts", {**PARTS, "parts": [{"number": 1, "crc64nvme": 1}]}, {}, 422),
]


@pytest.mark.parametrize(
    ("action", "body", "more", "status"),
    [case[1:] for case in HOSTILE],
    ids=[case[0] for case in HOSTILE],
)
def test_a_hostile_request_is_refused_and_nothing_is_signed(s3, capsys, action, body, more, status):
    token = more.get("token", TOKEN)
    answer = handler(
        event(action, body, token, **{k: v for k, v in more.items() if k != "token"}), None
    )
    found = json.loads(answer["body"])
    assert (answer["statusCode"], sorted(found)) == (status, ["error", "message"]), found
    assert "X-Amz" not in answer["body"]
    # One line a request, without a token and without anything that was sent.
    (line,) = capsys.readouterr().out.splitlines()
    assert len(line) < 300
    assert TOKEN not in line
    assert json.loads(line)["status"] == status


def test_there_are_sixty_of_them_and_more():
    assert len(HOSTILE) >= 60


def test_a_type_can_not_smuggle_a_header(s3):
    for kind in ("text/csv\nx-amz-acl: public-read", "text/html; a=b", "a" * 200 + "/b", 5, None):
        _, found = ask("start", started(type=kind))
        assert found["put"]["headers"]["content-type"] == "application/octet-stream"


def test_a_name_of_accents_without_end_takes_no_time(s3):
    accents = "\u0301" * 12_000 + "\u0316" * 12_000
    bodies = [started(path=accents), {"key": f"acme/{DELIVERY}/{accents}"}]
    texts = [json.dumps(body, ensure_ascii=False) for body in bodies]
    began = time.process_time()
    assert ask("start", texts[0])[0] == 422
    assert ask("state", texts[1])[0] == 403
    assert time.process_time() - began < 0.5


def test_only_the_links_types_are_taken(s3):
    mint(s3, GRANT._replace(types=("csv", "pdf")))
    assert ask("start", started(path="A.CSV"))[0] == 200
    for path in ("a.exe", "csv", "a.csv.exe", "a."):
        expected = 200 if path == "csv" else 422
        assert ask("start", started(path=path))[0] == expected, path


def test_a_link_ends_by_its_time_and_within_half_a_minute_of_being_revoked(s3, monkeypatch):
    assert ask("about")[0] == 200
    s3.delete_object(Bucket=ARTIFACTS, Key=LINKS.key(id_of(TOKEN)))
    assert ask("about")[0] == 200
    # Between requests the function is frozen, and its monotonic clock stands still.
    frozen, later = time.monotonic(), time.time() + CACHE_SECONDS + 1
    monkeypatch.setattr(time, "monotonic", lambda: frozen)
    monkeypatch.setattr(time, "time", lambda: later)
    assert ask("about")[0] == 401
    mint(s3, GRANT._replace(expires_at=time.time() - 1), OTHER_TOKEN)
    assert ask("about", token=OTHER_TOKEN) == (
        410,
        {
            "error": "link-expired",
            "message": "This upload link has expired. Ask for a new one.",
        },
    )


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"prefix": 1}', '{"expires_at": {}}'])
def test_a_grant_that_can_not_be_read_grants_nothing(s3, text):
    mint(s3, text, OTHER_TOKEN)
    assert ask("about", token=OTHER_TOKEN)[0] == 401


def test_a_signature_ends_with_the_link_but_who_began_in_time_may_end(s3):
    mint(s3, GRANT._replace(expires_at=time.time() + 100), OTHER_TOKEN)
    _, found = ask("start", started(), OTHER_TOKEN)
    assert 900 < int(query_of(found["put"])["X-Amz-Expires"]) <= 1000
    _, found = ask("start", started())
    assert query_of(found["put"])["X-Amz-Expires"] == "3600"


def test_where_links_can_not_be_looked_up_the_page_is_told_to_try_again(s3, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert ask("about")[0] == 503


def test_a_file_whose_answer_was_lost_is_counted_once(s3):
    mint(s3, GRANT._replace(max_files=3))
    for _ in range(4):
        for path, claim in (("a", 0), ("b", 1), ("c", 2)):
            status, found = ask("start", started(path=path))
            assert (status, found.get("claim")) == (200, claim), found
    assert ask("start", started(path="d"))[0] == 403


def test_a_link_for_a_few_files_takes_no_more_however_many_ask_at_a_time(s3):
    mint(s3, GRANT._replace(max_files=5))

    def begin(number: int) -> int:
        return int(ask("start", started(path=f"{number}.csv"))[0])

    with ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(begin, range(12)))
    assert sorted(statuses) == [200] * 5 + [403] * 7
    claims = s3.list_objects_v2(Bucket=ARTIFACTS, Prefix="claims/")["Contents"]
    assert len(claims) == 5


def test_the_same_file_once_more_takes_no_other_claim(s3):
    mint(s3, GRANT._replace(max_files=2))
    _, first = ask("start", started())
    assert first["claim"] == 0
    assert ask("start", started(claim=0))[1]["claim"] == 0
    # Another file with that claim is another file.
    assert ask("start", started(path="b.csv", claim=0))[1]["claim"] == 1
    assert ask("start", started(path="c.csv", claim=1))[1]["error"] == "too-many-files"


def test_the_page_runs_only_its_own_script_and_sends_only_to_staging(s3):
    answer = handler({"requestContext": {"http": {"method": "GET"}}, "rawPath": "/"}, None)
    assert answer["statusCode"] == 200
    policy = answer["headers"]["content-security-policy"]
    endpoint = os.environ["AWS_ENDPOINT_URL"]
    assert f"connect-src 'self' {endpoint};" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert "ASIA" not in answer["body"]


def test_on_aws_a_bucket_is_at_its_own_host_and_by_path_only_with_a_dot(s3, monkeypatch):
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert Bucket("a-b").origin == "https://a-b.s3.us-east-1.amazonaws.com"
    assert "https://s3.us-east-1.amazonaws.com/a.b/k?" in Bucket("a.b").presign(
        "GET", "k", seconds=60
    )
    monkeypatch.setenv("AWS_REGION", "cn-north-1")
    assert Bucket("a").origin == "https://a.s3.cn-north-1.amazonaws.com.cn"


IMPORT = """
import time
started = time.process_time()
import twobuckets.broker
print(time.process_time() - started)
"""


def _import_seconds() -> float:
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, check=True)
    return float(done.stdout)


def test_an_answer_takes_little_time_and_so_does_a_cold_start(s3):
    ask("about")
    body = {**PARTS, "parts": [{"number": n} for n in (1, 2, 3)]}
    before = time.process_time()
    for _ in range(50):
        assert ask("parts", body)[0] == 200
    assert (time.process_time() - before) / 50 < 0.005
    assert min(_import_seconds() for _ in range(3)) < 0.08
