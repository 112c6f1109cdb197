"""Links into AWS's console."""

from __future__ import annotations

import pytest

from twobuckets.pipeline.console import ConsoleLinks, link_of_subject, links_of, object_link
from twobuckets.settings import Pipeline

BASE = "https://eu-central-1.console.aws.amazon.com"
WHERE = "region=eu-central-1"


def test_each_part_of_a_pipeline_has_its_page():
    pipeline = Pipeline(
        stack="intake",
        staging="in-bucket",
        archive="done-bucket",
        function="arn:aws:lambda:eu-central-1:123456789012:function:intake",
        log_group="/aws/lambda/intake",
    )
    assert links_of(pipeline, "eu-central-1") == ConsoleLinks(
        staging=f"{BASE}/s3/buckets/in-bucket?{WHERE}",
        archive=f"{BASE}/s3/buckets/done-bucket?{WHERE}",
        stack=f"{BASE}/cloudformation/home?{WHERE}#/stacks?filteringText=intake",
        function=f"{BASE}/lambda/home?{WHERE}#/functions/intake",
        log=f"{BASE}/cloudwatch/home?{WHERE}"
        "#logsV2:log-groups/log-group/$252Faws$252Flambda$252Fintake",
    )


def test_what_a_finding_is_about_has_its_page_where_there_is_one():
    function = "arn:aws:lambda:eu-central-1:123456789012:function:intake"
    pipeline = Pipeline(
        stack="intake",
        staging="in-bucket",
        archive="done-bucket",
        function=function,
        log_group="/aws/lambda/intake",
    )
    links = links_of(pipeline, "eu-central-1")
    subjects = {
        "s3://in-bucket": links.staging,
        "s3://in-bucket/a b/c://d": object_link("in-bucket", "a b/c://d", "eu-central-1"),
        "intake": links.function,
        function: links.function,
        "/aws/lambda/intake": links.log,
        "https://sqs.eu-central-1.amazonaws.com/123456789012/failures": None,
    }
    for subject, link in subjects.items():
        assert link_of_subject(subject, pipeline, "eu-central-1") == link, subject


def test_what_is_not_known_has_none():
    links = links_of(Pipeline(stack=None, staging="a", archive="b"), "eu-central-1")
    assert (links.stack, links.function, links.log) == (None, None, None)


@pytest.mark.parametrize(
    ("region", "domain"),
    [
        ("cn-north-1", "console.amazonaws.cn"),
        ("us-gov-west-1", "console.amazonaws-us-gov.com"),
        ("us-east-1", "console.aws.amazon.com"),
    ],
)
def test_each_partition_has_its_console(region: str, domain: str):
    assert object_link("in-bucket", "a&b #ü", region) == (
        f"https://{region}.{domain}/s3/object/in-bucket?region={region}&prefix=a%26b%20%23%C3%BC"
    )
