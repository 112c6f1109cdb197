"""The processor in a real Lambda process, woken by real S3 events."""

from __future__ import annotations

import hashlib
import io
import json
import random
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import twobuckets.processor.runtime
from tests.embedded.pair import ARCHIVE, FUNCTION, STAGING, Pair, make_pair
from tests.processor.test_handler import AWKWARD_KEYS
from tests.racemodel.mutants import mutant_of_processor

if TYPE_CHECKING:
    from twobuckets.aws.clients import Aws

NOTES = "hand-notes"

USER = '''
import hashlib

import boto3

from twobuckets.processor import File, Reject

s3 = boto3.client("s3")


def is_first(file: File, what: str) -> bool:
    """Whether nobody has taken this down before; it outlives the function's environments."""
    try:
        s3.put_object(Bucket="hand-notes", Key=f"{what}/{file.key}", IfNoneMatch="*")
    except s3.exceptions.ClientError:
        return False
    return True


def process(file: File) -> None:
    with file.open() as stream:
        digest = hashlib.md5(usedforsecurity=False)
        while piece := stream.read(1 << 20):
            digest.update(piece)
    if "reject" in file.key:
        raise Reject("not wanted")
    if "fail" in file.key and is_first(file, "failed"):
        raise ValueError("this fails once")
    if "replace" in file.key and is_first(file, "replaced"):
        s3.put_object(Bucket=file.bucket, Key=file.key, Body=b"the second version")
    s3.put_object(Bucket="hand-notes", Key=f"processed/{digest.hexdigest()}/{file.key}")
'''


@pytest.mark.parametrize("versioned", [True, False])
def test_annotations_come_along_or_keep_the_file(
    embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, versioned: bool
) -> None:
    s3 = embedded.s3
    for bucket in (STAGING, ARCHIVE):
        s3.create_bucket(Bucket=bucket)
        if versioned:
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    monkeypatch.setenv("ARCHIVE_BUCKET", ARCHIVE)
    monkeypatch.setenv("TWOBUCKETS_PROCESS", "builtins:id")
    in_parts = mutant_of_processor(
        tmp_path, ("copying", "LARGEST_COPY_BYTES = 5 * 1024**3", "LARGEST_COPY_BYTES = 0")
    )
    monkeypatch.syspath_prepend(tmp_path)
    for key, runtime in (("small", twobuckets.processor.runtime), ("large", in_parts.runtime)):
        monkeypatch.setitem(runtime._clients, "s3", s3)
        put = s3.put_object(Bucket=STAGING, Key=key, Body=b"content")
        where = {"bucket": STAGING, "key": key, "version_id": put.get("VersionId")}
        wake = {"twobuckets": 1, "wake": [{**where, "etag": put["ETag"].strip('"'), "size": 7}]}
        s3.put_object_annotation(
            Bucket=STAGING, Key=key, AnnotationName="note", AnnotationPayload=b"of value"
        )
        if key == "small":
            runtime.handler(wake, None)
        else:
            with pytest.raises(runtime.RecordsFailedError, match="AnnotatedError"):
                runtime.handler(wake, None)
    staged, archived = (s3.list_objects_v2(Bucket=bucket) for bucket in (STAGING, ARCHIVE))
    assert [item["Key"] for item in staged["Contents"]] == ["large"]
    assert [item["Key"] for item in archived["Contents"]] == ["small"]
    [kept] = s3.list_object_annotations(Bucket=ARCHIVE, Key="small")["Annotations"]
    assert kept["AnnotationName"] == "note"


def make_processor_pair(aws: Aws, *, versioned: bool = True, user: str = USER) -> Pair:
    """Make a pair whose function is our processor with this user code."""
    pair = make_pair(aws, timeout_seconds=60)
    aws.s3.create_bucket(Bucket=NOTES)
    if versioned:
        for bucket in (STAGING, ARCHIVE):
            aws.s3.put_bucket_versioning(
                Bucket=bucket, VersioningConfiguration={"Status": "Enabled"}
            )
    aws.functions.update_function_code(FunctionName=FUNCTION, ZipFile=artifact_of(user))
    aws.functions.update_function_configuration(
        FunctionName=FUNCTION,
        Handler="twobuckets.processor.handler",
        Environment={"Variables": {"ARCHIVE_BUCKET": ARCHIVE}},
    )
    return pair


def artifact_of(user: str) -> bytes:
    """Return the zip of our runtime and this user code."""
    runtime = Path(twobuckets.processor.__file__).parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("processor.py", user)
        archive.writestr("twobuckets/__init__.py", "")
        for path in runtime.glob("*.py"):
            archive.write(path, f"twobuckets/processor/{path.name}")
    return buffer.getvalue()


def outcomes_of(pair: Pair) -> list[dict[str, Any]]:
    lines = []
    for line in pair.lines():
        if line.startswith('{"twobuckets"'):
            lines.append(json.loads(line))
    return lines


def wait_until(done: Any, *, seconds: float, what: Any) -> None:
    waited_until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < waited_until, what()
        time.sleep(0.25)


