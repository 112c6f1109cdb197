"""deploy, status and destroy through the command line, on the embedded AWS."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner, Result

from tests.embedded.conftest import empty_bucket
from twobuckets.cli import cli
from twobuckets.cli.app import App
from twobuckets.s3.engine import Request, Response
from twobuckets.stack.template import template_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from twobuckets.aws.clients import Aws

STAGING = "local-staging-000000000000-us-east-1"
ARCHIVE = "local-archive-000000000000-us-east-1"
ARTIFACTS = "twobuckets-artifacts-000000000000-us-east-1"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a processor, which is the working directory."""
    (tmp_path / "processor.py").write_text("def process(file):\n    return None\n")
    (tmp_path / "twobuckets.toml").write_text('stack = "local"\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(embedded: Aws, project: Path) -> Callable[..., Result]:
    """Run a command of the program."""
    return lambda *arguments: CliRunner().invoke(cli, list(arguments))


def records(result: Result, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    return [line for line in lines if line["type"] == kind]


def deployed(run: Callable[..., Result]) -> Result:
    result = run("deploy", "--yes", "--json")
    assert result.exit_code == 0, result.stderr
    return result


def bucket_names(aws: Aws) -> set[str]:
    return {bucket["Name"] for bucket in aws.s3.list_buckets()["Buckets"]}


def test_new_code_changes_the_function_alone_and_the_same_code_nothing(
    run: Callable[..., Result], embedded: Aws, project: Path
):
    first = deployed(run)
    assert all(c["action"] == "add" for c in records(first, "plan")[0]["changes"])
    assert records(first, "summary")[0]["outputs"]["StagingBucket"] == STAGING

    (project / "processor.py").write_text("def process(file):\n    return 1\n")
    second = deployed(run)
    [plan] = records(second, "plan")
    assert [(c["resource"], c["action"], c["properties"]) for c in plan["changes"]] == [
        ("Processor", "change", ["Code"])
    ]
    changed = {e["resource"] for e in records(second, "stack-event")}
    assert changed == {"local", "Processor"}

    before = embedded.cloudformation.describe_stack_events(StackName="local")["StackEvents"]
    third = deployed(run)
    assert records(third, "plan")[0]["changes"] == []
    assert records(third, "summary")[0]["outcome"] == "unchanged"
    after = embedded.cloudformation.describe_stack_events(StackName="local")["StackEvents"]
    assert len(after) == len(before)
    left = embedded.cloudformation.list_change_sets(StackName="local")["Summaries"]
    assert [s for s in left if s["ExecutionStatus"] != "EXECUTE_COMPLETE"] == []


def test_a_deployment_that_is_followed_later_shows_its_events_and_ends_with_a_summary(
    run: Callable[..., Result],
):
    deployed(run)
    followed = run("deploy", "--follow", "--json")
    assert followed.exit_code == 0, followed.stderr
    assert {e["status"] for e in records(followed, "stack-event") if e["resource"] == "local"} >= {
        "CREATE_COMPLETE"
    }
    last = json.loads(followed.stdout.splitlines()[-1])
    assert (last["type"], last["outcome"], last["changes"]) == ("summary", "followed", None)
    assert last["outputs"]["StagingBucket"] == STAGING

    shown = run("deploy", "--follow")
    assert shown.exit_code == 0, shown.stderr
    # An instant without its zone would be read as local time.
    assert all(re.match(r"\d\d:\d\d:\d\dZ  ", line) for line in shown.stdout.splitlines())


def test_a_dry_run_plans_and_leaves_nothing(run: Callable[..., Result], embedded: Aws):
    result = run("deploy", "--dry-run")
    assert result.exit_code == 0
    assert "+ StagingBucket (S3::Bucket)" in result.stdout
    assert "Nothing was changed." in result.stdout
    assert bucket_names(embedded) == set()
    assert run("status").exit_code == 4


def test_without_a_terminal_and_without_yes_nothing_is_deployed(
    run: Callable[..., Result], embedded: Aws
):
    result = run("deploy")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert bucket_names(embedded) == set()
    assert run("status").exit_code == 4


def test_the_staged_file_goes_to_the_archive_with_what_the_role_allows(
    run: Callable[..., Result], embedded: Aws
):
    deployed(run)
    embedded.s3.put_object(
        Bucket=STAGING, Key="a b/ü+.csv", Body=b"1,2\n", Tagging="kind=csv", Metadata={"by": "me"}
    )
    embedded.s3.get_waiter("object_exists").wait(
        Bucket=ARCHIVE, Key="a b/ü+.csv", WaiterConfig={"Delay": 1, "MaxAttempts": 20}
    )
    assert embedded.s3.head_object(Bucket=ARCHIVE, Key="a b/ü+.csv")["Metadata"]["by"] == "me"


def fill(bucket: str, objects: int, versions: int, uploads: int):
    """Put objects, newer versions of some, a delete marker and incomplete uploads."""
    files = [f"file-{number:05}\n" for number in range(objects)]
    puts = [Request("PUT", bucket, key, body=b"x") for key in files]
    begun = [
        Request("POST", bucket, f"big-{number}", query=(("uploads", ""),))
        for number in range(uploads)
    ]
    deletion = Request("DELETE", bucket, files[0])
    with App(flags={"stack": "local"}).connect() as sender:
        # One after the other: what comes later is to lie on top.
        for requests in (puts, [*puts[:versions], *begun], [deletion]):
            for request, answer in sender.send_all(requests):
                assert isinstance(answer, Response), (request, answer)
                assert answer.ok, (request, answer)


def test_destroy_leaves_nothing_of_thousands_of_objects_versions_and_uploads(
    run: Callable[..., Result], embedded: Aws
):
    deployed(run)
    # Nothing is to be processed meanwhile: what is counted is what was put.
    embedded.s3.put_bucket_notification_configuration(Bucket=STAGING, NotificationConfiguration={})
    fill(ARCHIVE, 2500, 300, 10)
    fill(STAGING, 50, 5, 20)

    result = run("destroy", "--delete-data", "--yes", "--json")
    assert result.exit_code == 0, result.stderr
    found = {c["bucket"]: c for c in records(result, "contents")}
    assert found[ARCHIVE]["objects"] == 2499
    assert found[ARCHIVE]["noncurrent_versions"] == 301
    assert found[ARCHIVE]["delete_markers"] == 1
    assert found[STAGING]["incomplete_uploads"] == 20
    [summary] = records(result, "summary")
    assert summary["versions"] == 2801 + 56
    assert summary["uploads"] == 30

    assert bucket_names(embedded) == {ARTIFACTS}
    assert embedded.functions.list_functions()["Functions"] == []
    assert embedded.logs.describe_log_groups()["logGroups"] == []
    assert embedded.sqs.list_queues().get("QueueUrls", []) == []
    assert embedded.iam.list_roles()["Roles"] == []
    assert run("destroy", "--yes").exit_code == 4


def test_destroy_refuses_while_there_is_data_and_touches_none(
    run: Callable[..., Result], embedded: Aws
):
    deployed(run)
    embedded.s3.put_object(Bucket=ARCHIVE, Key="kept", Body=b"x")
    refused = run("destroy", "--yes")
    assert refused.exit_code == 1
    assert "1 object" in refused.stdout
    assert "--delete-data" in refused.stderr
    # The flag alone is no consent.
    assert run("destroy", "--delete-data").exit_code == 2
    assert run("destroy", "--delete-data", "--dry-run").exit_code == 0
    assert embedded.s3.get_object(Bucket=ARCHIVE, Key="kept")["Body"].read() == b"x"
    assert run("status").exit_code == 0


def test_destroy_removes_delete_markers_of_a_bucket_without_data(
    run: Callable[..., Result], embedded: Aws
):
    deployed(run)
    embedded.s3.delete_object(Bucket=ARCHIVE, Key="never was")
    result = run("destroy", "--yes")
    assert result.exit_code == 0, result.stderr
    assert bucket_names(embedded) == {ARTIFACTS}


def test_an_interrupted_destroy_goes_on_when_it_is_run_again(
    run: Callable[..., Result], embedded: Aws
):
    deployed(run)
    # As if it had been killed between the buckets and the stack.
    embedded.s3.delete_bucket(Bucket=STAGING)
    result = run("destroy", "--yes")
    assert result.exit_code == 0, result.stderr
    assert bucket_names(embedded) == {ARTIFACTS}
    assert run("status").exit_code == 4


def make_artifacts_elsewhere(aws: Aws):
    """Put the artifact bucket into another region, where Lambda takes no code from."""
    if ARTIFACTS in bucket_names(aws):
        empty_bucket(aws, ARTIFACTS)
        aws.s3.delete_bucket(Bucket=ARTIFACTS)
    aws.s3.create_bucket(
        Bucket=ARTIFACTS, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"}
    )


def test_a_failed_creation_names_the_first_resource_and_the_way_out(
    run: Callable[..., Result], embedded: Aws
):
    make_artifacts_elsewhere(embedded)
    failed = run("deploy", "--yes")
    assert failed.exit_code == 1
    assert "Could not deploy the stack local: Processor (AWS::Lambda::Function): " in failed.stderr
    assert "GetObject" in failed.stderr
    assert "`twobuckets --stack local destroy`" in failed.stderr
    # The creation that failed made the buckets, so it takes them back.
    assert bucket_names(embedded) == {ARTIFACTS}

    again = run("deploy", "--yes")
    assert again.exit_code == 1
    assert "what a failed creation left (ROLLBACK_COMPLETE): Processor" in again.stderr
    shown = run("status")
    assert "ROLLBACK_COMPLETE" in shown.stdout
    assert "`twobuckets --stack local destroy`" in shown.stderr
    assert shown.exit_code == 1

    empty_bucket(embedded, ARTIFACTS)
    embedded.s3.delete_bucket(Bucket=ARTIFACTS)
    assert run("destroy", "--yes").exit_code == 0
    assert run("deploy", "--yes").exit_code == 0


def test_a_failed_update_says_that_the_pipeline_runs_as_before(
    run: Callable[..., Result], embedded: Aws, project: Path
):
    deployed(run)
    make_artifacts_elsewhere(embedded)
    (project / "processor.py").write_text("def process(file):\n    return 2\n")
    failed = run("deploy", "--yes")
    assert failed.exit_code == 1
    assert "Processor (AWS::Lambda::Function)" in failed.stderr
    assert "runs as before" in failed.stderr
    assert "UPDATE_ROLLBACK_COMPLETE" in run("status").stdout
    assert STAGING in bucket_names(embedded)


def test_a_bucket_name_that_is_taken_is_told_before_anything_is_made(
    run: Callable[..., Result], embedded: Aws
):
    embedded.s3.create_bucket(Bucket=ARCHIVE)
    result = run("deploy", "--yes")
    assert result.exit_code == 1
    assert f"the bucket {ARCHIVE} exists already" in result.stderr
    assert bucket_names(embedded) == {ARCHIVE}


def test_a_stack_that_only_a_change_set_waits_for_is_taken_over(
    run: Callable[..., Result], embedded: Aws
):
    embedded.cloudformation.create_change_set(
        StackName="local",
        ChangeSetName="left-behind",
        ChangeSetType="CREATE",
        TemplateBody=template_text(),
        Capabilities=["CAPABILITY_IAM"],
        Parameters=[
            {"ParameterKey": name, "ParameterValue": "left-behind"}
            for name in ("StagingBucketName", "ArchiveBucketName", "ArtifactBucket", "ArtifactKey")
        ],
    )
    assert run("status").exit_code == 4
    deployed(run)
    assert run("status").exit_code == 0


def test_somebody_elses_stack_is_neither_deployed_over_nor_destroyed(
    run: Callable[..., Result], embedded: Aws
):
    embedded.cloudformation.create_stack(
        StackName="payroll",
        TemplateBody=json.dumps({"Resources": {"Queue": {"Type": "AWS::SQS::Queue"}}}),
    )
    embedded.cloudformation.get_waiter("stack_create_complete").wait(
        StackName="payroll", WaiterConfig={"Delay": 1}
    )
    from twobuckets.stack.destroy import require_destroyable
    from twobuckets.stack.plan import require_deployable

    for require in (require_deployable, require_destroyable):
        with pytest.raises(Exception, match="not a pipeline of twobuckets"):
            require(embedded.cloudformation, "payroll")


def test_rules_that_somebody_else_added_survive_and_a_change_that_would_wipe_them_is_refused(
    run: Callable[..., Result], embedded: Aws, project: Path
):
    deployed(run)
    queue_arn = "arn:aws:sqs:us-east-1:000000000000:theirs"
    lets_s3_send = {
        "Effect": "Allow",
        "Principal": {"Service": "s3.amazonaws.com"},
        "Action": "sqs:SendMessage",
        "Resource": queue_arn,
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [lets_s3_send]})
    embedded.sqs.create_queue(QueueName="theirs", Attributes={"Policy": policy})
    notification: Any = embedded.s3.get_bucket_notification_configuration(Bucket=STAGING)
    notification.pop("ResponseMetadata")
    notification["QueueConfigurations"] = [
        {"QueueArn": queue_arn, "Events": ["s3:ObjectRemoved:*"]}
    ]
    embedded.s3.put_bucket_notification_configuration(
        Bucket=STAGING, NotificationConfiguration=notification
    )
    rules: Any = embedded.s3.get_bucket_lifecycle_configuration(Bucket=STAGING)["Rules"]
    rules.append(
        {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "t/"}, "Expiration": {"Days": 9}}
    )
    embedded.s3.put_bucket_lifecycle_configuration(
        Bucket=STAGING, LifecycleConfiguration={"Rules": rules}
    )

    def theirs() -> tuple[list[str], list[str]]:
        present = embedded.s3.get_bucket_notification_configuration(Bucket=STAGING)
        lifecycle = embedded.s3.get_bucket_lifecycle_configuration(Bucket=STAGING)
        return (
            [q["QueueArn"] for q in present.get("QueueConfigurations", [])],
            [rule["ID"] for rule in lifecycle["Rules"] if "twobuckets" not in rule["ID"]],
        )

    (project / "twobuckets.toml").write_text(
        'stack = "local"\n[deploy]\ncors_origins = ["https://a.example"]\n'
    )
    deployed(run)
    assert theirs() == ([queue_arn], ["theirs"])

    (project / "twobuckets.toml").write_text(
        'stack = "local"\n[deploy]\ncors_origins = ["https://a.example"]\n'
        "abort_incomplete_uploads_days = 9\n"
    )
    refused = run("deploy", "--yes")
    assert refused.exit_code == 1
    assert "the lifecycle rule theirs" in refused.stderr
    assert "Nothing was changed" in refused.stderr
    assert theirs() == ([queue_arn], ["theirs"])


