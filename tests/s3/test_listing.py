"""Listings over the wire: against moto's S3, and against a server that lists what it is told."""

import re
import time
from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote_plus, urlsplit
from xml.sax.saxutils import escape

import boto3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.s3.credentials import FixedCredentials
from tests.s3.engine.test_sender import sender_to
from tests.s3.scripted import answer, refuse, serving
from twobuckets.s3.answers import ListedObject, ListedVersion, parse_objects, parse_versions
from twobuckets.s3.engine import Keys, Request, Sender, connect, parse_endpoint
from twobuckets.s3.listing import ListingError, iter_objects, iter_uploads, iter_versions

ODD_KEYS = [
    "a", "a b", "a+b", "a%2Fb", "a/b/", "a//b", "/lead", "ü/é", "日本", "🎈", "x\x01y",
    "<&>'\"", "..", "a?b=c&d", "&amp;", "\uffff", "z" * 300,
]  # fmt: skip


@pytest.fixture
def sender(empty_moto_url) -> Iterator[Sender]:
    endpoint = parse_endpoint(empty_moto_url, region="us-east-1")
    with connect(endpoint, FixedCredentials(Keys("AKIA", "secret"))) as sender:
        yield sender


@pytest.fixture
def s3(empty_moto_url):
    return boto3.client(
        "s3",
        endpoint_url=empty_moto_url,
        region_name="us-east-1",
        aws_access_key_id="AKIA",
        aws_secret_access_key="secret",
    )


def test_odd_keys_are_listed_as_they_were_written(s3, sender):
    s3.create_bucket(Bucket="odd")
    for key in ODD_KEYS:
        assert sender.send(Request("PUT", "odd", key, body=key.encode())).ok
    rows = list(iter_objects(sender, "odd"))
    assert [row.key for row in rows] == sorted(ODD_KEYS)
    theirs = {o["Key"]: o for o in s3.list_objects_v2(Bucket="odd")["Contents"]}
    for row in rows:
        assert row.size_bytes == len(row.key.encode())
        assert f'"{row.etag}"' == theirs[row.key]["ETag"]
        assert row.modified_at == theirs[row.key]["LastModified"]
        assert row.storage_class == "STANDARD"


def test_versions_and_delete_markers_are_listed_newest_first(s3, sender):
    s3.create_bucket(Bucket="versioned")
    s3.put_bucket_versioning(Bucket="versioned", VersioningConfiguration={"Status": "Enabled"})
    written = [s3.put_object(Bucket="versioned", Key="k", Body=b"x" * n) for n in range(3)]
    s3.delete_object(Bucket="versioned", Key="k")
    s3.put_object(Bucket="versioned", Key="l", Body=b"")
    rows = list(iter_versions(sender, "versioned"))
    assert [row.key for row in rows] == ["k"] * 4 + ["l"]
    assert {row.version_id for row in rows if row.size_bytes is not None and row.key == "k"} == {
        w["VersionId"] for w in written
    }
    [marker] = [row for row in rows if row.is_delete_marker]
    assert (marker.key, marker.size_bytes, marker.is_latest) == ("k", None, True)


def test_incomplete_uploads_are_listed(s3, sender):
    s3.create_bucket(Bucket="uploads")
    ids = {
        key: s3.create_multipart_upload(Bucket="uploads", Key=key)["UploadId"]
        for key in ("b", "a/ü")
    }
    rows = list(iter_uploads(sender, "uploads"))
    assert {row.key: row.upload_id for row in rows} == ids
    assert all(row.initiated_at.tzinfo is not None for row in rows)


def test_an_empty_bucket_and_a_missing_one_differ(s3, sender):
    s3.create_bucket(Bucket="empty")
    assert list(iter_objects(sender, "empty")) == []
    with pytest.raises(ListingError, match="NoSuchBucket") as raised:
        list(iter_objects(sender, "missing"))
    assert raised.value.bucket == "missing"


