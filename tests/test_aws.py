"""boto3's clients as the commands have them."""

from __future__ import annotations

import socket

import pytest
from botocore.exceptions import ClientError

from tests.s3.scripted import Received, refuse, serving
from twobuckets.aws import Meaning, action_of, attempt, codes, explain, is_hopeless, meaning_of
from twobuckets.aws.clients import Aws
from twobuckets.errors import TwoBucketsError


@pytest.mark.usefixtures("fake_credentials")
def test_a_refused_connection_is_tried_three_times_and_no_more():
    with socket.socket() as taken:  # bound and not listening: connections are refused
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        aws, sent = Aws(region="eu-central-1", endpoint_url=url), []
        aws.sts.meta.events.register("before-send", lambda **_: sent.append(1))
        with pytest.raises(TwoBucketsError, match=url), attempt("ask who you are"):
            aws.sts.get_caller_identity()
    assert len(sent) == 3


@pytest.mark.usefixtures("fake_credentials")
def test_a_name_that_leads_nowhere_is_asked_three_times_and_no_more():
    aws, sent = Aws(region="eu-central-1", endpoint_url="http://nowhere.invalid"), []
    aws.sts.meta.events.register("before-send", lambda **_: sent.append(1))
    with pytest.raises(TwoBucketsError, match=r"nowhere\.invalid"), attempt("ask who you are"):
        aws.sts.get_caller_identity()
    assert len(sent) == 3


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("RequestTimeTooSkewed", "The difference between the request time and ours is too large."),
        ("SignatureDoesNotMatch", "Signature expired: 20261123T1 is now earlier than 20261123T2"),
        ("InvalidSignatureException", "Signature not yet current: 20261123T2 is still later"),
    ],
)
def test_a_wrong_clock_is_not_called_wrong_credentials(code: str, message: str):
    error = ClientError({"Error": {"Code": code, "Message": message}}, "GetCallerIdentity")
    explained = explain(error, "ask who you are")
    assert "clock" in explained.message
    assert explained.exit_code == 1
    assert is_hopeless(error)


def test_an_operation_of_another_service_is_not_called_an_action_of_s3():
    logs = ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "FilterLogEvents")
    s3 = ClientError({"Error": {"Code": "AccessDenied", "Message": ""}}, "GetObjectTagging")
    assert action_of(logs) == "FilterLogEvents"
    assert action_of(s3) == "s3:GetObjectTagging"


def test_no_code_has_two_meanings():
    named = [code for codes_ in codes._CODES.values() for code in codes_]
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    ("code", "meant"),
    [
        ("InvalidAccessKeyId", Meaning.NOT_ACCEPTED),
        ("ExpiredTokenException", Meaning.EXPIRED),
        ("AccessDeniedException", Meaning.DENIED),
        ("PreconditionFailed", Meaning.LOST_RACE),
        ("404", Meaning.MISSING),
        ("503", Meaning.BUSY),
        ("501", Meaning.UNKNOWN_HERE),
        ("", Meaning.OTHER),
        ("InvalidPart", Meaning.OTHER),
    ],
)
def test_a_code_says_what_it_means_for_all_services(code: str, meant: Meaning):
    assert meaning_of(code) is meant


@pytest.mark.parametrize("code", ["InvalidAccessKeyId", "AccessDenied"])
def test_a_refused_head_says_whether_the_credentials_or_a_permission_is_refused(
    code: str, fake_credentials: None
):
    def script(received: Received) -> bytes:
        if received.head.startswith("HEAD"):
            return b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
        return refuse(403, code)

    with serving(script) as server:
        s3 = Aws(region="eu-central-1", endpoint_url=server.url).s3
        with pytest.raises(ClientError) as refused:
            s3.head_object(Bucket="b", Key="k")
    assert is_hopeless(refused.value) == (code == "InvalidAccessKeyId")
