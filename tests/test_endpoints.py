"""Where requests that are signed by hand go: for every region, exactly where botocore sends its."""

from __future__ import annotations

import contextlib
import itertools
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import BotoCoreError
from click.testing import CliRunner

from tests.s3.credentials import FixedCredentials
from tests.s3.scripted import Received, answer, serving
from twobuckets.aws.clients import Aws
from twobuckets.cli import cli
from twobuckets.errors import TwoBucketsError
from twobuckets.s3.engine import Keys, Request, SigV4Signer, connect, parse_endpoint

if TYPE_CHECKING:
    from pathlib import Path

    from twobuckets.s3.engine import Endpoint

SESSION = boto3.Session()
REGIONS = sorted(
    region
    for partition in SESSION.get_available_partitions()
    for region in SESSION.get_available_regions("s3", partition_name=partition)
)
WAYS = [
    dict(zip(("fips", "dualstack", "accelerate"), chosen, strict=True))
    for chosen in itertools.product((False, True), repeat=3)
]


def configure(path: Path, *, fips: bool, dualstack: bool, accelerate: bool) -> None:
    """Write a profile as people have it."""
    path.write_text(
        "[default]\naws_access_key_id = AKIA\naws_secret_access_key = secret\n"
        + "use_fips_endpoint = true\n" * fips
        + "use_dualstack_endpoint = true\n" * dualstack
        + "s3 =\n  use_accelerate_endpoint = true\n" * accelerate
    )


def endpoint_of(aws: Aws) -> Endpoint:
    address = aws.s3_address
    return parse_endpoint(address.url, region=address.region, path_style=address.path_style)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "+".join(k for k, v in way.items() if v))
def test_requests_go_where_botocore_sends_its(
    way: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    configure(tmp_path / "config", **way)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    compared = 0
    for region in REGIONS:
        aws = Aws(region=region)
        try:
            theirs = sent_by_botocore(aws)
        except (BotoCoreError, TwoBucketsError):
            with pytest.raises(TwoBucketsError):
                _ = aws.s3_address
            continue
        signer = SigV4Signer(endpoint_of(aws), FixedCredentials(Keys("AKIA", "secret")))
        ours = signer.sign(Request("PUT", "some-bucket", "k"))
        headers = dict(ours.headers)
        host = headers["host"]
        assert (f"https://{host}{ours.target}", region_of(headers["authorization"])) == theirs
        assert (ours.origin.tls, ours.origin.host, ours.origin.port) == (True, host, 443)
        compared += 1
    assert compared or (way["fips"] and way["accelerate"])


def sent_by_botocore(aws: Aws) -> tuple[str, str]:
    """Return the URL of botocore's own request, and the region that it is signed for."""
    sent = []

    def answer_instead(request: Any, **_: object) -> Any:
        sent.append(request)
        return AWSResponse(request.url, 200, HTTPHeaders(), None)

    aws.s3.meta.events.register("before-send.s3.PutObject", answer_instead)
    with contextlib.suppress(AttributeError):  # an answer without a body is none to botocore
        aws.s3.put_object(Bucket="some-bucket", Key="k")
    (request,) = sent
    authorization = request.headers["Authorization"]
    text = authorization.decode() if isinstance(authorization, bytes) else authorization
    return request.url, region_of(text)


def region_of(authorization: str) -> str:
    """Return the region in the scope of a signature."""
    return authorization.partition("Credential=")[2].split("/")[2]


@pytest.mark.parametrize(
    ("host", "other"),
    [
        ("s3.amazonaws.com", "s3.eu-west-1.amazonaws.com"),
        ("s3-fips.us-east-1.amazonaws.com", "s3-fips.eu-west-1.amazonaws.com"),
        ("s3.dualstack.us-east-1.amazonaws.com", "s3.dualstack.eu-west-1.amazonaws.com"),
        ("s3.cn-north-1.amazonaws.com.cn", "s3.eu-west-1.amazonaws.com.cn"),
        ("minio.example.org", "minio.example.org"),
    ],
)
def test_another_regions_endpoint_is_of_the_same_kind(host: str, other: str):
    endpoint = parse_endpoint(f"https://{host}", region="us-east-1").in_region("eu-west-1")
    assert (endpoint.origin.host, endpoint.region) == (other, "eu-west-1")


@pytest.mark.usefixtures("fake_credentials")
@pytest.mark.parametrize("scheme", ["", "http://"])
def test_a_proxy_without_a_scheme_is_an_http_proxy(
    scheme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "s.txt").write_text("hi")
    with serving(store) as proxy:
        monkeypatch.setenv("http_proxy", f"{scheme}127.0.0.1:{proxy.port}")
        monkeypatch.setenv("TWOBUCKETS_STAGING", "staging")
        monkeypatch.setenv("TWOBUCKETS_ARCHIVE", "archive")
        arguments = ["--endpoint-url", "http://s3.example.test", "upload", str(tmp_path / "s.txt")]
        result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "http://s3.example.test/staging/s.txt" in proxy.received[-1].head


def store(received: Received) -> bytes:
    """Store a body, and say its checksum as S3 does."""
    crc = received.header("x-amz-checksum-crc64nvme")
    return answer(200, b"", f"x-amz-checksum-crc64nvme: {crc}", 'ETag: "e"')


@pytest.mark.usefixtures("fake_credentials")
def test_the_profile_says_how_s3_is_addressed_and_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "config").write_text(
        "[default]\nrequest_checksum_calculation = when_required\n"
        "s3 =\n  addressing_style = virtual\n  payload_signing_enabled = true\n"
    )
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    address = Aws(region="eu-west-1", endpoint_url="https://s3.example.org").s3_address
    assert (address.path_style, address.url) == (False, "https://s3.example.org")
    assert address.hashes_payload
    assert address.checks_when_required
    assert not address.is_aws


