"""S3's keys and address without a session: what botocore would find, or nothing."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from twobuckets.aws.clients import Aws
from twobuckets.aws.s3_access import find_plain_access

KEYS = {"AWS_ACCESS_KEY_ID": "AKIAENV", "AWS_SECRET_ACCESS_KEY": "env-secret"}
variables = st.fixed_dictionaries(
    {},
    optional={
        "AWS_ACCESS_KEY_ID": st.just("AKIAENV"),
        "AWS_SECRET_ACCESS_KEY": st.just("env-secret"),
        "AWS_SESSION_TOKEN": st.just("env-token"),
        "AWS_DEFAULT_REGION": st.sampled_from(["us-east-1", "ap-south-1"]),
        "AWS_PROFILE": st.just("other"),
        "AWS_ENDPOINT_URL": st.just("http://127.0.0.1:9/"),
        "AWS_ENDPOINT_URL_S3": st.just("https://s3.example.org"),
        "AWS_CA_BUNDLE": st.just("/ca.pem"),
    },
)
sections = st.fixed_dictionaries(
    {},
    optional={
        "aws_access_key_id": st.just("AKIAFILE"),
        "aws_secret_access_key": st.just("file-secret"),
        "aws_session_token": st.just("file-token"),
        "region": st.sampled_from(["eu-west-1", "cn-north-1", "us-gov-west-1"]),
        "endpoint_url": st.just("http://127.0.0.1:10"),
        "ca_bundle": st.just("/file.pem"),
    },
)


def write(path, named):
    path.write_text(
        "".join(
            f"[{title}]\n" + "".join(f"{k} = {v}\n" for k, v in section.items())
            for title, section in named.items()
        )
    )


PLAINEST = {
    "environ": {**KEYS, "AWS_DEFAULT_REGION": "us-east-1"},
    "in_config": {},
    "in_credentials": {},
    "profile": None,
    "region": None,
    "endpoint_url": None,
}


@pytest.mark.slow
@example(**PLAINEST)
@example(**{**PLAINEST, "region": "eu-north-1"})
@given(
    environ=variables,
    in_config=sections,
    in_credentials=sections,
    profile=st.sampled_from([None, "other"]),
    region=st.sampled_from([None, "eu-north-1"]),
    endpoint_url=st.sampled_from([None, "http://127.0.0.1:11"]),
)
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_what_is_found_plainly_is_what_botocore_finds(
    tmp_path_factory, environ, in_config, in_credentials, profile, region, endpoint_url
):
    folder = tmp_path_factory.mktemp("aws")
    write(
        folder / "config",
        {
            "default": in_config,
            "profile other": in_config,
        },
    )
    write(folder / "credentials", {"default": in_credentials, "other": {}})
    environ = {
        **environ,
        "AWS_CONFIG_FILE": str(folder / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "credentials"),
    }
    chosen = {"profile": profile, "region": region, "endpoint_url": endpoint_url}
    plain = find_plain_access(environ, **chosen)
    assume(plain is not None)
    assert plain is not None
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        aws = Aws(**chosen)
        keys, address = plain
        assert keys.current() == aws.require_s3_keys().current()
        theirs = aws.s3_address
        assert address.url == theirs.url.rstrip("/")
        assert (address.region, address.path_style) == (theirs.region, theirs.path_style)
        assert (address.ca_bundle, address.proxy) == (theirs.ca_bundle, theirs.proxy)


def test_keys_and_region_of_the_environment_are_plain():
    found = find_plain_access({**KEYS, "AWS_DEFAULT_REGION": "eu-west-1"})
    assert found is not None
    keys, address = found
    assert keys.current() == ("AKIAENV", "env-secret", None)
    assert address.url == "https://s3.eu-west-1.amazonaws.com"
    assert "env-secret" not in repr(keys)


@pytest.mark.parametrize(
    "more",
    [
        {"AWS_WEB_IDENTITY_TOKEN_FILE": "/token"},
        {"AWS_CONTAINER_CREDENTIALS_FULL_URI": "http://127.0.0.1/keys"},
        {"AWS_CREDENTIAL_EXPIRATION": "2030-01-01T00:00:00Z"},
        {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
        {"AWS_DEFAULT_REGION": "us-gov-west-1"},
        {"https_proxy": "http://proxy:3128"},
        {"AWS_SECRET_ACCESS_KEY": ""},
    ],
    ids=lambda more: next(iter(more)),
)
def test_anything_else_is_left_to_botocore(more):
    assert find_plain_access({**KEYS, "AWS_DEFAULT_REGION": "eu-west-1", **more}) is None


@pytest.mark.parametrize(
    "profile",
    [
        {"role_arn": "arn:aws:iam::123456789012:role/r", "source_profile": "default"},
        {"credential_process": "/bin/keys"},
        {"sso_session": "work"},
        {"s3": "\n  use_accelerate_endpoint = true"},
        {"services": "local"},
    ],
    ids=lambda profile: next(iter(profile)),
)
def test_a_profile_with_more_than_keys_is_left_to_botocore(tmp_path, profile):
    write(tmp_path / "config", {"profile p": {"region": "eu-west-1", **profile}})
    files = {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
    }
    assert find_plain_access({**KEYS, **files, "AWS_PROFILE": "p"}) is None
    assert find_plain_access({**KEYS, **files, "AWS_PROFILE": "missing"}) is None