def contents(aws: Aws, bucket: str, key: str) -> bytes:
    return aws.s3.get_object(Bucket=bucket, Key=key)["Body"].read()


def test_every_kind_of_key_goes_round(embedded: Aws) -> None:
    pair = make_processor_pair(embedded, user="def process(file): assert file.read()")
    # The emulator cannot list the versions of a key that XML cannot carry; S3 encodes it.
    keys = {key for key in AWKWARD_KEYS if "\x07" not in key}
    for key in keys:
        embedded.s3.put_object(Bucket=STAGING, Key=key, Body=key.encode())
    wait_until(
        lambda: pair.archived() == keys and not pair.staged(),
        seconds=60,
        what=lambda: (keys - pair.archived(), outcomes_of(pair)),
    )
    for key in keys:
        archived = embedded.s3.get_object(Bucket=ARCHIVE, Key=key)
        assert archived["Body"].read() == key.encode()
        # By name, because the emulator's listing spoils a carriage return.
        embedded.s3.delete_object(Bucket=ARCHIVE, Key=key, VersionId=archived["VersionId"])


@pytest.mark.slow
@pytest.mark.parametrize(("count", "versioned"), [(500, True), (100, False)])
def test_files_with_every_trouble_are_all_accounted_for(
    embedded: Aws, count: int, versioned: bool
) -> None:
    pair = make_processor_pair(embedded, versioned=versioned)
    chance = random.Random(20261123)
    kinds = ["plain"] * 80 + ["fail"] * 10 + ["reject"] * 5 + ["replace"] * 5
    sizes = [0, 1, 1_000, 70_000, 1_000_000]
    files = {
        f"{number:03d} {kinds[number % 100]}+ü": chance.randbytes(chance.choice(sizes))
        for number in range(count)
    }

    def upload(item: tuple[str, bytes]) -> None:
        key, body = item
        put = embedded.s3.put_object(Bucket=STAGING, Key=key, Body=body)
        if hash_of(key) % 5 == 0:  # S3 delivers at least once
            wake = {
                "bucket": STAGING,
                "key": key,
                "version_id": put.get("VersionId"),
                "etag": put["ETag"].strip('"'),
                "size": len(body),
            }
            embedded.functions.invoke(
                FunctionName=FUNCTION,
                InvocationType="Event",
                Payload=json.dumps({"twobuckets": 1, "wake": [wake]}),
            )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(upload, files.items()))

    rejected = {key for key in files if "reject" in key}
    wait_until(
        lambda: pair.staged() == rejected and pair.archived() == files.keys() - rejected,
        seconds=400,
        what=lambda: (
            pair.staged() - rejected,
            files.keys() - rejected - pair.archived(),
            outcomes_of(pair)[-5:],
        ),
    )

    processed = {
        item["Key"]
        for page in embedded.s3.get_paginator("list_objects_v2").paginate(
            Bucket=NOTES, Prefix="processed/"
        )
        for item in page.get("Contents", [])
    }
    for key, body in files.items():
        where = STAGING if key in rejected else ARCHIVE
        expected = b"the second version" if "replace" in key else body
        assert contents(embedded, where, key) == expected
        digest = hashlib.md5(expected).hexdigest()
        if key not in rejected:
            assert f"processed/{digest}/{key}" in processed

    said: dict[str, set[str]] = {}
    for line in outcomes_of(pair):
        said.setdefault(line["key"], set()).add(line["outcome"])
    for key in files:
        if key in rejected:
            assert said[key] == {"rejected"}
        else:
            assert "archived" in said[key]
        assert ("failed" in said[key]) == ("fail" in key)
        assert ("superseded" in said[key]) >= ("replace" in key)


def hash_of(key: str) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big")


BIG = """
import resource

from twobuckets.processor import File


def process(file: File) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    lines = 0
    with file.open() as stream:
        for _ in stream:
            lines += 1
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"lines={lines} grown_kib={after - before}")
"""


@pytest.mark.slow
def test_a_gigabyte_is_read_line_by_line_in_less_than_64_megabytes(embedded: Aws) -> None:
    pair = make_processor_pair(embedded, user=BIG)
    block = (b"x" * 99 + b"\n") * 83_887  # 8 MB of lines
    upload = embedded.s3.create_multipart_upload(Bucket=STAGING, Key="big")
    parts: list[Any] = []
    for number in range(1, 129):
        part = embedded.s3.upload_part(
            Bucket=STAGING,
            Key="big",
            UploadId=upload["UploadId"],
            PartNumber=number,
            Body=block,
        )
        parts.append({"PartNumber": number, "ETag": part["ETag"]})
    embedded.s3.complete_multipart_upload(
        Bucket=STAGING, Key="big", UploadId=upload["UploadId"], MultipartUpload={"Parts": parts}
    )
    [line] = pair.wait_for_lines("grown_kib=", 1, seconds=120)
    lines, grown = (int(field.partition("=")[2]) for field in line.split())
    assert lines == 128 * 83_887
    assert grown < 64 * 1024
    wait_until(lambda: pair.archived() == {"big"}, seconds=60, what=lambda: outcomes_of(pair))
