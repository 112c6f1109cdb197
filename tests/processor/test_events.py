"""Every shape of event that can wake the function, as AWS documents it, one file each."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twobuckets.processor.events import (
    Arrival,
    Ignored,
    UnknownEventError,
    Unreadable,
    parse_event,
)

SAMPLES = Path(__file__).parent.parent / "events"
FORMS = sorted(path.stem for path in (SAMPLES / "forms").glob("*.json"))


def sample(name: str) -> Any:
    return json.loads((SAMPLES / f"{name}.json").read_text("utf-8"))


@pytest.mark.parametrize("name", FORMS)
def test_every_form_reads_as_it_should(name: str) -> None:
    form = sample(f"forms/{name}")
    batch = parse_event(form["event"])
    answer = "tasks" if batch.job else "items" if batch.from_sqs else "raise"
    assert answer == form["answer"], form["why"]
    assert len(batch.records) == len(form["reads"]), (form["why"], batch.records)
    for record, expected in zip(batch.records, form["reads"], strict=True):
        kind = expected.pop("is")
        if isinstance(record, Unreadable):
            assert kind == "unreadable", record
            assert expected["says"] in record.reason
            assert "hunter2" not in record.reason
            assert record.item_id == expected["item_id"]
        else:
            assert kind == ("arrival" if isinstance(record, Arrival) else "ignored")
            if isinstance(record, Arrival):
                is_asked_for = name.startswith(("wake", "batch")) or name.endswith("wake")
                expected["is_asked_for"] = is_asked_for
            assert asdict(record) == expected


def test_there_are_forms_of_every_way_that_leads_here() -> None:
    assert len(FORMS) >= 60
    ways = {name.split("-")[0] for name in FORMS}
    assert ways == {"s3", "ignored", "eventbridge", "sns", "sqs", "pipes", "batch", "wake"}


def test_a_notification_of_s3_names_a_version() -> None:
    batch = parse_event(sample("s3-put"))
    assert not batch.from_sqs
    assert batch.records == (
        Arrival(
            bucket="amzn-s3-demo-bucket",
            key="happy face & friends.jpg",
            version_id="096fKKXTRTtl3on89fVO.nfljtsv6qko",
            etag="d41d8cd98f00b204e9800998ecf8427e",
            size_bytes=1024,
            sequencer="0055AED6DCD90281E5",
        ),
    )


def test_a_notification_without_versions_has_no_version_id() -> None:
    [record] = parse_event(sample("s3-complete-multipart-upload-unversioned")).records
    assert isinstance(record, Arrival)
    assert (record.version_id, record.etag) == (None, "1b2cf535f27731c974343645a3985328-3")


def test_a_batch_of_sqs_keeps_each_messages_id_and_count() -> None:
    batch = parse_event(sample("sqs-with-s3"))
    assert batch.from_sqs
    assert [(r.key, r.item_id, r.attempt) for r in batch.records if isinstance(r, Arrival)] == [
        ("a b.csv", "059f36b4-87a3-44ab-83d2-661975830a7d", 1),
        ("c.csv", "2e1424d4-f796-459a-8184-9c92662be6da", 3),
    ]


def test_eventbridge_sends_keys_as_they_are() -> None:
    [record] = parse_event(sample("eventbridge-object-created")).records
    assert isinstance(record, Arrival)
    assert (record.key, record.version_id) == ("a+b%20c.csv", "IYV3p45BT0ac8hjHg1houSdS1a.Mro8e")
    assert record.sequencer == "617f08299329d189"


def test_eventbridge_inside_sqs_is_understood() -> None:
    batch = parse_event(sample("sqs-with-eventbridge"))
    [record] = batch.records
    assert batch.from_sqs
    assert isinstance(record, Arrival)
    assert record.key == "a+b%20c.csv"


@pytest.mark.parametrize("name", ["s3-test", "sqs-with-s3-test"])
def test_the_test_event_of_s3_asks_for_nothing(name: str) -> None:
    assert parse_event(sample(name)).records == ()


def test_a_wake_up_event_names_versions_with_keys_as_they_are() -> None:
    first, second = parse_event(sample("wake")).records
    assert first == Arrival("staging", "a+b c.csv", "v1", "e1", 5, is_asked_for=True)
    assert second == Arrival("staging", "plain", None, "e2", 6, sequencer="0A", is_asked_for=True)


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ([], "a list"),
        (None, "a NoneType"),
        ({}, "nothing"),
        ({"hello": "secret-value"}, "hello"),
        ({"Records": "none"}, "Records"),
    ],
)
def test_anything_else_is_an_error_that_names_what_arrived(event: object, says: str) -> None:
    with pytest.raises(UnknownEventError, match=says) as raised:
        parse_event(event)
    assert "secret-value" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"eventVersion": "3.0"}, "3.0"),
        ({"eventSource": "aws:sns"}, "aws:sns"),
        ({"s3": {}}, "KeyError"),
    ],
)
def test_a_record_that_cannot_be_read_leaves_the_others(change: dict[str, Any], says: str) -> None:
    event = sample("s3-put")
    event["Records"].append({**event["Records"][0], **change})
    good, bad = parse_event(event).records
    assert isinstance(good, Arrival)
    assert isinstance(bad, Unreadable)
    assert says in bad.reason


def test_a_later_minor_version_of_the_event_is_read() -> None:
    event = sample("s3-put")
    event["Records"][0]["eventVersion"] = "2.99"
    event["Records"][0]["newThing"] = {"x": 1}
    assert isinstance(parse_event(event).records[0], Arrival)


def test_a_message_that_is_not_json_fails_alone() -> None:
    event = sample("sqs-with-s3")
    event["Records"][0]["body"] = "not JSON"
    bad, good = parse_event(event).records
    assert isinstance(bad, Unreadable)
    assert bad.item_id == "059f36b4-87a3-44ab-83d2-661975830a7d"
    assert isinstance(good, Arrival)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("Records", "s3", "object", "key", "body", "eventSource", "wake", "Sns"),
                    *("EventSource", "Message", "Type", "tasks", "invocationSchemaVersion"),
                    *("source", "detail-type", "detail", "bucket", "attributes", "twobuckets"),
                ]
            ),
            inner | st.sampled_from(["aws:sqs", "aws:sns", "aws:s3", "aws.s3", "Notification", 1]),
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(json_values)
def test_no_json_at_all_makes_the_parser_stumble(event: object) -> None:
    try:
        batch = parse_event(event)
    except UnknownEventError:
        return
    assert all(isinstance(record, Arrival | Ignored | Unreadable) for record in batch.records)