def object_pages(keys, most=1000):
    """List keys as S3 does: in byte order, encoded for a URL."""
    names = sorted(keys)

    def respond(received):
        query = {
            name: values[0]
            for name, values in parse_qs(urlsplit(received.head.split()[1]).query).items()
        }
        start = bisect_right(names, query.get("start-after", ""))
        count = min(most, int(query["max-keys"]))
        rows = "".join(
            f"<Contents><Key>{quote_plus(key, safe='/')}</Key>"
            "<LastModified>2026-01-02T03:04:05.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
            "<Size>1</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for key in names[start : start + count]
        )
        more = "true" if start + count < len(names) else "false"
        return answer(
            200,
            f"<ListBucketResult><IsTruncated>{more}</IsTruncated>"
            f"<EncodingType>url</EncodingType>{rows}</ListBucketResult>".encode(),
        )

    return respond


def version_pages(versions, most):
    """List (key, version id) pairs as ListObjectVersions does, cutting keys across pages."""
    names = sorted(versions)

    def respond(received):
        query = {
            name: values[0]
            for name, values in parse_qs(
                urlsplit(received.head.split()[1]).query, keep_blank_values=True
            ).items()
        }
        marker = query.get("key-marker", ""), query.get("version-id-marker", "\uffff")
        start = bisect_right(names, marker)
        count = min(most, int(query["max-keys"]))
        page = names[start : start + count]
        rows = "".join(
            f"<Version><Key>{quote_plus(key)}</Key><VersionId>{id_}</VersionId><Size>1</Size>"
            "<IsLatest>true</IsLatest><LastModified>2026-01-02T03:04:05.000Z</LastModified>"
            "<ETag>e</ETag></Version>"
            for key, id_ in page
        )
        following = ""
        if start + count < len(names):
            following = (
                f"<NextKeyMarker>{quote_plus(page[-1][0])}</NextKeyMarker>"
                f"<NextVersionIdMarker>{page[-1][1]}</NextVersionIdMarker>"
                "<IsTruncated>true</IsTruncated>"
            )
        body = f"<V><EncodingType>url</EncodingType>{following}{rows}</V>"
        return answer(200, body.encode())

    return respond


def test_pages_that_wait_long_are_listed_as_they_came(monkeypatch):
    monkeypatch.setattr("twobuckets.s3.listing._UNPACKED_PAGES", 1)
    keys = [f"{n % 37:02d}/{n:06d}" for n in range(20_000)]
    with serving(object_pages(keys)) as server, sender_to(server) as sender:
        assert [row.key for row in iter_objects(sender, "b")] == sorted(keys)


def test_twenty_thousand_keys_are_listed_in_order_over_many_connections():
    keys = [f"{n % 37:02d}/{n:06d}\n ü.gz" for n in range(20_000)]
    with serving(object_pages(keys)) as server, sender_to(server) as sender:
        assert [row.key for row in iter_objects(sender, "b")] == sorted(keys)
    assert server.connections > 1


@pytest.mark.parametrize(
    ("latency", "seconds_a_page", "is_spread"), [(0.05, 0.0, True), (0.0, 0.15, False)]
)
def test_no_more_is_asked_at_a_time_than_is_used_meanwhile(latency, seconds_a_page, is_spread):
    keys = [f"{n % 37:02d}/{n:06d}" for n in range(20_000)]
    pages = object_pages(keys)

    def slowly(received):
        time.sleep(latency)
        return pages(received)

    with serving(slowly) as server, sender_to(server) as sender:
        for number, _ in enumerate(iter_objects(sender, "b")):
            if number % 1000 == 0:
                time.sleep(seconds_a_page)
    assert (server.connections > 4) == is_spread


@given(
    st.lists(
        st.tuples(st.text("abc", min_size=1, max_size=3), st.from_regex(r"v\d", fullmatch=True)),
        unique=True,
        max_size=40,
    ),
    st.integers(2, 7),
)
@settings(max_examples=15, deadline=None)
def test_a_key_with_more_versions_than_a_page_is_listed_whole(versions, most):
    with serving(version_pages(versions, most)) as server, sender_to(server) as sender:
        rows = list(iter_versions(sender, "b"))
    assert [(row.key, row.version_id) for row in rows] == sorted(versions)


