"""Nobody drives the embedded AWS without its key: no web page, no guesser, no other program."""

from __future__ import annotations

import http.client
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.embedded.conftest import aws_of
from twobuckets.pipeline import cors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from twobuckets.aws.clients import Aws
    from twobuckets.local import Server

BUCKET = "guarded"

CALLS: dict[str, Callable[[Aws], object]] = {
    "s3": lambda aws: aws.s3.list_buckets(),
    "s3 head": lambda aws: aws.s3.head_bucket(Bucket=BUCKET),
    "s3 put": lambda aws: aws.s3.put_object(Bucket=BUCKET, Key="k", Body=b"1"),
    "lambda": lambda aws: aws.functions.list_functions(),
    "logs": lambda aws: aws.logs.describe_log_groups(),
    "cloudformation": lambda aws: aws.cloudformation.list_stacks(),
    "sqs": lambda aws: aws.sqs.list_queues(),
    "iam": lambda aws: aws.iam.list_roles(),
    "sts": lambda aws: aws.sts.get_caller_identity(),
    "cloudwatch": lambda aws: aws.cloudwatch.list_metrics(),
}


@pytest.fixture
def guarded(embedded: Aws) -> Aws:
    embedded.s3.create_bucket(Bucket=BUCKET)
    return embedded


def ask(
    server: Server, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Send a request as it stands, without boto3's help."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


def test_every_service_answers_the_root_key(guarded: Aws):
    for call in CALLS.values():
        call(guarded)


def require_refused(aws: Aws) -> None:
    """Make every call and see each refused for its key or its signature."""
    for service, call in CALLS.items():
        with pytest.raises(ClientError) as caught:
            call(aws)
        answer = caught.value.response
        # CloudWatch Logs answers a bad signature with 400, as on AWS.
        assert (
            answer["ResponseMetadata"]["HTTPStatusCode"] == 403
            or answer["Error"]["Code"] == "InvalidSignatureException"
        ), (service, answer)


def test_a_wrong_secret_is_refused_by_every_service(guarded: Aws, embedded_server: Server):
    require_refused(aws_of(replace(embedded_server, secret_key="not-the-secret")))


@pytest.mark.parametrize(
    ("access_key", "secret_key"),
    [("test", "test"), ("000000000000", "test"), ("123456789012", "test"), ("AKIAOTHER", "x")],
)
def test_the_keys_that_emulators_accept_are_refused(
    guarded: Aws, embedded_server: Server, access_key: str, secret_key: str
):
    require_refused(aws_of(replace(embedded_server, access_key=access_key, secret_key=secret_key)))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        f"/{BUCKET}/key",
        f"/{BUCKET}?policy",
        "/_ministack/reset",
        "/_ministack/config",
        "/_ministack/health",
        "/%5fministack/reset",
        "/_localstack/health",
        "/health",
        "/2015-03-31/functions/",
        "/_aws/sqs/messages",
        "/000000000000/queue",
        "/latest/meta-data/",
    ],
)
def test_unsigned_requests_are_refused_on_every_path(
    guarded: Aws, embedded_server: Server, path: str
):
    for method in ("GET", "PUT", "POST", "DELETE", "HEAD", "OPTIONS"):
        status, headers, _ = ask(embedded_server, method, path)
        assert status == 403, method
        assert not [name for name in headers if name.lower().startswith("access-control")]


def test_a_cross_origin_request_is_refused_even_when_it_is_signed(
    guarded: Aws, embedded_server: Server
):
    guarded.s3.put_bucket_cors(
        Bucket=BUCKET,
        CORSConfiguration={
            "CORSRules": [{"AllowedMethods": ["PUT", "GET"], "AllowedOrigins": ["*"]}]
        },
    )
    url = guarded.s3.generate_presigned_url("put_object", {"Bucket": BUCKET, "Key": "k"})
    path = url.partition(str(embedded_server.port))[2]
    assert ask(embedded_server, "PUT", path, b"1")[0] == 200
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Host": "evil.example"},
        {"Host": f"evil.example:{embedded_server.port}"},
    ):
        status, answered, _ = ask(embedded_server, "PUT", path, b"2", **headers)
        assert status == 403, headers
        assert "access-control-allow-origin" not in answered
    preflight = {"Origin": "http://evil.example", "Access_Control_Request_Method": "PUT"}
    assert ask(embedded_server, "OPTIONS", path, b"", **preflight)[0] == 403
    assert guarded.s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"1"


