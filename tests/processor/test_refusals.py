"""Objects that S3 refuses where it gives others: each is one outcome with its reason.

The answers are those that AWS documents, word for word as they come over the wire; no emulator
gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders

from tests.processor.conftest import ARCHIVE, STAGING, Pipeline
from twobuckets.processor import runtime
from twobuckets.processor.refusals import reason_of_one


class Refusal(NamedTuple):
    status: int
    code: str
    message: str


SSE_C = Refusal(
    400,
    "InvalidRequest",
    "The object was stored using a form of Server Side Encryption. The correct parameters must be "
    "provided to retrieve the object.",
)
KMS_DENIED = Refusal(
    403,
    "AccessDenied",
    "User: arn:aws:sts::111122223333:assumed-role/r/f is not authorized to perform: kms:Decrypt on "
    "the resource associated with this ciphertext because no identity-based policy allows the "
    "kms:Decrypt action",
)
KMS_DISABLED = Refusal(
    400, "KMS.DisabledException", "arn:aws:kms:eu-central-1:1:key/k is disabled."
)
LOCKED = Refusal(403, "AccessDenied", "Access Denied because object protected by object lock.")
MFA = Refusal(403, "AccessDenied", "Mfa Authentication must be used for this request")
TAGGING = Refusal(
    403,
    "AccessDenied",
    "User: arn:aws:sts::111122223333:assumed-role/r/f is not authorized to perform: "
    's3:GetObjectTagging on resource: "arn:aws:s3:::staging/k"',
)
REQUESTER_PAYS = Refusal(403, "AccessDenied", "Access Denied")


class _Raw:
    def __init__(self, body: bytes) -> None:
        self._body = body

    def stream(self, *_: Any, **__: Any) -> Any:
        yield self._body

    def read(self, *_: Any) -> bytes:
        body, self._body = self._body, b""
        return body

    def close(self) -> None:
        pass


def refuse(
    client: Any, refusal: Refusal, operations: tuple[str, ...], is_meant: Callable[[str], bool]
) -> None:
    """Answer requests for what is meant as S3 does; an answer to HEAD has no body."""

    def answer(request: Any, **_: Any) -> AWSResponse | None:
        if not is_meant(request.url):
            return None
        body = f"<Error><Code>{refusal.code}</Code><Message>{refusal.message}</Message></Error>"
        said = b"" if request.method == "HEAD" else body.encode()
        headers = HTTPHeaders()
        headers["content-length"] = str(len(said))
        request.url = "http://refused.invalid/"  # the emulator is asked as well, and must not act
        return AWSResponse(request.url, refusal.status, headers, _Raw(said))

    for operation in operations:
        client.meta.events.register_first(f"before-send.s3.{operation}", answer)


@pytest.fixture
def client(pipeline: Pipeline) -> Any:
    """A client of the function's own, which no other test has changed."""
    runtime._clients.clear()
    pipeline.s3 = runtime._client(runtime.find_settings({"ARCHIVE_BUCKET": ARCHIVE}))
    yield pipeline.s3
    runtime._clients.clear()


READS = ("HeadObject", "GetObject")


def about(bucket: str, key: str) -> Callable[[str], bool]:
    return lambda url: f"{bucket}" in url and urlsplit(url).path.endswith(f"/{key}")


def test_a_file_under_its_uploaders_own_key_is_rejected_and_the_others_go_on(
    pipeline: Pipeline, client: Any
):
    records = [pipeline.upload("own"), pipeline.upload("plain")]
    refuse(client, SSE_C, READS, about(STAGING, "own"))
    own, plain = pipeline.invoke(*records)
    assert (own["outcome"], plain["outcome"]) == ("rejected", "archived")
    assert "SSE-C" in own["error"]["message"]
    assert own["error"]["trace"] == ""


def test_one_under_a_plain_one_is_told_as_what_it_is(pipeline: Pipeline, client: Any):
    record = pipeline.upload("own")
    version_id = record["s3"]["object"].get("versionId")
    if version_id is None:
        return
    pipeline.upload("own", b"plain")

    def is_meant(url: str) -> bool:
        return parse_qs(urlsplit(url).query).get("versionId") == [version_id]

    refuse(client, SSE_C, READS, is_meant)
    [line] = pipeline.invoke(record)
    assert (line["outcome"], "SSE-C" in line["error"]["message"]) == ("rejected", True)


@pytest.mark.parametrize("refusal", [SSE_C, KMS_DENIED, KMS_DISABLED])
def test_what_can_not_be_read_in_the_archive_is_never_covered(
    pipeline: Pipeline, client: Any, refusal: Refusal
):
    client.put_object(Bucket=ARCHIVE, Key="k", Body=b"closed")
    record = pipeline.upload("k", b"new")
    refuse(client, refusal, READS, about(ARCHIVE, "k"))
    with pytest.raises(runtime.RecordsFailedError, match="refuses 'k' in archive-bucket"):
        pipeline.invoke(record)
    assert pipeline.staged() == {"k": b"new"}


