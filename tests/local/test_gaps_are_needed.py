"""Each gap that the embedded AWS fills is one: the emulator as it comes leaves it open.

What fails here after the pin has moved is done by the emulator itself, and its function can go.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# In a process of its own: the emulator reads its settings when it is imported.
ASK = r"""
import importlib, inspect, json, re, sys, time
from ministack.core import iam_actions, iam_evaluator
from ministack.services import cloudwatch, cloudwatch_logs, iam, lambda_svc, s3, sqs
from ministack.services.cloudformation import changesets, provisioners

measure = lambda: None
for name in sys.argv[1:]:
    module = importlib.import_module(f"twobuckets.local.server.{name}")
    if name == "queue_gaps":
        module.install(lambda: None)
        measure = module.measure
    else:
        module.install()
B = "bucket"
s3._create_bucket(B, b"", {})
s3._put_bucket_versioning(
    B, b"<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>"
)

def put(key, body):
    return s3._put_object(B, key, body, {})[1]

first = put("k", b"0123456789")["x-amz-version-id"]
put("k", b"abc")
put("odd\x1b", b"1")
copied, _, _ = s3._copy_object(
    B, "odd\x1b", {"x-amz-copy-source": f"{B}/k", "if-none-match": "*"}
)
whole = {"x-amz-checksum-algorithm": "CRC64NVME", "x-amz-checksum-type": "FULL_OBJECT"}
created = s3._create_multipart_upload(B, "parts", whole)
begun = {"uploadId": [re.search(b"<UploadId>(.*?)<", created[2])[1].decode()]}
copied_part = s3._upload_part_copy(
    B, "parts", {**begun, "partNumber": ["1"]}, {"x-amz-copy-source": f"{B}/k"}
)
uploads = s3._list_multipart_uploads(B, {"encoding-type": ["url"]})[2]
versions = s3._list_object_versions(B, {"encoding-type": ["url"]})[2]
part = s3._get_object(B, "k", {"range": "bytes=2-3"}, {"versionId": [first]})
put("large", bytes(300_000))
started = time.perf_counter()
s3._crc64nvme(bytes(1_000_000))
took = time.perf_counter() - started

cloudwatch_logs._create_log_group({"logGroupName": "g"})
cloudwatch_logs._create_log_stream({"logGroupName": "g", "logStreamName": "s"})
events = [{"timestamp": int(time.time() * 1000), "message": m} for m in ('{"a": "x"}', "z")]
cloudwatch_logs._put_log_events({"logGroupName": "g", "logStreamName": "s", "logEvents": events})

def filtered(**asked):
    return json.loads(cloudwatch_logs._filter_log_events({"logGroupName": "g", **asked})[2])

def refuses(call, *args):
    try:
        call(*args)
    except Exception:
        return True
    return False