def test_a_listing_that_does_not_go_on_ends_with_an_error():
    page = object_pages(["a", "b"], most=1)

    def stuck(received):
        received.head = re.sub("start-after=[^& ]*", "", received.head)
        return page(received)

    with (
        serving(stuck) as server,
        sender_to(server) as sender,
        pytest.raises(ListingError, match="does not go on"),
    ):
        list(iter_objects(sender, "b"))


def test_a_listing_survives_passing_errors():
    page = object_pages([f"{n:05d}" for n in range(5000)])
    asked = set()

    def refuse_once(received):
        target = received.head.split()[1]
        if target in asked:
            return page(received)
        asked.add(target)
        return refuse(503, "SlowDown")

    with serving(refuse_once) as server, sender_to(server) as sender:
        assert sum(1 for _ in iter_objects(sender, "b")) == 5000


def test_what_is_not_a_listing_is_an_error_with_words():
    with (
        serving(lambda r: answer(200, b"<html><Key>a</Key>")) as server,
        sender_to(server) as sender,
        pytest.raises(ListingError, match="not XML"),
    ):
        list(iter_objects(sender, "b"))


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    st.booleans(),
    st.booleans(),
)
def test_rows_are_read_alike_whatever_the_order_of_their_fields(key, encoded, swapped):
    fields = [
        f"<Key>{escape(quote_plus(key)) if encoded else escape(key)}</Key>",
        "<LastModified>2026-01-02T03:04:05.000Z</LastModified>",
        "<ETag>&#34;abc&#34;</ETag>",
        "<Size>12</Size>",
    ]
    if swapped:
        fields.reverse()
    kind = "<EncodingType>url</EncodingType>" if encoded else ""
    body = f"<R>{kind}<Contents>{''.join(fields)}</Contents></R>".encode()
    expected = ListedObject(key, 12, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "abc", "STANDARD")
    assert parse_objects(body) == [expected]


@given(
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1),
    st.booleans(),
    st.booleans(),
)
def test_versions_are_read_alike_whatever_the_order_of_their_fields(key, swapped, owned):
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    owner = ["<Owner><ID>o</ID></Owner>"] * owned
    common = [f"<Key>{quote_plus(key)}</Key>", "<VersionId>v</VersionId>"]
    common += ["<IsLatest>true</IsLatest>", "<LastModified>2026-01-02T03:04:05Z</LastModified>"]
    version = [
        *common,
        "<ETag>&quot;e&quot;</ETag>",
        "<Size>7</Size>",
        "<StorageClass>GLACIER</StorageClass>",
        *owner,
    ]
    marker = [*common, *owner]
    if swapped:
        version.reverse()
        marker.reverse()
    body = (
        f"<V><EncodingType>url</EncodingType><Version>{''.join(version)}</Version>"
        f"<DeleteMarker>{''.join(marker)}</DeleteMarker></V>"
    )
    assert parse_versions(body.encode()) == [
        ListedVersion(key, "v", True, False, 7, at, "e", "GLACIER"),
        ListedVersion(key, "v", True, True, None, at, "", "STANDARD"),
    ]


@pytest.mark.parametrize(("in_progress", "is_restored"), [("false", True), ("true", False)])
def test_a_row_that_tells_of_a_restore_is_read(in_progress, is_restored):
    body = (
        "<V><EncodingType>url</EncodingType><Version><Key>k</Key><VersionId>v</VersionId>"
        "<IsLatest>true</IsLatest><LastModified>2026-01-02T03:04:05Z</LastModified><ETag>e</ETag>"
        "<Size>7</Size><StorageClass>GLACIER</StorageClass><RestoreStatus>"
        f"<IsRestoreInProgress>{in_progress}</IsRestoreInProgress></RestoreStatus></Version></V>"
    )
    (row,) = parse_versions(body.encode())
    assert (row.storage_class, row.is_restored) == ("GLACIER", is_restored)


def test_an_unversioned_object_has_the_version_null():
    body = (
        b"<R><Version><Key>k</Key><VersionId>null</VersionId><IsLatest>true</IsLatest>"
        b"<LastModified>2026-01-02T03:04:05Z</LastModified><ETag>e</ETag><Size>0</Size></Version></R>"
    )
    assert parse_versions(body)[0].version_id == "null"
