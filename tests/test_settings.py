"""Where each setting comes from, and what is said of one that can't be."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest

from twobuckets.errors import NotFoundError, UsageError
from twobuckets.settings import function_name_of, load, qualifier_of


def write(directory: Path, text: str) -> Path:
    file = directory / "twobuckets.toml"
    file.write_text(text, "utf-8")
    return file


def test_without_anything_said_the_defaults_hold(tmp_path: Path):
    settings = load({}, {}, tmp_path)
    assert settings.stack is None
    assert settings.process == "processor:process"
    assert settings.timeout == timedelta(minutes=5)
    assert settings.origins["process"] == "default"
    assert "stack" not in settings.origins


def test_flags_win_over_environment_over_file(tmp_path: Path):
    file = write(tmp_path, 'stack = "filed"\nregion = "eu-west-1"\nprofile = "file"\n')
    environ = {"TWOBUCKETS_STACK": "env", "AWS_REGION": "eu-north-1"}
    settings = load({"stack": "flagged", "region": None}, environ, tmp_path)
    assert (settings.stack, settings.region, settings.profile) == ("flagged", "eu-north-1", "file")
    assert settings.origins["stack"] == "flag --stack"
    assert settings.origins["region"] == "environment AWS_REGION"
    assert settings.origins["profile"] == str(file)


def test_the_nearest_file_upwards_counts_and_its_folder_is_kept(tmp_path: Path):
    file = write(tmp_path, 'stack = "upper"\n')
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    settings = load({}, {}, below)
    assert (settings.stack, settings.file, settings.directory) == ("upper", file, tmp_path)


def test_a_named_file_is_used_instead_and_has_to_exist(tmp_path: Path):
    write(tmp_path, 'stack = "nearest"\n')
    other = tmp_path / "other.toml"
    other.write_text('stack = "other"\n', "utf-8")
    assert load({"config": str(other)}, {}, tmp_path).stack == "other"
    with pytest.raises(UsageError, match="No such file"):
        load({"config": str(tmp_path / "gone.toml")}, {}, tmp_path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('stak = "x"', r"twobuckets\.toml, line 1: there is no setting stak"),
        ("[processor]\n\nmemory = 5", r"line 3: there is no setting processor\.memory"),
        ("[nonsense]\na = 1", r"line 1: there is no setting nonsense"),
        ("stack = 5", r"stack is 5, but it must be a text"),
        ('stack = "a b"', r"stack is 'a b', but it must be a stack name"),
        ('staging = "Upper_Case"', r"staging is 'Upper_Case', but it must be a bucket name"),
        ('staging = "10.0.0.1"', r"must be a bucket name"),
        ("[processor]\nmemory_mb = 1", r"processor\.memory_mb is 1, but .* from 128 on"),
        ("[processor]\nmemory_mb = true", r"must be a whole number"),
        ('[processor]\ntimeout = "0s"', r"from 1s on"),
        ('[processor]\nruntime = "python2.7"', r"a runtime from python3\.11 on"),
        ('[processor]\nruntime = "python3.10"', r"a runtime from python3\.11 on"),
        ("[processor]\nephemeral_storage_mb = 511", r"from 512 on"),
        ('[processor]\nlayers = ["numpy"]', r"a list of ARNs of layers"),
        ("[processor.environment]\nTABLE = 5", r"a table of texts"),
        ('[processor.environment]\n"A-B" = "x"', r"'A-B' can't be the name of one"),
        ('[processor.environment]\nARCHIVE_BUCKET = "x"', r"is set by other settings"),
        ('[processor.environment]\nTWOBUCKETS_PROBES = "x"', r"is set by other settings"),
        ('[processor]\nprocess = "not one"', r"a module and a function"),
        ("[deploy]\ncors_origins = [1]", r"a list of texts"),
        ('[processor]\npolicies = ["my-policy"]', r"a list of ARNs of managed policies"),
        ('[deploy]\nalarm_topic_arn = "ops"', r"the ARN of an SNS topic"),
        ('[watch]\nevery = "90s"', r"whole minutes"),
        ('[deploy]\nlog_level = "ERROR"', r"one of TRACE, DEBUG, INFO"),
        ('[processor]\nstorage_class = "GLACIER"', r"one of STANDARD, .*GLACIER_IR"),
        ('endpoint_url = "ftp://x"', r"https://"),
        ('endpoint_url = "https://host/path"', "a scheme, a host and perhaps a port"),
        ('endpoint_url = "http://h:99999"', "a scheme, a host and perhaps a port"),
        ('endpoint_url = "http://h:abc"', "a scheme, a host and perhaps a port"),
        ('endpoint_url = "http://h:0"', "a scheme, a host and perhaps a port"),
        ('endpoint_url = "http://[::1"', "a scheme, a host and perhaps a port"),
        ('endpoint_url = "http://:80"', "a scheme, a host and perhaps a port"),
        ('endpoint_url = "http://a..b"', "a scheme, a host and perhaps a port"),
        ("stack = ", r"not TOML"),
        ("processor = 5", r"there is no setting processor"),
    ],
)
def test_a_file_that_can_not_be_meant_is_refused_naming_the_place(
    tmp_path: Path, text: str, says: str
):
    write(tmp_path, text)
    with pytest.raises(UsageError, match=says):
        load({}, {}, tmp_path)


def test_what_only_lambda_knows_the_limits_of_is_passed_on(tmp_path: Path):
    write(
        tmp_path,
        """
        [processor]
        runtime = "python3.15"
        timeout = "90m"
        memory_mb = 32768
        ephemeral_storage_mb = 20000
        layers = ["arn:aws:lambda:eu-west-1:123456789012:layer:numpy:3"]
        environment = { TABLE = "orders", TZ = "Europe/Berlin" }
        """,
    )
    settings = load({}, {}, tmp_path)
    assert settings.runtime == "python3.15"
    assert settings.timeout == timedelta(minutes=90)
    assert (settings.memory_mb, settings.ephemeral_storage_mb) == (32_768, 20_000)
    assert settings.environment == (("TABLE", "orders"), ("TZ", "Europe/Berlin"))


def test_a_mistyped_setting_gets_the_nearest_one_as_a_hint(tmp_path: Path):
    write(tmp_path, "[processor]\nmemory_mbs = 512\n")
    with pytest.raises(UsageError) as caught:
        load({}, {}, tmp_path)
    assert caught.value.hint == "Did you mean processor.memory_mb?"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "twobuckets.toml").write_bytes(b"stack = '\xff'")
    with pytest.raises(UsageError, match="not UTF-8"):
        load({}, {}, tmp_path)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000", "https://[::1]:9000/", "https://h."])
def test_an_endpoint_has_a_host_and_perhaps_a_port(tmp_path: Path, url: str):
    assert load({"endpoint_url": url}, {}, tmp_path).endpoint_url == url


def test_a_bad_value_of_a_variable_names_the_variable(tmp_path: Path):
    with pytest.raises(UsageError, match="environment TWOBUCKETS_STAGING: staging is 'NO'"):
        load({}, {"TWOBUCKETS_STAGING": "NO"}, tmp_path)


OUTPUTS = {"StagingBucket": "s-out", "ArchiveBucket": "a-out", "FunctionName": "f-out"}


def test_the_pipeline_takes_from_the_stack_what_nobody_named(tmp_path: Path):
    write(tmp_path, 'stack = "st"\narchive = "a-file"\n')
    pipeline = load({}, {}, tmp_path).pipeline(OUTPUTS)
    assert (pipeline.staging, pipeline.archive) == ("s-out", "a-file")
    assert pipeline.log_group == "/aws/lambda/f-out"
    assert pipeline.origins["staging"] == "stack st, output StagingBucket"


def test_a_pair_made_by_hand_needs_no_stack(tmp_path: Path):
    write(tmp_path, 'staging = "in-bucket"\narchive = "done-bucket"\nfunction = "fn"\n')
    settings = load({}, {}, tmp_path)
    assert settings.names_pair
    pipeline = settings.pipeline({})
    assert (pipeline.stack, pipeline.function, pipeline.log_group) == (
        None,
        "fn",
        "/aws/lambda/fn",
    )


LAMBDA = "arn:aws:lambda:eu-west-1:123456789012:function"


@pytest.mark.parametrize(
    ("function", "name", "qualifier"),
    [
        ("proc", "proc", None),
        ("proc:prod", "proc", "prod"),
        ("proc:$LATEST", "proc", "$LATEST"),
        (f"{LAMBDA}:proc", "proc", None),
        (f"{LAMBDA}:proc:prod", "proc", "prod"),
        ("123456789012:function:proc:7", "proc", "7"),
        ("function", "function", None),
        ("function:prod", "function", "prod"),
        (f"{LAMBDA}:function:function", "function", "function"),
    ],
)
def test_a_function_logs_under_its_name_however_it_is_named(
    tmp_path: Path, function: str, name: str, qualifier: str | None
):
    write(tmp_path, f'staging = "in-bucket"\narchive = "done-bucket"\nfunction = "{function}"\n')
    assert load({}, {}, tmp_path).pipeline({}).log_group == f"/aws/lambda/{name}"
    assert (function_name_of(function), qualifier_of(function)) == (name, qualifier)


def test_choosing_another_stack_leaves_the_files_pair_out(tmp_path: Path):
    write(tmp_path, 'stack = "prod"\nstaging = "prod-in"\narchive = "prod-done"\n')
    settings = load({"stack": "local"}, {}, tmp_path)
    assert (settings.staging, settings.archive) == (None, None)
    assert settings.pipeline(OUTPUTS).staging == "s-out"


def test_nothing_that_names_a_pipeline_is_an_error_with_the_ways_to_name_one(tmp_path: Path):
    with pytest.raises(NotFoundError) as caught:
        load({}, {}, tmp_path).pipeline({})
    assert "--stack local" in str(caught.value.hint)


STACK = {
    "StagingBucket": "s-staging",
    "ArchiveBucket": "s-archive",
    "FunctionName": "s-processor",
    "LogGroup": "/s/log",
    "FailureQueueUrl": "https://queue/s",
    "UploadRoleArn": "arn:aws:iam::1:role/s",
}


def test_what_a_stack_says_of_its_own_function_is_not_taken_for_another_one(tmp_path: Path):
    pipeline = load({"stack": "s"}, {"TWOBUCKETS_FUNCTION": "other"}, tmp_path).pipeline(STACK)
    assert pipeline.log_group == "/aws/lambda/other"
    assert pipeline.failure_queue_url is None
    assert pipeline.upload_role_arn == "arn:aws:iam::1:role/s"


def test_a_pair_named_beside_a_stack_takes_nothing_from_it(tmp_path: Path):
    named = {"TWOBUCKETS_STAGING": "my-staging", "TWOBUCKETS_ARCHIVE": "my-archive"}
    pipeline = load({"stack": "local"}, named, tmp_path).pipeline(STACK)
    assert (pipeline.stack, pipeline.function, pipeline.upload_role_arn) == (None, None, None)


def test_a_staging_bucket_named_beside_a_stack_is_none_of_its_upload_roles(tmp_path: Path):
    named = {"TWOBUCKETS_STAGING": "my-staging"}
    pipeline = load({"stack": "s"}, named, tmp_path).pipeline(STACK)
    assert pipeline.upload_role_arn is None
    assert pipeline.function == "s-processor"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("arn:aws:s3:eu-west-1:123456789012:accesspoint/reports", "an access point's ARN"),
        ("reports-abcdefghijklmnopqrstuvwxyz-s3alias", "an access point's alias"),
        ("reports-1a2b--ol-s3", "an Object Lambda access point's alias"),
        ("mfzwi23gnjvgw.mrap", "a multi-region access point's alias"),
        ("intake--euw1-az1--x-s3", "a directory bucket"),
        ("intake--euw1-az1--xa-s3", "an access point of a directory bucket"),
        ("rows--table-s3", "a table bucket"),
        ("arn:aws:s3:::intake", "a bucket's name alone: intake"),
        ("s3://intake/", "a bucket's name alone: intake"),
    ],
)
def test_what_has_a_buckets_place_and_is_none_is_refused_for_what_it_is(name: str, words: str):
    for setting in ("staging", "archive"):
        with pytest.raises(UsageError, match=re.escape(words)):
            load({setting: name}, {}, Path("/nowhere"))