def test_the_processor_gets_the_policies_that_the_settings_name(
    project: Path, run: Callable[..., Result], embedded: Aws
):
    def attached() -> list[str]:
        stack = embedded.cloudformation.describe_stack_resource(
            StackName="local", LogicalResourceId="ProcessorRole"
        )
        role = stack["StackResourceDetail"]["PhysicalResourceId"]
        policies = embedded.iam.list_attached_role_policies(RoleName=role)
        return sorted(policy["PolicyArn"] for policy in policies["AttachedPolicies"])

    arns = [f"arn:aws:iam::aws:policy/{name}" for name in ("AmazonSQSFullAccess", "AWSXRayDaemon")]
    settings = project / "twobuckets.toml"
    settings.write_text(f'stack = "local"\n[processor]\npolicies = {json.dumps(arns)}\n')
    deployed(run)
    assert attached() == sorted(arns)
    settings.write_text('stack = "local"\n')
    deployed(run)
    assert attached() == []


def test_the_function_has_the_variables_and_room_of_the_settings_and_status_keeps_values_to_itself(
    run: Callable[..., Result], embedded: Aws, project: Path
):
    (project / "twobuckets.toml").write_text(
        'stack = "local"\n[processor]\ntimeout = "30m"\nephemeral_storage_mb = 1024\n'
        'environment = { TABLE = "or\\"ders", TOKEN = "s3cret" }\n'
    )
    deployed(run)
    function = embedded.functions.get_function_configuration(FunctionName="local-processor")
    variables = function["Environment"]["Variables"]
    assert (variables["TABLE"], variables["TOKEN"]) == ('or"ders', "s3cret")
    assert variables["ARCHIVE_BUCKET"] == ARCHIVE
    assert function["Timeout"] == 1800
    assert function["EphemeralStorage"]["Size"] == 1024
    for form in ("--json", "--verbose"):
        status = run("status", form)
        assert "TOKEN" in status.stdout
        assert "s3cret" not in status.stdout + status.stderr


