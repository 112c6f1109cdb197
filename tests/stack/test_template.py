"""The template: it lints, asks for no more than it needs, and the settings fill it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import botocore.session
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from tests.docs import where_it_holds
from twobuckets.cli import cli
from twobuckets.doctor.function import (
    _FINDS_JOBS,
    _ITS_JOBS,
    _ITS_ORDERING_QUEUE,
    _ITS_QUEUE,
    _OUR_PROCESSOR,
)
from twobuckets.errors import UsageError
from twobuckets.pipeline import cors
from twobuckets.processor import contract
from twobuckets.settings import load
from twobuckets.stack.plan import _HOLD_DATA, _KEPT
from twobuckets.stack.template import (
    LOG_RETENTION_DAYS,
    Location,
    is_large,
    parameters,
    template_text,
    without_comments,
)

if TYPE_CHECKING:
    from botocore.model import StringShape

PLACE = Location(account="123456789012", region="eu-central-1", partition="aws", uses_tls=True)


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    from cfnlint.decode import decode_str  # it takes longer to import than the tests to run

    decoded, problems = decode_str(template_text())
    assert problems == []
    return cast("dict[str, Any]", decoded)


def filled(
    stack: str = "intake",
    deployed: dict[str, str] | None = None,
    place: Location | None = None,
    **flags: str,
):
    settings = load({"stack": stack}, flags, Path("/nowhere"))
    return parameters(
        settings,
        stack,
        place or PLACE,
        deployed=deployed or {},
        artifact_bucket="artifacts",
        artifact_key="hash.zip",
    )


def test_pages_may_send_what_doctor_asks_for(template: dict[str, Any]):
    staging = template["Resources"]["StagingBucket"]["Properties"]
    (rule,) = staging["CorsConfiguration"]["Fn::If"][1]["CorsRules"]
    wanted = cors.rule_for(["https://a.example"])
    assert rule["Id"] == wanted["ID"]
    assert rule["AllowedMethods"] == wanted["AllowedMethods"]
    assert rule["AllowedHeaders"] == wanted["AllowedHeaders"]
    assert rule["ExposedHeaders"] == wanted["ExposeHeaders"]
    assert rule["MaxAge"] == wanted["MaxAgeSeconds"]


def test_the_command_prints_the_template_and_nothing_else():
    result = CliRunner().invoke(cli, ["template"])
    assert result.exit_code == 0
    assert result.stdout == template_text()


@pytest.mark.slow
def test_the_template_lints_without_a_warning():
    linted = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), "--include-checks", "I"],
        input=template_text(),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (linted.returncode, linted.stdout) == (0, ""), linted.stdout


def test_the_template_fits_into_a_request_unless_much_is_added_to_it():
    assert not is_large(template_text())
    assert is_large(template_text({"A": "x" * 4000}.items(), page=True))


@pytest.mark.parametrize("page", [False, True])
def test_comments_are_all_that_a_template_has_without_need(page):
    from cfnlint.decode import decode_str  # it takes longer to import than the tests to run

    text = template_text({"A": "a # b", "B": "\n#c\n\n"}.items(), page=page)
    short = without_comments(text)
    assert len(short) < 0.9 * len(text)
    assert decode_str(short) == decode_str(text)


def test_every_parameter_that_is_filled_is_one_of_the_templates(template):
    assert filled().keys() <= template["Parameters"].keys()
    left = template["Parameters"].keys() - filled().keys()
    assert all("Default" in template["Parameters"][name] for name in left)


def test_the_templates_defaults_are_the_settings_defaults(template):
    # Where the namespace of buckets does not depend on their names.
    given = filled(place=replace(PLACE, region="me-south-1"))
    for name, parameter in template["Parameters"].items():
        if "Default" in parameter and name in given:
            assert str(parameter["Default"]) == given[name], name


def test_the_log_retention_that_the_template_allows_is_what_the_settings_allow(template):
    assert template["Parameters"]["LogRetentionDays"]["AllowedValues"] == list(LOG_RETENTION_DAYS)


def test_the_variables_of_the_settings_stand_beside_ours_whatever_is_in_them():
    from cfnlint.decode import decode_str

    odd = 'say "hi": \\ {{resolve:ssm:/a}} # no comment\nü \U0001f4c4'
    decoded, problems = decode_str(template_text([("TABLE", "orders"), ("ODD", odd)]))
    assert problems == []
    plain = decode_str(template_text())[0]["Resources"]["Processor"]["Properties"]
    given = decoded["Resources"]["Processor"]["Properties"]["Environment"]["Variables"]
    assert given == {**plain["Environment"]["Variables"], "TABLE": "orders", "ODD": odd}


@pytest.mark.parametrize(
    ("service", "shape", "parameter"),
    [
        ("lambda", "Architecture", "Architecture"),
        ("s3", "StorageClass", "StorageClass"),
        ("lambda", "ApplicationLogLevel", "LogLevel"),
    ],
)
def test_a_closed_list_is_what_aws_has_less_what_is_left_out_on_purpose(
    template, service: str, shape: str, parameter: str
):
    """Fails when AWS has moved on: then the list is to be thought about again."""
    model = botocore.session.get_session().get_service_model(service)
    aws = set(cast("StringShape", model.shape_for(shape)).enum)
    ours = set(template["Parameters"][parameter]["AllowedValues"])
    left_out = {
        "Architecture": set(),
        # Not readable at once, not for general purpose buckets, or not wise.
        "StorageClass": {
            *("GLACIER", "DEEP_ARCHIVE", "OUTPOSTS", "SNOW", "EXPRESS_ONEZONE"),
            *("FSX_OPENZFS", "FSX_ONTAP", "REDUCED_REDUNDANCY"),
            *("AWS_BACKUP_WARM", "AWS_BACKUP_LOW_COST_WARM"),
        },
        # They would silence the outcome lines.
        "LogLevel": {"WARN", "ERROR", "FATAL"},
    }
    assert ours <= aws
    assert aws <= ours | left_out[parameter]


def test_no_log_level_silences_the_outcome_of_an_archived_file(template):
    # Lambda developer guide, "Log-level filtering": each level drops those before it.
    levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"]
    allowed = template["Parameters"]["LogLevel"]["AllowedValues"]
    assert allowed == levels[: levels.index("INFO") + 1]


@pytest.mark.parametrize(
    ("setting", "parameter"), [("log_level", "LogLevel"), ("storage_class", "StorageClass")]
)
def test_a_setting_allows_what_the_template_allows(template, setting: str, parameter: str):
    for value in template["Parameters"][parameter]["AllowedValues"]:
        settings = load({"stack": "intake", setting: value}, {}, Path("/nowhere"))
        assert getattr(settings, setting) == value


def test_the_alarm_goes_to_the_topic_of_the_settings():
    arn = "arn:aws:sns:eu-central-1:123456789012:ops"
    settings = load({"stack": "intake", "alarm_topic_arn": arn}, {}, Path("/nowhere"))
    given = parameters(
        settings, "intake", PLACE, deployed={}, artifact_bucket="b", artifact_key="k"
    )
    assert given["AlarmTopicArn"] == arn
    assert filled()["AlarmTopicArn"] == ""


def test_the_outputs_are_the_ones_that_a_pipeline_is_read_from(template):
    names = {"StagingBucket", "ArchiveBucket", "FunctionName", "LogGroup"}
    assert template["Outputs"].keys() == names | {"FailureQueueUrl", "UploadRoleArn"}


def test_no_policy_allows_every_action_or_every_resource(template):
    statements = [
        statement
        for resource in template["Resources"].values()
        for policy in resource["Properties"].get("Policies", [])
        for statement in map(where_it_holds, policy["PolicyDocument"]["Statement"])
    ]
    assert len(statements) > 4
    for statement in statements:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            assert "*" not in action
        resources = statement["Resource"]
        for arn in resources if isinstance(resources, list) else [resources]:
            # What IAM knows no resource for: tests/stack/test_policies.py.
            assert arn != "*" or statement["Sid"] == "FindJobs"


# Of the processor where [heavy] is on.
JOBS = {"SubmitJobs": set(_ITS_JOBS), "FindJobs": set(_FINDS_JOBS), "FetchArtifact": None}


def granted_to_the_processor(template) -> dict[str, set[str]]:
    granted: dict[str, set[str]] = {}
    role = template["Resources"]["ProcessorRole"]["Properties"]
    for statement in map(where_it_holds, role["Policies"][0]["PolicyDocument"]["Statement"]):
        if statement["Sid"] in JOBS:
            continue
        resources, actions = statement["Resource"], statement["Action"]
        for arn in resources if isinstance(resources, list) else [resources]:
            place = (
                re.sub(
                    r".*:::\$\{(Staging|Archive)BucketName\}",
                    lambda m: m[1].lower(),
                    arn["Fn::Sub"],
                )
                if "Fn::Sub" in arn
                else "its queue"
                if "Fn::If" in arn
                else arn["Fn::GetAtt"][0]
            )
            granted.setdefault(place, set()).update(
                actions if isinstance(actions, list) else [actions]
            )
    return granted


def test_doctor_asks_for_the_permissions_that_the_processor_gets(template):
    granted = granted_to_the_processor(template)
    assert granted.pop("FailureQueue") == {"sqs:SendMessage"}  # Lambda's, on the role's behalf
    granted["log"] = granted.pop("ProcessorLog")
    assert granted["its queue"] == set(_ITS_QUEUE)
    assert granted.pop("its queue") | granted.pop("OrderedQueue") == set(_ITS_ORDERING_QUEUE)
    assert {place: set(actions) for place, actions in _OUR_PROCESSOR.items()} == granted


def test_doctor_asks_for_the_permissions_that_jobs_take(template):
    role = template["Resources"]["ProcessorRole"]["Properties"]
    statements = map(where_it_holds, role["Policies"][0]["PolicyDocument"]["Statement"])
    granted = {s["Sid"]: {s["Action"]} for s in statements if s["Sid"] in JOBS}
    assert granted == JOBS | {"FetchArtifact": {"s3:GetObject"}}


HEAVY = {"heavy_image": "repository/image", "heavy_larger_than": "1GB"}
NETWORK = {"heavy_subnets": "subnet-0123abcd", "heavy_security_groups": "sg-0123abcd"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"heavy_larger_than": "1GB"}, "no image"),
        ({"heavy_image": "repository/image", **NETWORK}, "which files"),
        (HEAVY, "heavy.subnets and heavy.security_groups"),
        (HEAVY | NETWORK | {"heavy_vcpus": "4", "heavy_max_vcpus": "2"}, "none would ever start"),
        (HEAVY | NETWORK | {"trigger": "ordered"}, "beside the job"),
    ],
)
def test_jobs_that_could_not_run_are_refused(given: dict[str, str], says: str):
    with pytest.raises(UsageError, match=says):
        with_flags(**given)


def with_flags(**flags: str) -> dict[str, str]:
    settings = load({"stack": "intake", **flags}, {}, Path("/nowhere"))
    return parameters(
        settings, "intake", PLACE, deployed={}, artifact_bucket="artifacts", artifact_key="a.zip"
    )


def test_without_an_image_nothing_of_jobs_is_in_the_stack(template):
    of_jobs = {name for name in template["Resources"] if name.startswith("Heavy")}
    assert len(of_jobs) == 5
    assert {template["Resources"][name]["Condition"] for name in of_jobs} == {"HasHeavy"}
    assert filled()["HeavyImage"] == ""
    on = with_flags(**HEAVY, **NETWORK, heavy_match="*.mp4,*.mov")
    assert (on["HeavyLargerThan"], on["HeavyMatch"]) == (str(10**9), "*.mp4,*.mov")


def test_a_job_may_fetch_the_artifact_of_the_deployment_that_it_is_from(template):
    role = json.dumps(template["Resources"]["ProcessorRole"])
    # A deployment names another artifact while jobs wait that were submitted before it.
    assert "${ArtifactKey}" not in role
    assert "${ArtifactBucket}/*.zip" in role


def test_a_rule_gets_a_name_for_every_stack_that_a_function_gets_one_for(template):
    longest = "s" * (64 - len("-processor"))
    rules = [r for r in template["Resources"].values() if r["Type"] == "AWS::Events::Rule"]
    for rule in rules:
        name = rule["Properties"]["Name"]["Fn::Sub"].replace("${AWS::StackName}", longest)
        assert len(name) <= 64, name  # EventBridge API reference, PutRule
    assert rules


def test_a_job_is_tried_as_often_as_the_contract_says(template):
    job = template["Resources"]["HeavyDefinition"]["Properties"]
    assert job["RetryStrategy"]["Attempts"] == contract.JOB_TRIES
    names = {one["Name"] for one in job["ContainerProperties"]["Environment"]}
    assert contract.ARTIFACT in names
    assert not names & {contract.HEAVY_QUEUE, contract.QUEUE_URL}


def test_variables_of_the_settings_are_a_jobs_as_well():
    from cfnlint.decode import decode_str

    decoded, problems = decode_str(template_text([("TABLE", "orders"), ("ODD", 'a: "b"\n# c')]))
    assert problems == []
    job = decoded["Resources"]["HeavyDefinition"]["Properties"]["ContainerProperties"]
    given = {one["Name"]: one["Value"] for one in job["Environment"]}
    assert (given["TABLE"], given["ODD"]) == ("orders", 'a: "b"\n# c')


def test_deleting_the_stack_leaves_both_buckets(template):
    for name in ("StagingBucket", "ArchiveBucket"):
        bucket = template["Resources"][name]
        assert bucket["DeletionPolicy"] == "RetainExceptOnCreate"
        assert bucket["UpdateReplacePolicy"] == "Retain"


def test_what_holds_data_is_kept_when_something_takes_its_place(template):
    kept = {
        name
        for name, resource in template["Resources"].items()
        if resource.get("UpdateReplacePolicy") == "Retain"
    }
    assert kept == _KEPT
    of_type = {name for name, r in template["Resources"].items() if r["Type"] in _HOLD_DATA}
    assert of_type == kept


@pytest.mark.parametrize("function", ["Processor", "Watcher"])
def test_new_code_is_a_change_of_the_functions_alone(template, function: str):
    # What refers to the function itself counts as changing with it, the bucket included.
    referring = [
        name
        for name, resource in template["Resources"].items()
        if any(
            node == {"Ref": function} or node.get("Fn::GetAtt", [""])[0] == function
            for node in walk(resource["Properties"])
        )
    ]
    assert referring == []


def walk(node):
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from walk(value)
    elif isinstance(node, list):
        for value in node:
            yield from walk(value)


def test_buckets_that_nobody_names_are_named_after_stack_account_and_region():
    made = filled()
    assert made["StagingBucketName"] == "intake-staging-123456789012-eu-central-1-an"
    assert made["ArchiveBucketName"] == "intake-archive-123456789012-eu-central-1-an"
    assert made["StagingBucketNamespace"] == made["ArchiveBucketNamespace"] == "account-regional"


@pytest.mark.parametrize(
    "place", [replace(PLACE, region="me-south-1"), replace(PLACE, uses_tls=False)]
)
def test_where_an_account_has_no_names_of_its_own_they_are_names_of_all(place: Location):
    made = filled(place=place)
    assert made["StagingBucketName"] == f"intake-staging-123456789012-{place.region}"
    assert made["StagingBucketNamespace"] == "global"


def test_a_name_that_is_too_long_with_the_suffix_goes_without_it():
    stack = "s" * (63 - len("-staging-123456789012-eu-central-1"))
    made = filled(stack)
    assert len(made["StagingBucketName"]) == 63
    assert made["StagingBucketNamespace"] == "global"


def test_an_update_keeps_the_namespace_for_a_change_would_replace_the_bucket():
    old = {
        "StagingBucketName": "intake-staging-123456789012-eu-central-1",
        # Named by hand, before there were namespaces.
        "ArchiveBucketName": "archive-123456789012-eu-central-1-an",
    }
    kept = filled(deployed=old)
    assert {name: kept[name] for name in old} == old
    assert kept["StagingBucketNamespace"] == kept["ArchiveBucketNamespace"] == "global"
    again = filled(deployed=filled())
    assert again == filled()
    # Another name is another bucket.
    own = "other-123456789012-eu-central-1-an"
    assert filled(deployed=old, TWOBUCKETS_STAGING=own)["StagingBucketNamespace"] == (
        "account-regional"
    )
    assert filled(deployed=old, TWOBUCKETS_STAGING="other")["StagingBucketNamespace"] == "global"


@pytest.mark.parametrize("role", ["Staging", "Archive"])
def test_a_bucket_without_a_namespace_of_its_own_has_no_such_property(template, role: str):
    namespace = template["Resources"][f"{role}Bucket"]["Properties"]["BucketNamespace"]
    assert namespace == {
        "Fn::If": [f"HasOwn{role}Name", "account-regional", {"Ref": "AWS::NoValue"}]
    }


def test_buckets_keep_the_names_they_were_deployed_with():
    deployed = {"StagingBucketName": "first", "ArchiveBucketName": "second"}
    assert filled(deployed=deployed)["StagingBucketName"] == "first"
    assert filled(deployed=deployed, TWOBUCKETS_STAGING="third")["StagingBucketName"] == "third"


def test_a_stack_name_too_long_for_its_buckets_says_how_to_name_them():
    with pytest.raises(UsageError, match="longer than 63") as refused:
        filled("a-stack-with-quite-a-long-name")
    assert "staging and archive" in (refused.value.hint or "")


def test_a_stack_name_too_long_for_its_function_is_refused_before_aws_is_asked():
    with pytest.raises(UsageError, match="64 characters"):
        filled("x" * 55, TWOBUCKETS_STAGING="first", TWOBUCKETS_ARCHIVE="second")


@given(st.from_regex(r"[A-Za-z][A-Za-z0-9-]{0,20}", fullmatch=True))
def test_names_made_of_a_stack_name_are_bucket_names(stack: str):
    name = filled(stack)["StagingBucketName"]
    assert load({"stack": stack, "staging": name}, {}, Path("/nowhere")).staging == name


def test_a_message_is_hidden_for_six_time_outs_and_no_longer_than_sqs_can():
    assert filled()["VisibilityTimeout"] == str(6 * 300)
    assert tuned(timeout="2h")["VisibilityTimeout"] == "43200"


def tuned(**settings: str) -> dict[str, str]:
    loaded = load({"stack": "intake", **settings}, {}, Path("/nowhere"))
    return parameters(loaded, "intake", PLACE, deployed={}, artifact_bucket="b", artifact_key="k")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"maximum_concurrency": "4"}, "there is none"),
        (
            {"maximum_concurrency": "4", "trigger": "queue", "reserved_concurrency": "3"},
            "would be throttled",
        ),
    ],
)
def test_a_limit_that_would_do_nothing_or_throttle_is_refused(settings: dict[str, str], says: str):
    with pytest.raises(UsageError, match=says):
        tuned(**settings)


def test_a_queue_may_cause_what_is_reserved():
    settings = {"maximum_concurrency": "4", "trigger": "ordered", "reserved_concurrency": "4"}
    assert tuned(**settings)["MaximumConcurrency"] == "4"


def test_the_watcher_looks_as_often_as_it_is_told_and_calls_stuck_what_doctor_does():
    assert filled()["WatchSchedule"] == "rate(5 minutes)"
    # Delivery, three tries of five minutes and the pauses between them.
    assert filled()["StuckSeconds"] == "1200"

    def watched(every: str, *, uses_tls: bool = True) -> tuple[str, str]:
        file = Path("/nowhere")
        settings = load({"stack": "intake", "watch_every": every}, {}, file)
        place = Location("123456789012", "eu-central-1", "aws", uses_tls)
        given = parameters(
            settings, "intake", place, deployed={}, artifact_bucket="a", artifact_key="k"
        )
        return given["WatchSchedule"], given["WatchPeriod"]

    assert watched("1m") == ("rate(1 minute)", "120")
    assert watched("0")[0] == ""
    assert watched("15m", uses_tls=False) == ("rate(15 minutes)", "1800")
    local = Location("123456789012", "eu-central-1", "aws", uses_tls=False)
    settings = load({"stack": "local"}, {}, Path("/nowhere"))
    given = parameters(settings, "local", local, deployed={}, artifact_bucket="a", artifact_key="k")
    assert given["WatchSchedule"] == ""


def test_the_watcher_may_list_staging_and_nothing_else(template):
    (policy,) = template["Resources"]["WatcherRole"]["Properties"]["Policies"]
    granted = {
        action
        for statement in policy["PolicyDocument"]["Statement"]
        for action in statement["Action"]
    }
    assert granted == {
        "s3:ListBucket",
        "s3:ListBucketMultipartUploads",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }
    for name in ("StuckAlarm", "SilentAlarm", "ThrottleAlarm"):
        said = template["Resources"][name]["Properties"]["AlarmDescription"]["Fn::Sub"]
        assert '"twobuckets doctor"' in said