template = {
    "Conditions": {"No": {"Fn::Equals": ["a", "b"]}},
    "Resources": {"Queue": {"Type": "AWS::SQS::Queue", "Condition": "No", "Properties": {}}},
}
diffed = changesets._resolve_props_for_diff(template, {}, "stack", "id")
provisioner = inspect.getsource(provisioners)
configured = [row[0] for row in provisioners._S3_BUCKET_CONFIGURATIONS]
delete_bucket = provisioners._RESOURCE_HANDLERS["AWS::S3::Bucket"]["delete"]
iam._create_role({
    "RoleName": ["pathy"], "Path": ["/team/"], "AssumeRolePolicyDocument": ['{"Statement": []}'],
})
iam._put_role_policy({
    "RoleName": ["pathy"], "PolicyName": ["p"],
    "PolicyDocument": [json.dumps({"Statement": {
        "Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}})],
})
simulated = iam._simulate_principal_policy({
    "PolicySourceArn": ["arn:aws:iam::000000000000:role/team/pathy"],
    "ActionNames.member.1": ["s3:GetObject"],
    "ResourceArns.member.1": ["arn:aws:s3:::bucket/*"],
})[2]
queues = [sqs._act_create_queue({"QueueName": name}, "")["QueueUrl"] for name in ("dead", "busy")]
sqs._act_send_message({"QueueUrl": queues[1], "MessageBody": "m"}, queues[1])
depth = {"Namespace": "AWS/SQS", "MetricName": "ApproximateNumberOfMessagesVisible"}
alarm = depth | {
    "AlarmName": "dead", "StateValue": "INSUFFICIENT_DATA", "Period": 300, "Threshold": 0,
    "Statistic": "Maximum", "ComparisonOperator": "GreaterThanThreshold",
    "Dimensions": [{"Name": "QueueName", "Value": "dead"}],
}
cloudwatch._alarms["dead"] = alarm
sources = provisioners._RESOURCE_HANDLERS["AWS::Lambda::EventSourceMapping"]
uuid, _ = sources["create"]("Source", {
    "FunctionName": "f", "EventSourceArn": "arn:aws:sqs:us-east-1:000000000000:dead",
    "ScalingConfig": {"MaximumConcurrency": "3"},
}, "stack")
at_once = lambda_svc._esms[uuid]["ScalingConfig"]["MaximumConcurrency"]
measure()
is_measured = any(key[0] == "AWS/SQS" for key, _ in cloudwatch._metrics.items())
for name, value in (("dead", 0), ("busy", 1)):
    cloudwatch.record_metric(*depth.values(), value, dimensions={"QueueName": name})
cloudwatch._evaluate_all_alarms()
silent = {
    "AlarmName": "silent", "StateValue": "INSUFFICIENT_DATA", "Period": 60, "Threshold": 1,
    "Namespace": "n", "MetricName": "Files", "Dimensions": [{"Name": "Stack", "Value": "a"}],
    "Statistic": "SampleCount", "ComparisonOperator": "LessThanThreshold",
    "TreatMissingData": "breaching",
}
cloudwatch._alarms["silent"] = silent
cloudwatch._evaluate_all_alarms()
was_silent = silent["StateValue"]
embedded = {"Namespace": "n", "Dimensions": [["Stack"]], "Metrics": [{"Name": "Files"}]}
line = {
    "_aws": {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [embedded]},
    "Stack": "a", "Files": 7,
}
cloudwatch_logs._put_log_events({
    "logGroupName": "g", "logStreamName": "s",
    "logEvents": [{"timestamp": int(time.time() * 1000), "message": json.dumps(line)}],
})
print(json.dumps({
    "an alarm treats missing data": was_silent == "ALARM",
    "metrics in log lines are measured": silent["StateValue"] == "OK",
    "limits of event sources are numbers": at_once == 3,
    "queues are measured": is_measured,
    "an alarm compares its own queue's values": alarm["StateValue"] == "OK",
    "a FIFO queue feeds functions group by group":
        lambda_svc._sqs_esm_concurrency({}, {}, {}, {"is_fifo": True}) > 1,
    "batches of messages ask for IAM's actions": iam_actions.extract_iam_action(
        "sqs", "POST", "/", {"x-amz-target": "AmazonSQS.SendMessageBatch"}, b"{}", {}
    ) == "sqs:SendMessage",
    "SimulatePrincipalPolicy knows roles by their path": b"allowed" in simulated,
    "ListObjectVersions encodes": b"EncodingType" in versions,
    "ListMultipartUploads encodes": b"EncodingType" in uploads,
    "XML holds no raw control character": b"\x1b" not in versions,
    "CopyObject knows If-None-Match": copied == 412,
    "a policy's wildcard matches a line's end": iam_evaluator.fnmatch_iam_cs("a\nb", "a*"),
    "a range of a version is a part": part[0] == 206,
    "contents of versions stay on disk": s3._object_versions[B, "large"][-1].get("data") is None,
    "CRC64NVME is fast": took < 0.01,
    "FULL_OBJECT of a multipart upload": created[1].get("x-amz-checksum-type") == "FULL_OBJECT",
    "a copied part has a checksum": b"<ChecksumCRC64NVME>" in copied_part[2],
    "the initiator is an ARN": b"<Initiator><ID>arn:" in uploads,
    "FilterLogEvents pages": "nextToken" in filtered(limit=1),
    "FilterLogEvents knows JSON patterns": filtered(filterPattern='{$.a = "y"}')["events"] == [],
    "FilterLogEvents knows alternatives": len(filtered(filterPattern="?x ?y")["events"]) == 1,
    "CloudFormation applies lifecycle rules": "LifecycleConfiguration" in configured,
    "CloudFormation applies bucket encryption": "BucketEncryption" in configured,
    "CloudFormation applies ownership controls": "OwnershipControls" in configured,
    "CloudFormation applies reserved concurrency": "ReservedConcurrentExecutions" in provisioner,
    "CloudFormation applies dead-letter queues": "DeadLetterConfig" in provisioner,
    "a stack leaves a bucket with objects": refuses(delete_bucket, B, {}),
    "an unlisted type's change replaces nothing":
        provisioners._property_recreation("AWS::S3::Bucket", "Tags") == "Never",
    "change sets leave out unmet conditions": "Queue" not in diffed["Resources"],
    "objects are told of before the answer": "Thread(" not in inspect.getsource(
        s3._fire_s3_event_async),
    "invocations are queued": "Thread(" not in inspect.getsource(
        lambda_svc.invoke_async_with_retry),
}))
"""


# What is not seen by a call, so it is read in the emulator's source.
READ = {
    "CloudFormation applies reserved concurrency",
    "CloudFormation applies dead-letter queues",
    "objects are told of before the answer",
    "invocations are queued",
}


def ask(folder: Path, *filled: str) -> dict[str, bool]:
    """Return what the emulator does when these modules have filled their gaps."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(folder / "objects"),
        "STATE_DIR": str(folder / "state"),
    }
    done = subprocess.run(
        [sys.executable, "-c", ASK, *filled],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, bool] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_the_emulator_fills_none_of_the_gaps_itself(tmp_path: Path):
    assert [name for name, is_filled in ask(tmp_path).items() if is_filled] == []


def test_each_gap_is_filled_here(tmp_path: Path):
    modules = ["template_gaps", "log_gaps", "bodies", "multipart_gaps", "s3_gaps", "queue_gaps"]
    modules.append("metric_gaps")
    found = ask(tmp_path, *modules)
    assert {name for name, is_filled in found.items() if not is_filled} == READ