def test_renaming_a_bucket_says_loudly_what_becomes_of_the_data(run: Callable[..., Result]):
    deployed(run)
    result = CliRunner(env={"TWOBUCKETS_ARCHIVE": "another-archive"}).invoke(
        cli, ["deploy", "--dry-run"]
    )
    assert "! ArchiveBucket (S3::Bucket) IS REPLACED" in result.stdout
    assert f"{ARCHIVE} stays with all that is in it" in result.stdout


def test_status_shows_the_pipeline_on_one_screen(run: Callable[..., Result], embedded: Aws):
    deployed(run)
    embedded.s3.create_multipart_upload(Bucket=STAGING, Key="big")
    shown = run("status")
    assert shown.exit_code == 0, shown.stderr
    for words in (
        "CREATE_COMPLETE",
        "private · encrypted AES256 · versioned",
        "uploads aborted after 3d",
        "no objects wait",
        "1 incomplete upload",
        "the artifact built here",
        "woken by s3:ObjectCreated:* · S3 may invoke it",
        "nothing in local-failures",
        "outputs of stack local: staging, archive, function",
        "memory_mb=512",
    ):
        assert words in shown.stdout, words
    assert [line for line in shown.stdout.splitlines() if len(line) > 80] == []
    parts = [json.loads(line)["type"] for line in run("status", "--json").stdout.splitlines()]
    assert parts[0] == "stack-status"
    assert parts[-1] == "summary"