def test_a_young_buckets_redirect_is_followed_within_its_server():
    def script(received: Received) -> bytes:
        if received.number == 0:
            return answer(
                307, b"<Error><Code>TemporaryRedirect</Code></Error>",
                f"Location: http://localhost:{server.port}/b/k",
                "x-amz-bucket-region: us-west-2",
            )  # fmt: skip
        return answer(200, b"", 'ETag: "e"')

    with serving(script) as server:
        endpoint = parse_endpoint(server.url, region="us-east-1")
        with connect(endpoint, FixedCredentials(Keys("AKIA", "secret"))) as sender:
            assert sender.send(Request("PUT", "b", "k", body=b"x")).status == 200
    assert "/us-west-2/s3/" in server.received[1].head
    assert server.received[1].body == b"x"


@pytest.mark.parametrize(
    "location",
    [
        "https://thief.example.org/b/k",
        "http://s3.eu-west-1.amazonaws.com/b/k",
        "https://s3.amazonaws.com.example.org/b/k",
        "",
    ],
)
def test_a_redirect_elsewhere_is_not_followed(location: str):
    endpoint = parse_endpoint("https://s3.amazonaws.com", region="us-east-1")
    assert endpoint.find_redirected(location, "b") is None


def test_a_redirect_to_a_region_is_followed():
    endpoint = parse_endpoint("https://s3.amazonaws.com", region="us-east-1")
    found = endpoint.find_redirected("https://b.s3.us-west-2.amazonaws.com/k", "b")
    assert found is not None
    assert (found[0].host, found[2]) == ("b.s3.us-west-2.amazonaws.com", "")


@pytest.mark.parametrize(
    "head",
    [
        'HTTP/1.1 200 OK\r\nETag:"e"\r\nTransfer-Encoding:chunked\r\n\r\n',
        'HTTP/1.1 200 OK\r\nETag :  "e" \r\ntransfer-encoding: \t gzip, chunked \r\n\r\n',
        'HTTP/1.1 200 OK\r\nETag:\r\n  "e"\r\nTransfer-Encoding:\r\n\tchunked\r\n\r\n',
        (
            'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\netag: "e"\r\n'
            "TRANSFER-ENCODING: Chunked\r\nConnection: keep-alive, Close\r\n\r\n"
        ),
    ],
    ids=["no blank", "blanks", "folded", "continue"],
)
def test_a_head_is_read_as_rfc_9112_allows_it(head: str):
    body = b"4\r\nwhol\r\n1\r\ne\r\n0\r\n\r\n"
    with serving(lambda _: head.encode() + body) as server:
        endpoint = parse_endpoint(server.url, region="us-east-1")
        with connect(endpoint, FixedCredentials(Keys("AKIA", "secret"))) as sender:
            for _ in range(2):
                said = sender.send(Request("GET", "b", "k"))
                assert (said.body, said.headers["etag"]) == (b"whole", '"e"')
    assert server.connections == (2 if "Close" in head else 1)
