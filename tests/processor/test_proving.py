"""A copy is proven to be equal before the staged version is deleted, whatever S3 tells of both.

The emulators tell more than S3 does, or less: what their answers lack is taken out on the way.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any

import pytest

from tests.processor.conftest import ARCHIVE, STAGING, Pipeline
from twobuckets.processor import runtime

BODY = bytes(range(256)) * 50


class Told:
    """S3 as it describes what boto3 uploaded in parts, and a copy of that in one call.

    `parts` tells each part's own checksum where it is asked for. `copy` is what the archive's copy
    is described by.
    """

    def __init__(self, client: Any, *, parts: bool, copy: dict[str, Any]) -> None:
        self.looks: list[int] = []
        self.reads = 0
        self.copies: list[dict[str, Any]] = []
        self._parts = parts
        self._copy = copy
        events = client.meta.events
        events.register("provide-client-params.s3.HeadObject", self._ask)
        events.register("after-call.s3.HeadObject", self._tell)
        events.register("after-call.s3.CopyObject", self._tell_copied)
        events.register("provide-client-params.s3.GetObject", self._read)
        events.register(
            "provide-client-params.s3.CopyObject",
            lambda params, **_: self.copies.append(dict(params)),
        )

    def _ask(self, params: dict[str, Any], context: dict[str, Any], **_: Any) -> dict[str, Any]:
        context["where"], context["part"] = params["Bucket"], params.get("PartNumber", 0)
        if context["part"]:
            self.looks.append(context["part"])
        return {name: value for name, value in params.items() if name != "PartNumber"}

    def _read(self, params: dict[str, Any], **_: Any) -> None:
        self.reads += 1
        if params["Bucket"] == ARCHIVE:
            # The emulator's own ETag is another than the one that it is made to tell.
            assert params.pop("IfMatch") == KMS["ETag"]

    def _tell(self, parsed: dict[str, Any], context: dict[str, Any], **_: Any) -> None:
        if parsed["ResponseMetadata"]["HTTPStatusCode"] != 200:
            return
        for name in [name for name in parsed if name.startswith("Checksum")]:
            del parsed[name]
        headers = parsed["ResponseMetadata"]["HTTPHeaders"]
        for name in [name for name in headers if name.startswith("x-amz-checksum")]:
            del headers[name]
        if context["where"] == ARCHIVE:
            parsed.update(self._copy)
            return
        parsed["ServerSideEncryption"] = "aws:kms"  # so that the ETag is no MD5
        parsed.update({"ChecksumType": "COMPOSITE", "ChecksumCRC32": "AAAAAA==-3"})
        if context["part"] and self._parts:
            size = -(-len(BODY) // 3)
            piece = BODY[(context["part"] - 1) * size : context["part"] * size]
            parsed["ContentLength"] = len(piece)
            parsed["ChecksumCRC32"] = crc(piece)

    def _tell_copied(self, parsed: dict[str, Any], **_: Any) -> None:
        if parsed["ResponseMetadata"]["HTTPStatusCode"] == 200:
            parsed["ServerSideEncryption"] = "aws:kms"
            parsed["CopyObjectResult"] = {
                name: value
                for name, value in self._copy.items()
                if name == "ETag" or name.startswith("Checksum")
            }


def crc(body: bytes) -> str:
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()


def told(pipeline: Pipeline, **how: Any) -> Told:
    runtime._clients.clear()
    pipeline.s3 = runtime._client(runtime.find_settings({"ARCHIVE_BUCKET": ARCHIVE}))
    return Told(pipeline.s3, **how)


@pytest.fixture(autouse=True)
def new_client() -> Any:
    yield
    runtime._clients.clear()


KMS = {"ServerSideEncryption": "aws:kms", "ETag": '"0123456789abcdef0123456789abcdef"'}


def test_an_upload_in_parts_is_proven_by_their_checksums_without_reading_it(pipeline: Pipeline):
    whole = {**KMS, "ChecksumType": "FULL_OBJECT", "ChecksumCRC32": crc(BODY)}
    seen = told(pipeline, parts=True, copy=whole)
    [line] = pipeline.invoke(pipeline.upload("big", BODY))
    assert line["outcome"] == "archived", line
    assert pipeline.staged() == {}
    assert sorted(seen.looks) == [1, 2, 3]
    # The copy has a checksum of the whole in the same algorithm.
    assert seen.copies[0]["ChecksumAlgorithm"] == "CRC32"


def test_a_copy_that_differs_from_what_the_parts_add_up_to_is_never_deleted_for(
    pipeline: Pipeline,
):
    other = {**KMS, "ChecksumType": "FULL_OBJECT", "ChecksumCRC32": crc(BODY[::-1])}
    told(pipeline, parts=True, copy=other)
    record = pipeline.upload("big", BODY)
    with pytest.raises(runtime.RecordsFailedError, match="not equal"):
        pipeline.invoke(record)
    assert pipeline.staged() == {"big": BODY}


@pytest.mark.parametrize("parts", [False, True])
def test_where_s3_tells_nothing_to_compare_by_both_are_read(pipeline: Pipeline, parts: bool):
    seen = told(pipeline, parts=parts, copy=KMS)
    [line] = pipeline.invoke(pipeline.upload("big", BODY))
    assert line["outcome"] == "archived", line
    assert seen.reads >= 2
    assert pipeline.staged() == {}


def test_reading_both_leaves_the_smallest_function_its_memory(pipeline: Pipeline):
    """A stream holds what it has room for, in ranges of a quarter of that."""
    told(pipeline, parts=False, copy=KMS)
    ranges: list[int] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        first, last = params["Range"].removeprefix("bytes=").split("-")
        ranges.append(int(last) - int(first) + 1)

    pipeline.s3.meta.events.register("provide-client-params.s3.GetObject", note)
    [line] = pipeline.invoke(pipeline.upload("big", bytes(20_000_000)))
    assert line["outcome"] == "archived", line
    assert sum(ranges) == 2 * 20_000_000
    assert max(ranges) <= 2 * 1024 * 1024


def test_an_equal_size_is_no_proof(pipeline: Pipeline):
    """Somebody's copy of the same size and with our note is not taken for ours."""
    told(pipeline, parts=False, copy=KMS)

    def corrupt(params: dict[str, Any], **_: Any) -> None:
        pipeline.s3.put_object(Bucket=STAGING, Key="other", Body=BODY[::-1])
        params["CopySource"] = {"Bucket": STAGING, "Key": "other"}
        del params["CopySourceIfMatch"]

    pipeline.s3.meta.events.register_first("provide-client-params.s3.CopyObject", corrupt)
    record = pipeline.upload("big", BODY)
    with pytest.raises(runtime.RecordsFailedError, match="not equal"):
        pipeline.invoke(record)
    assert pipeline.staged()["big"] == BODY


def test_what_s3_answers_to_the_copy_is_proof_enough(pipeline: Pipeline):
    """The copy is not asked for again, and what its answer says is held against the file."""
    asked: list[str] = []
    runtime._clients.clear()
    pipeline.s3 = runtime._client(runtime.find_settings({"ARCHIVE_BUCKET": ARCHIVE}))
    pipeline.s3.meta.events.register(
        "provide-client-params.s3.*", lambda params, model, **_: asked.append(model.name)
    )
    record = pipeline.upload("k", BODY)
    asked.clear()
    pipeline.invoke(record)
    assert asked.count("HeadObject") == 3
    assert asked.count("ListObjectVersions") == 0
