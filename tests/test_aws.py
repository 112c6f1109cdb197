"""boto3's clients as the commands have them."""

from __future__ import annotations

import socket

import pytest

from twobuckets.aws import attempt
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
