"""What is above CopyObject's limit, or long to copy, is copied in parts; here both are small."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError
from urllib3 import HTTPResponse

from tests.processor.conftest import ARCHIVE, STAGING, Pipeline
from tests.racemodel.mutants import mutant_of_processor

BODY = random.Random(3).randbytes(12_000_000)


@pytest.fixture(params=["LARGEST_COPY_BYTES = 5 * 1024**3", "LONG_COPY_BYTES = 1024**3"])
def processor(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ModuleType]:
    """The processor with S3's least part size as its largest, or long, copy and part."""
    limit = request.param.partition(" = ")[0]
    module = mutant_of_processor(
        tmp_path,
        ("copying", request.param, f"{limit} = 5 * 1024**2"),
        ("copying", "_PART_BYTES = 256 * 1024**2", "_PART_BYTES = 5 * 1024**2"),
    )
    yield module
    sys.path.remove(str(tmp_path))


def calls_of(client: Any) -> list[tuple[str, dict[str, Any]]]:
    """The calls that this client makes from now on."""
    calls: list[tuple[str, dict[str, Any]]] = []
    client.meta.events.register(
        "before-parameter-build.s3",
        lambda params, model, **_: calls.append((model.name, dict(params))),
    )
    return calls


def test_parts_carry_the_pin_and_the_object_keeps_what_it_had(
    pipeline: Pipeline, processor: ModuleType
) -> None:
    record = pipeline.upload(
        "big",
        BODY,
        ContentType="text/csv",
        Metadata={"a": "b"},
        Tagging="team=a%20b",
        ChecksumAlgorithm="CRC32",
    )
    client = processor.runtime._client(processor.runtime.find_settings(os.environ))
    calls = calls_of(client)
    processor.handler({"Records": [record]}, pipeline.context)

    [line] = pipeline.outcomes()
    assert line["outcome"] == "archived", line
    got = pipeline.s3.get_object(Bucket=ARCHIVE, Key="big")
    assert got["Body"].read() == BODY
    assert got["ContentType"] == "text/csv"
    assert got["Metadata"]["a"] == "b"
    tags = pipeline.s3.get_object_tagging(Bucket=ARCHIVE, Key="big")["TagSet"]
    assert tags == [{"Key": "team", "Value": "a b"}]
    assert pipeline.staged() == {}

    parts = [arguments for name, arguments in calls if name == "UploadPartCopy"]
    assert sorted(part["CopySourceRange"] for part in parts) == [
        "bytes=0-5242879",
        "bytes=10485760-11999999",
        "bytes=5242880-10485759",
    ]
    for part in parts:
        assert part["CopySourceIfMatch"] == f'"{line["etag"]}"'
        version = f"?versionId={line['version_id']}" if line["version_id"] else "big"
        assert part["CopySource"].endswith(version)


def test_a_copy_that_fails_on_the_way_is_aborted_and_the_file_stays(
    pipeline: Pipeline, processor: ModuleType
) -> None:
    def refuse(params: dict[str, Any], **_: Any) -> None:
        if params["PartNumber"] == 2:
            error: Any = {"Error": {"Code": "AccessDenied", "Message": "no"}}
            raise ClientError(error, "UploadPartCopy")

    record = pipeline.upload("big", BODY, ChecksumAlgorithm="CRC32")
    client = processor.runtime._client(processor.runtime.find_settings(os.environ))
    client.meta.events.register("before-parameter-build.s3.UploadPartCopy", refuse)
    with pytest.raises(processor.runtime.RecordsFailedError, match="AccessDenied"):
        processor.handler({"Records": [record]}, pipeline.context)

    assert set(pipeline.staged()) == {"big"}
    assert pipeline.archived() == {}
    for bucket in (STAGING, ARCHIVE):
        assert "Uploads" not in pipeline.s3.list_multipart_uploads(Bucket=bucket)


def answer(client: Any, operation: str, status: int, body: bytes) -> None:
    """Let S3 answer an operation like this."""

    def send(request: Any, **_: Any) -> Any:
        raw = HTTPResponse(BytesIO(body), preload_content=False)
        return AWSResponse(request.url, status, HTTPHeaders(), raw)

    client.meta.events.register(f"before-send.s3.{operation}", send)


@pytest.mark.parametrize(
    ("operation", "status", "body"),
    [
        ("GetObject", 200, b"<AnnotationName>by hand</AnnotationName>"),
        ("GetObject", 403, b"<Error><Code>AccessDenied</Code></Error>"),
        ("GetObjectTagging", 403, b"<Error><Code>AccessDenied</Code></Error>"),
    ],
)
def test_what_parts_would_leave_behind_is_copied_in_one_call_up_to_its_limit(
    pipeline: Pipeline, tmp_path: Path, operation: str, status: int, body: bytes
) -> None:
    processor = mutant_of_processor(
        tmp_path, ("copying", "LONG_COPY_BYTES = 1024**3", "LONG_COPY_BYTES = 5 * 1024**2")
    )
    record = pipeline.upload("big", BODY, ChecksumAlgorithm="CRC32")
    client = processor.runtime._client(processor.runtime.find_settings(os.environ))
    answer(client, operation, status, body)
    calls = calls_of(client)
    processor.handler({"Records": [record]}, pipeline.context)
    sys.path.remove(str(tmp_path))
    names = [name for name, _ in calls]
    assert "CopyObject" in names
    assert "UploadPartCopy" not in names
    assert set(pipeline.archived()) == {"big"}
    assert pipeline.staged() == {}