PAGE = "http://localhost:5173"
EVIL = "http://evil.example"


@pytest.fixture
def with_page(guarded: Aws) -> Aws:
    """A bucket whose rules name a page's origin, and another bucket without rules."""
    rule: Any = cors.rule_for([PAGE, "https://*.a.example"])
    guarded.s3.put_bucket_cors(Bucket=BUCKET, CORSConfiguration={"CORSRules": [rule]})
    guarded.s3.create_bucket(Bucket="other")
    return guarded


def signed(aws: Aws, server: Server, operation: str, bucket: str = BUCKET, **more: object) -> str:
    url = aws.s3.generate_presigned_url(operation, {"Bucket": bucket, "Key": "k", **more})
    return url.partition(str(server.port))[2]


def from_page(origin: str = PAGE, **more: str) -> dict[str, str]:
    return {"Origin": origin, "Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "cors", **more}


def preflight(method: str, origin: str = PAGE) -> dict[str, str]:
    wanted = ",".join(cors.SIGNED_HEADERS)
    return from_page(
        origin,
        Access_Control_Request_Method=method,
        Access_Control_Request_Headers=wanted,
    )


def test_a_page_of_a_configured_origin_uploads_in_one_piece(
    with_page: Aws, embedded_server: Server
):
    path = signed(with_page, embedded_server, "put_object")
    for method in cors.METHODS:
        status, answered, _ = ask(embedded_server, "OPTIONS", path, b"", **preflight(method))
        assert (status, answered["access-control-allow-origin"]) == (200, PAGE), method
        assert method in answered["access-control-allow-methods"]
    status, answered, _ = ask(embedded_server, "PUT", path, b"1", **from_page())
    assert (status, answered["access-control-allow-origin"]) == (200, PAGE)
    assert "ETag" in answered["access-control-expose-headers"]
    assert with_page.s3.get_object(Bucket=BUCKET, Key="k")["Body"].read() == b"1"


def test_a_page_of_a_configured_origin_lists_and_aborts_an_upload_in_parts(
    with_page: Aws, embedded_server: Server
):
    upload = with_page.s3.create_multipart_upload(Bucket=BUCKET, Key="k")["UploadId"]
    for operation, method, expected in (
        ("list_parts", "GET", 200),
        ("abort_multipart_upload", "DELETE", 204),
    ):
        path = signed(with_page, embedded_server, operation, UploadId=upload)
        status, answered, _ = ask(embedded_server, method, path, b"", **from_page())
        assert (status, answered["access-control-allow-origin"]) == (expected, PAGE)


def test_a_page_of_a_configured_origin_asks_what_became_of_a_key(
    with_page: Aws, embedded_server: Server
):
    with_page.s3.put_object(Bucket=BUCKET, Key="k", Body=b"1")
    url = with_page.s3.generate_presigned_url("list_objects_v2", {"Bucket": BUCKET, "Prefix": "k"})
    path = url.partition(str(embedded_server.port))[2]
    assert ask(embedded_server, "OPTIONS", path, b"", **preflight("GET"))[0] == 200
    status, answered, body = ask(embedded_server, "GET", path, b"", **from_page())
    assert (status, answered["access-control-allow-origin"]) == (200, PAGE)
    assert b"<Key>k</Key>" in body


def test_a_page_of_a_configured_origin_posts_its_form(with_page: Aws, embedded_server: Server):
    form = with_page.s3.generate_presigned_post(BUCKET, "form")
    assert ask(embedded_server, "OPTIONS", f"/{BUCKET}", b"", **preflight("POST"))[0] == 200
    status, answered, _ = post_form(embedded_server, form["fields"], b"1", **from_page())
    assert (status, answered["access-control-allow-origin"]) == (204, PAGE)
    assert post_form(embedded_server, {"key": "unsigned"}, b"2", **from_page())[0] == 403
    assert post_form(embedded_server, form["fields"], b"3", **from_page(EVIL))[0] == 403
    assert with_page.s3.get_object(Bucket=BUCKET, Key="form")["Body"].read() == b"1"


def test_a_page_of_a_configured_origin_gets_nothing_else(with_page: Aws, embedded_server: Server):
    server = embedded_server
    put = signed(with_page, server, "put_object")
    elsewhere = signed(with_page, server, "put_object", "other")
    listing = with_page.s3.generate_presigned_url("list_objects_v2", {"Bucket": BUCKET})
    listing = listing.partition(str(server.port))[2]
    versions = listing.replace("list-type=2", "versions=")
    policy = with_page.s3.generate_presigned_url("get_bucket_policy", {"Bucket": BUCKET})
    policy = policy.partition(str(server.port))[2]
    tried = [
        ("PUT", put, from_page(EVIL)),
        ("PUT", put, from_page("null")),
        ("PUT", put, from_page("https://b.a.example")),
        ("PUT", put, from_page(PAGE.replace("localhost", "localhost.evil"))),
        ("PUT", put.partition("?")[0], from_page()),
        ("PUT", put.replace("X-Amz-Signature=", "X-Amz-Signature=0"), from_page()),
        ("PUT", put, from_page(X_Amz_Target="AWSLambda.Invoke")),
        ("PATCH", put, from_page()),
        ("PUT", put, {"Sec_Fetch_Site": "cross-site"}),
        ("PUT", elsewhere, from_page()),
        ("PUT", put, from_page(Authorization=f"AWS {server.access_key}:x")),
        ("PUT", put.replace("X-Amz-Signature=", "X-Amz-Other="), from_page()),
        ("PUT", put.replace("X-Amz-Credential=", "X-Amz-Other="), from_page()),
        ("GET", versions, from_page()),
        ("GET", policy, from_page()),
        ("GET", "/", from_page()),
        ("POST", "/", from_page()),
        ("POST", f"/{BUCKET}", from_page()),
        ("GET", "/2015-03-31/functions/", from_page()),
        ("POST", "/_ministack/reset", from_page()),
        ("OPTIONS", "/", preflight("POST")),
        ("OPTIONS", f"/{BUCKET}", preflight("GET")),
        ("OPTIONS", f"/{BUCKET}/k", preflight("PUT")),
        ("OPTIONS", "/other/k", preflight("PUT")),
        ("OPTIONS", elsewhere, preflight("PUT")),
        ("OPTIONS", put, preflight("PATCH")),
        ("OPTIONS", put, preflight("PUT", EVIL)),
    ]
    for method, path, headers in tried:
        status, answered, _ = ask(server, method, path, b"2" if method == "PUT" else b"", **headers)
        assert status == 403, (method, path, headers)
        if headers.get("Origin") != PAGE:
            assert "access-control-allow-origin" not in answered, (method, path, headers)
    assert "Contents" not in with_page.s3.list_objects_v2(Bucket=BUCKET)
    assert "Contents" not in with_page.s3.list_objects_v2(Bucket="other")


@pytest.fixture
def api(guarded: Aws, embedded_server: Server) -> Iterator[str]:
    """An HTTP API that answers nothing but that it has no such route."""
    client: Any = boto3.client(
        "apigatewayv2",
        endpoint_url=embedded_server.endpoint_url,
        region_name=embedded_server.region,
        aws_access_key_id=embedded_server.access_key,
        aws_secret_access_key=embedded_server.secret_key,
    )
    made = client.create_api(Name="page", ProtocolType="HTTP")["ApiId"]
    client.create_stage(ApiId=made, StageName="$default", AutoDeploy=True)
    yield made
    client.delete_api(ApiId=made)


def test_a_page_has_a_port_of_its_own_and_nothing_but_its_api_is_behind_it(
    api: str, embedded_server: Server
):
    page = replace(embedded_server, port=embedded_server.page_port)
    own = f"http://127.0.0.1:{page.port}"
    link = {
        "Sec_Fetch_Site": "cross-site",
        "Sec_Fetch_Mode": "navigate",
        "Sec_Fetch_Dest": "document",
    }
    at = f"/{api}/"
    for method, path, headers in (
        ("GET", at, {}),
        # From a mail, by hand, and from the page itself.
        ("GET", at, link),
        ("GET", at, {"Sec_Fetch_Site": "none"}),
        ("POST", f"{at}api/about", {"Origin": own, "Sec_Fetch_Site": "same-origin"}),
        ("GET", at, {"Host": f"localhost:{page.port}"}),
        # What leads to other services is taken away.
        ("POST", f"{at}?Action=ListUsers&Version=2010-05-08", {"Origin": own}),
        ("POST", at, {"Origin": own, "X_Amz_Target": "AWSLambda.Invoke"}),
    ):
        status, _, body = ask(page, method, path, b"", **headers)
        assert (status, b"Not Found" in body) == (404, True), (method, path, headers, body)
    refused: list[tuple[str, str, dict[str, str]]] = [
        ("GET", "/", {}),
        ("GET", f"/{BUCKET}", {}),
        ("GET", f"/{BUCKET}/k", {}),
        ("PUT", f"/{BUCKET}/k", {}),
        ("GET", "/unknown/", {}),
        ("POST", "/_ministack/reset", {}),
        ("GET", f"/_aws/execute-api/{api}/$default/", {}),
        ("GET", f"{at}../{BUCKET}/k", {}),
        ("GET", f"{at}%2e%2e/{BUCKET}/k", {}),
        ("GET", f"{at}/{BUCKET}", {}),
        ("GET", f"{at}_ministack/health", {}),
        ("PUT", at, {}),
        ("DELETE", at, {}),
        ("OPTIONS", at, {"Origin": EVIL}),
        ("GET", at, {"Origin": EVIL}),
        ("POST", at, {"Origin": EVIL}),
        ("POST", at, {"Origin": "null"}),
        ("POST", at, {"Origin": embedded_server.endpoint_url}),
        ("GET", at, {**link, "Sec_Fetch_Dest": "iframe"}),
        ("GET", at, {**link, "Sec_Fetch_Mode": "no-cors"}),
        ("POST", at, link),
        ("GET", at, {"Host": "evil.example"}),
        ("GET", at, {"Host": f"evil.example:{page.port}"}),
        ("GET", at, {"Host": f"{api}.execute-api.127.0.0.1:{page.port}"}),
        ("GET", at, {"Host": f"127.0.0.1:{embedded_server.port}"}),
    ]
    for method, path, headers in refused:
        status, answered, body = ask(page, method, path, b"", **headers)
        assert (status, b"AccessDenied" in body) == (403, True), (method, path, headers, body)
        assert "access-control-allow-origin" not in answered
    # And the emulator's own port serves no page.
    assert ask(embedded_server, "GET", at)[0] == 403


def test_a_presigned_url_is_good_for_what_it_signs_and_nothing_else(
    guarded: Aws, embedded_server: Server
):
    url = guarded.s3.generate_presigned_url("put_object", {"Bucket": BUCKET, "Key": "mine"})
    path = url.partition(str(embedded_server.port))[2]
    assert ask(embedded_server, "PUT", path, b"1")[0] == 200
    for method, tried in (
        ("PUT", path.replace("mine", "other")),
        ("DELETE", path),
        ("GET", path),
        ("PUT", path.replace("X-Amz-Signature=", "X-Amz-Signature=0")),
        ("POST", path.replace("/guarded/mine", "/")),
        ("GET", path.replace("/guarded/mine", "/2015-03-31/functions/")),
        ("POST", path.replace("/guarded/mine", "/_ministack/reset")),
    ):
        assert ask(embedded_server, method, tried)[0] == 403, (method, tried)


def test_a_key_id_without_its_secret_is_worth_nothing(guarded: Aws, embedded_server: Server):
    # Every presigned URL shows the key id.
    scope = f"Credential={embedded_server.access_key}/20260101/us-east-1/lambda/aws4_request"
    forms = [
        f"AWS4-HMAC-SHA256 {scope}, SignedHeaders=host, Signature=00",
        f"AWS4-HMAC-SHA256 {scope}",
        f"AWS4-ECDSA-P256-SHA256 {scope}, SignedHeaders=host, Signature=00",
        f"AWS {embedded_server.access_key}:c2lnbmF0dXJl",
    ]
    for form in forms:
        for method, path in (
            ("GET", "/2015-03-31/functions/"),
            ("GET", f"/{BUCKET}"),
            ("POST", "/"),
            ("POST", "/_ministack/config"),
            ("GET", "/health"),
        ):
            status, _, body = ask(embedded_server, method, path, Authorization=form)
            if path == "/health":
                # The emulator's health page; it says nothing that is not in its documentation.
                continue
            assert status in (400, 403), (form, path, body)


def post_form(
    server: Server, fields: dict[str, str], content: bytes, **headers: str
) -> tuple[int, http.client.HTTPMessage, bytes]:
    boundary = "boundary-of-the-form"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
    body = ("".join(parts) + head).encode() + content + f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/form-data; boundary={boundary}"
    return ask(server, "POST", f"/{BUCKET}", body, Content_Type=kind, **headers)


def test_a_form_upload_needs_a_signed_policy(guarded: Aws, embedded_server: Server):
    def post(fields: dict[str, str], content: bytes) -> int:
        return post_form(embedded_server, fields, content)[0]

    signed = guarded.s3.generate_presigned_post(BUCKET, "form")
    assert post(signed["fields"], b"1") == 204
    assert post({"key": "unsigned"}, b"2") == 403
    assert post({**signed["fields"], "x-amz-signature": "0" * 64}, b"3") == 403
    assert post({**signed["fields"], "key": "other"}, b"4") == 403
    # A form that goes elsewhere than to a bucket does not reach the emulator.
    kind = "multipart/form-data; boundary=x"
    for path, more in (
        ("/", {}),
        ("/health", {}),
        ("/oauth2/token", {}),
        ("/2015-03-31/functions/", {}),
        (f"/{BUCKET}/form", {}),
        (f"/{BUCKET}?Action=ListUsers", {}),
        (f"/{BUCKET}", {"X_Amz_Target": "DynamoDB_20120810.ListTables"}),
        (f"/{BUCKET}", {"Authorization": "Bearer x"}),
    ):
        status, _, body = ask(embedded_server, "POST", path, b"--x--", Content_Type=kind, **more)
        assert (status, b"names no access key" in body) == (403, True), (path, more, body)
    listed = guarded.s3.list_objects_v2(Bucket=BUCKET)["Contents"]
    assert [item["Key"] for item in listed] == ["form"]


def test_a_session_can_do_what_its_policy_allows_and_no_more(guarded: Aws, embedded_server: Server):
    allowed = {
        "Version": "2012-10-17",
        "Statement": {
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": f"arn:aws:s3:::{BUCKET}/mine",
        },
    }
    token = guarded.sts.get_federation_token(Name="someone", Policy=json.dumps(allowed))
    session = boto3.client(
        "s3",
        endpoint_url=embedded_server.endpoint_url,
        region_name="us-east-1",
        aws_access_key_id=token["Credentials"]["AccessKeyId"],
        aws_secret_access_key=token["Credentials"]["SecretAccessKey"],
        aws_session_token=token["Credentials"]["SessionToken"],
        config=Config(s3={"addressing_style": "path"}),
    )
    session.put_object(Bucket=BUCKET, Key="mine", Body=b"1")
    for refused in (
        lambda: session.put_object(Bucket=BUCKET, Key="other", Body=b"1"),
        lambda: session.list_buckets(),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()


def test_the_server_listens_on_loopback_only(embedded_server: Server):
    listening = []
    with open("/proc/net/tcp", encoding="ascii") as table:
        for line in list(table)[1:]:
            address, state = line.split()[1], line.split()[3]
            ports = (embedded_server.port, embedded_server.page_port)
            if state == "0A" and int(address.partition(":")[2], 16) in ports:
                listening.append(address.partition(":")[0])
    assert listening == ["0100007F"] * 2