def test_status_tells_what_is_broken(run: Callable[..., Result], embedded: Aws):
    deployed(run)
    embedded.s3.put_bucket_notification_configuration(Bucket=STAGING, NotificationConfiguration={})
    embedded.s3.delete_bucket_lifecycle(Bucket=STAGING)
    embedded.s3.put_object(Bucket=STAGING, Key="stuck", Body=b"x" * 2048)
    embedded.functions.put_function_concurrency(
        FunctionName="local-processor", ReservedConcurrentExecutions=0
    )
    shown = run("status").stdout
    assert "NOTHING WAKES THE PROCESSOR" in shown
    assert "uploads NEVER ABORTED" in shown
    assert "1 object, 2.0 KiB" in shown
    assert "THROTTLED TO 0" in shown


def test_status_of_a_stack_that_is_not_there_says_how_to_make_it(run: Callable[..., Result]):
    missing = run("status")
    assert missing.exit_code == 4
    assert "twobuckets --stack local deploy" in missing.stderr


def test_a_stack_name_that_aws_would_not_take_is_refused(run: Callable[..., Result]):
    assert run("--stack", "not_a_name", "deploy", "--yes").exit_code == 2


def test_errors_are_json_when_asked(run: Callable[..., Result]):
    result = run("destroy", "--yes", "--json")
    error = json.loads(result.stderr.splitlines()[-1])
    assert (error["type"], error["exit_code"]) == ("error", 4)
