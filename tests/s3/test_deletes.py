"""Copies and deletes of exact versions, and what is said of each key."""

import re
from xml.etree import ElementTree as ET

from hypothesis import given
from hypothesis import strategies as st

from tests.s3.engine.test_sender import sender_to
from tests.s3.scripted import answer, refuse, serving
from twobuckets.s3.deletes import iter_delete_batches, iter_deletes, read_deletes
from twobuckets.s3.engine import Response
from twobuckets.s3.operations import ObjectVersion, copy_object, delete_object

xml_texts = st.text(
    st.characters(
        exclude_categories=["Cs", "Cc"],
        exclude_characters="\ufffe\uffff",
        include_characters="\r\n\t",
    ),
    min_size=1,
    max_size=20,
)


def test_a_copy_names_one_exact_version_and_its_conditions():
    request = copy_object(
        "archive", ObjectVersion("a b/ü?&.txt", "v+1", "abc"), "staging", "k", if_absent=True
    )
    assert (request.method, request.bucket, request.key) == ("PUT", "staging", "k")
    assert dict(request.headers) == {
        "x-amz-copy-source": "archive/a%20b/%C3%BC%3F%26.txt?versionId=v%2B1",
        "x-amz-copy-source-if-match": '"abc"',
        "if-none-match": "*",
    }


def read_batch(body):
    return [{child.tag: child.text or "" for child in item} for item in ET.fromstring(body)]


@given(st.lists(st.builds(ObjectVersion, xml_texts, st.sampled_from(["", "v1"]), st.just(""))))
def test_every_key_survives_the_xml_of_a_batch(versions):
    named = []
    for request, _ in iter_delete_batches("b", versions):
        named += [
            ObjectVersion(item["Key"], item.get("VersionId", ""))
            for item in read_batch(request.body)
        ]
    assert named == versions


def test_a_key_that_xml_cannot_carry_is_deleted_alone():
    versions = [ObjectVersion("a", "1"), ObjectVersion("b\x01", "2", "e"), ObjectVersion("c")]
    batch, (single, alone) = iter_delete_batches("b", versions)
    assert batch.versions == (versions[0], versions[2])
    assert alone == (versions[1],)
    assert (single.method, single.key, single.query) == ("DELETE", "b\x01", (("versionId", "2"),))
    assert dict(single.headers) == {"if-match": '"e"'}


def test_batches_have_a_thousand_keys_at_most():
    batches = iter_delete_batches("b", (ObjectVersion(f"{n}") for n in range(2500)))
    assert [len(read_batch(batch.request.body)) for batch in batches] == [1000, 1000, 500]


def deleting(script):
    """Answer DeleteObjects key by key as a function says: a code, or "" for deleted."""

    def respond(received):
        rows = []
        for item in read_batch(received.body):
            code = script(item["Key"], received.number)
            key = item["Key"].replace("&", "&amp;").replace("<", "&lt;")
            id_ = f"<VersionId>{item['VersionId']}</VersionId>" if "VersionId" in item else ""
            if code is None:
                continue
            rows.append(
                f"<Error><Key>{key}</Key>{id_}<Code>{code}</Code><Message>m</Message></Error>"
                if code
                else f"<Deleted><Key>{key}</Key>{id_}</Deleted>"
            )
        return answer(200, f'<DeleteResult xmlns="x">{"".join(rows)}</DeleteResult>'.encode())

    return respond


def test_each_key_has_its_own_result():
    codes = {"a": "", "<b>": "AccessDenied", "c": None}
    with serving(deleting(lambda key, _: codes[key])) as server, sender_to(server) as sender:
        versions = [ObjectVersion(key, "1") for key in codes]
        results = list(iter_deletes(sender, "b", versions))
    assert [(r.key, r.version_id, r.code) for r in results] == [
        ("a", "1", ""),
        ("<b>", "1", "AccessDenied"),
        ("c", "1", "NoAnswer"),
    ]


def test_a_key_that_is_refused_for_now_is_tried_again_and_no_other():
    seen = []

    def script(key, number):
        seen.append(key)
        return "InternalError" if key.endswith("7") and number == 0 else ""

    with serving(deleting(script)) as server, sender_to(server) as sender:
        results = list(iter_deletes(sender, "b", [ObjectVersion(f"{n}") for n in range(100)]))
    assert sorted(int(r.key) for r in results) == list(range(100))
    assert not any(r.code for r in results)
    assert len(seen) == 110
    assert len(server.received) == 2


def test_a_refused_batch_is_the_result_of_each_of_its_keys():
    with serving(lambda r: refuse(403, "AccessDenied")) as server, sender_to(server) as sender:
        results = list(iter_deletes(sender, "b", [ObjectVersion("a"), ObjectVersion("b\x02")]))
    assert {(r.key, r.code, r.message) for r in results} == {
        ("a", "AccessDenied", "No & no"),
        ("b\x02", "AccessDenied", "No & no"),
    }


def test_an_answer_that_expands_entities_is_not_read():
    rows = b"<DeleteResult><Deleted><Key>&a;</Key></Deleted></DeleteResult>"
    body = b'<!DOCTYPE x [<!ENTITY a "b">]>' + rows
    batch = next(iter_delete_batches("b", [ObjectVersion("b")]))
    [found] = read_deletes(batch, Response(200, b"HTTP/1.1 200 OK", body))
    assert found.code == "NoAnswer"


def test_the_checksum_of_a_batch_is_sent():
    batch = next(iter_delete_batches("b", [ObjectVersion("k")]))
    assert re.fullmatch(r"[A-Za-z0-9+/]{22}==", dict(batch.request.headers)["content-md5"])


def test_deleting_without_a_version_names_none():
    assert delete_object("b", ObjectVersion("k")).query == ()