@pytest.mark.parametrize("refusal", [KMS_DENIED, KMS_DISABLED])
def test_a_key_of_kms_that_can_not_be_used_is_named(
    pipeline: Pipeline, client: Any, refusal: Refusal
):
    record = pipeline.upload("k")
    refuse(client, refusal, READS, about(STAGING, "k"))
    with pytest.raises(runtime.RecordsFailedError):
        pipeline.invoke(record)
    [line] = pipeline.lines
    assert (line["outcome"], line["error"]["type"]) == ("failed", "ClosedError")
    assert refusal.message in line["error"]["message"]


def test_a_requester_pays_bucket_is_not_called_a_missing_object(pipeline: Pipeline, client: Any):
    record = pipeline.upload("k")
    refuse(client, REQUESTER_PAYS, READS, about(STAGING, "k"))
    with pytest.raises(runtime.RecordsFailedError, match="Requester Pays"):
        pipeline.invoke(record)
    assert [line["outcome"] for line in pipeline.lines] == ["failed"]


def test_tags_that_may_not_be_copied_are_told_in_s3s_own_words(pipeline: Pipeline, client: Any):
    record = pipeline.upload("k", Tagging="a=b")
    refuse(client, TAGGING, ("CopyObject",), about(ARCHIVE, "k"))
    with pytest.raises(runtime.RecordsFailedError, match="s3:GetObjectTagging"):
        pipeline.invoke(record)
    assert pipeline.archived() == {}
    assert set(pipeline.staged()) == {"k"}


@pytest.mark.parametrize("refusal", [LOCKED, MFA])
def test_a_version_that_may_not_be_deleted_is_archived_and_said_to_stay(
    pipeline: Pipeline, client: Any, refusal: Refusal
):
    record = pipeline.upload("k")
    if "versionId" not in record["s3"]["object"]:
        return  # neither is there without versions
    refuse(client, refusal, ("DeleteObject",), lambda url: STAGING in url and "versionId" in url)
    [line] = pipeline.invoke(record)
    assert line["outcome"] == "archived"
    assert refusal.message in line["notes"][0]
    assert set(pipeline.archived()) == {"k"}
    # Nobody takes it for a file that waits: there is a delete marker on top.
    assert pipeline.staged() == {}
    [kept] = client.list_object_versions(Bucket=STAGING)["Versions"]
    assert kept["VersionId"] == record["s3"]["object"]["versionId"]
    # A second delivery says the same, and processes nothing again.
    [again] = pipeline.invoke(record)
    assert (again["outcome"], again["duplicate"]) == ("archived", True)
    assert refusal.message in again["notes"][0]


def test_where_versioning_is_suspended_the_file_with_the_id_null_goes_its_way(
    pipeline: Pipeline, client: Any
):
    client.put_object(Bucket=STAGING, Key="old", Body=b"from before")
    for bucket in (STAGING, ARCHIVE):
        client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    record = pipeline.upload("k", b"new")
    [line] = pipeline.invoke(record)
    assert line["outcome"] == "archived"
    assert pipeline.archived() == {"k": b"new"}
    assert set(pipeline.staged()) == {"old"}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDenied", "Access Denied"),
        ("ExpiredToken", "The provided token has expired."),
        ("InvalidRequest", "Missing required header for this request: x-amz-content-sha256"),
        ("AccessDenied", "User: u is not authorized to perform: s3:GetObject"),
    ],
)
def test_what_is_about_all_objects_is_not_laid_to_one(code: str, message: str):
    assert reason_of_one(code, message) is None


@pytest.mark.parametrize(
    "said",
    [
        b"<Error><Code>InternalError</Code><Message>We encountered an error.</Message></Error>",
        b"",
        b"<CopyObjectResult></CopyObjectResult>",
        b'<CopyObjectResult><ETag>"0123456789abcdef0123456789abcdef"</ETag></CopyObjectResult>',
    ],
    ids=["error", "empty", "hollow", "another"],
)
def test_a_copy_that_is_answered_by_200_and_was_not_made_is_no_reason_to_delete(
    pipeline: Pipeline, client: Any, said: bytes, monkeypatch: pytest.MonkeyPatch
):
    """S3 sends its 200 before a copy is done (S3 API reference, CopyObject)."""
    monkeypatch.setattr("botocore.endpoint.time.sleep", lambda _: None)

    def answer(request: Any, **_: Any) -> AWSResponse:
        headers = HTTPHeaders()
        headers["content-length"] = str(len(said))
        request.url = "http://refused.invalid/"  # the emulator is asked as well, and must not act
        return AWSResponse(request.url, 200, headers, _Raw(said))

    client.meta.events.register_first("before-send.s3.CopyObject", answer)
    with pytest.raises(runtime.RecordsFailedError):
        pipeline.invoke(pipeline.upload("k"))
    assert set(pipeline.staged()) == {"k"}
    assert pipeline.archived() == {}
