"""The watcher in the account: what it measures, and the alarms on that, and on its silence."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from twobuckets.cli.app import App

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import pytest

    from twobuckets.aws.clients import Aws

SETTINGS = """
stack = "local"

[watch]
every = "1m"

[deploy]
alarm_topic_arn = "arn:aws:sns:eu-central-1:000000000000:ops"
"""


def wait_for(done: Callable[[], bool], what: Callable[[], Any], seconds: float = 20) -> None:
    waited_until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < waited_until, what()
        time.sleep(0.1)


def test_a_stuck_file_raises_the_alarm_until_it_is_mended_and_so_does_silence(
    embedded: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "twobuckets.toml").write_text(SETTINGS)
    (tmp_path / "processor.py").write_text("def process(file):\n    pass\n")
    pipeline = App().pipeline
    s3, functions = embedded.s3, embedded.functions

    def states() -> dict[str, str]:
        alarms = embedded.cloudwatch.describe_alarms()["MetricAlarms"]
        named = {a["MetricName"]: a["StateValue"] for a in alarms if a["Namespace"] == "twobuckets"}
        return {"stuck": named["StuckFiles"], "silent": named["StagedFiles"]}

    def look() -> dict[str, int]:
        answer = functions.invoke(FunctionName="local-watcher")
        found: dict[str, int] = json.load(answer["Payload"])
        return found

    # Nobody has looked yet: missing data is breaching.
    wait_for(lambda: states()["silent"] == "ALARM", states)

    told = embedded.s3.get_bucket_notification_configuration(Bucket=pipeline.staging)
    s3.put_bucket_notification_configuration(Bucket=pipeline.staging, NotificationConfiguration={})
    s3.put_object(Bucket=pipeline.staging, Key="in/\x1b lost.csv", Body=b"content")
    s3.put_object(Bucket=pipeline.staging, Key="folder/", Body=b"")
    s3.create_multipart_upload(Bucket=pipeline.staging, Key="begun")
    set_threshold(embedded, seconds=0)
    assert look() == {"staged": 1, "stuck": 1, "uploads": 1}
    wait_for(lambda: states() == {"stuck": "ALARM", "silent": "OK"}, states)

    # Told of it again, the processor archives it, and the next look finds nothing.
    s3.put_bucket_notification_configuration(
        Bucket=pipeline.staging,
        NotificationConfiguration={
            "LambdaFunctionConfigurations": told["LambdaFunctionConfigurations"]
        },
    )
    s3.put_object(Bucket=pipeline.staging, Key="in/\x1b lost.csv", Body=b"content")
    wait_for(lambda: s3.list_objects_v2(Bucket=pipeline.staging)["KeyCount"] == 1, lambda: "staged")
    assert look() == {"staged": 0, "stuck": 0, "uploads": 1}
    wait_for(lambda: states() == {"stuck": "OK", "silent": "OK"}, states)


def set_threshold(aws: Aws, *, seconds: int) -> None:
    """Let the watcher call files of this age stuck."""
    found = aws.functions.get_function_configuration(FunctionName="local-watcher")
    variables = found["Environment"]["Variables"] | {"TWOBUCKETS_STUCK_SECONDS": str(seconds)}
    aws.functions.update_function_configuration(
        FunctionName="local-watcher", Environment={"Variables": variables}
    )
