"""What is above CopyObject's limit is copied in parts; here the limit is small."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.processor.conftest import ARCHIVE, STAGING, Pipeline
from tests.racemodel.mutants import mutant_of_processor

BODY = random.Random(3).randbytes(12_000_000)


@pytest.fixture
def processor(tmp_path: Path) -> Iterator[ModuleType]:
    """The processor with S3's least part size as its largest copy and part."""
    module = mutant_of_processor(
        tmp_path,
        ("copying", "LARGEST_COPY_BYTES = 5 * 1024**3", "LARGEST_COPY_BYTES = 5 * 1024**2"),
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
        "big", BODY, ContentType="text/csv", Metadata={"a": "b"}, Tagging="team=a%20b"
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

    record = pipeline.upload("big", BODY)
    client = processor.runtime._client(processor.runtime.find_settings(os.environ))
    client.meta.events.register("before-parameter-build.s3.UploadPartCopy", refuse)
    with pytest.raises(processor.runtime.RecordsFailedError, match="AccessDenied"):
        processor.handler({"Records": [record]}, pipeline.context)

    assert set(pipeline.staged()) == {"big"}
    assert pipeline.archived() == {}
    for bucket in (STAGING, ARCHIVE):
        assert "Uploads" not in pipeline.s3.list_multipart_uploads(Bucket=bucket)
