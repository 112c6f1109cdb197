"""The signer against AWS's published examples and against botocore, on generated requests."""

import hmac
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as BotocoreCredentials
from hypothesis import given
from hypothesis import strategies as st

from tests.s3.credentials import FixedCredentials
from twobuckets.s3.engine import (
    CRC64NVME,
    Keys,
    Request,
    Response,
    SigV4Signer,
    parse_endpoint,
)
from twobuckets.s3.engine.checksums import Trailer
from twobuckets.sigv4 import derive_key

EXAMPLE_KEYS = Keys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
EXAMPLE_TIME = datetime(2013, 5, 24, tzinfo=UTC)
GET = Request("GET", "b", "k")


def signer_at(url, *, keys=EXAMPLE_KEYS, region="us-east-1", at=EXAMPLE_TIME, path_style=None):
    endpoint = parse_endpoint(url, region=region, path_style=path_style)
    return SigV4Signer(endpoint, FixedCredentials(keys), clock=at.timestamp)


# "Authenticating Requests: Using the Authorization Header", S3 API reference.
@pytest.mark.parametrize(
    ("request_", "signature"),
    [
        (
            Request("GET", "examplebucket", "test.txt", headers=(("range", "bytes=0-9"),)),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
        ),
        (
            Request(
                "PUT",
                "examplebucket",
                "test$file.text",
                headers=(
                    ("date", "Fri, 24 May 2013 00:00:00 GMT"),
                    ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
                ),
                body=b"Welcome to Amazon S3.",
            ),
            "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
        ),
        (
            Request("GET", "examplebucket", query=(("lifecycle", ""),)),
            "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
        ),
        (
            Request("GET", "examplebucket", query=(("prefix", "J"), ("max-keys", "2"))),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
        ),
    ],
    ids=["range", "put", "lifecycle", "list"],
)
def test_the_signature_is_that_of_the_published_example(request_, signature):
    signed = signer_at("http://s3.amazonaws.com").sign(request_)
    authorization = dict(signed.headers)["authorization"]
    assert authorization.endswith(f"Signature={signature}")


def test_the_presigned_url_is_that_of_the_published_example():
    # "Authenticating Requests: Using Query Parameters", S3 API reference.
    url = signer_at("https://s3.amazonaws.com").presign(
        Request("GET", "examplebucket", "test.txt"), expires_in=timedelta(days=1)
    )
    assert url.startswith("https://examplebucket.s3.amazonaws.com/test.txt?")
    expected = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404"
    assert parse_qs(urlsplit(url).query)["X-Amz-Signature"] == [expected]


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
header_values = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=30
).map(str.strip)
header_names = st.one_of(
    st.sampled_from(
        [
            "content-type",
            "content-md5",
            "cache-control",
            "if-none-match",
            "range",
            "x-amz-acl",
            "x-amz-checksum-crc64nvme",
            "x-amz-copy-source",
            "x-amz-tagging",
            "user-agent",
            "expect",
        ]
    ),
    st.from_regex(r"x-amz-meta-[a-z0-9_.-]{1,12}", fullmatch=True),
)
query_names = st.one_of(
    st.sampled_from(["uploads", "uploadId", "partNumber", "prefix", "list-type", "versionId"]),
    st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1, max_size=8),
)
requests = st.builds(
    Request,
    method=st.sampled_from(["GET", "PUT", "POST", "DELETE", "HEAD"]),
    bucket=st.sampled_from(["staging", "my.dotted.bucket", "b-1"]),
    key=texts,
    query=st.dictionaries(query_names, texts, max_size=4).map(lambda d: tuple(d.items())),
    headers=st.dictionaries(header_names, header_values, max_size=5).map(
        lambda d: tuple(d.items())
    ),
    body=st.binary(max_size=64),
)
signers = st.builds(
    signer_at,
    st.sampled_from(
        ["https://s3.eu-west-1.amazonaws.com", "http://127.0.0.1:9000", "http://s3.example.org"]
    ),
    keys=st.sampled_from([EXAMPLE_KEYS, Keys("AKIA", "secret", "FwoGZXIvYXdzEJr//+=")]),
    region=st.sampled_from(["us-east-1", "eu-central-1"]),
    at=st.integers(946684800, 3786912000).map(lambda s: datetime.fromtimestamp(s, UTC)),
    path_style=st.sampled_from([None, True, False]),
)


def as_botocore(signer, request, at):
    """Describe the same request in botocore's terms, its target quoted as botocore would."""
    origin, host, prefix = signer.endpoint.find_origin(request.bucket)
    path = prefix + quote("/" + request.key, safe="/~")
    pairs = [f"{quote(n, safe='-_.~')}={quote(v, safe='-_.~')}" for n, v in request.query]
    scheme = "https" if origin.tls else "http"
    url = f"{scheme}://{host}{path}" + (f"?{'&'.join(pairs)}" if pairs else "")
    theirs = AWSRequest(request.method, url, headers=dict(request.headers))
    theirs.context["timestamp"] = at.strftime("%Y%m%dT%H%M%SZ")
    return theirs


def botocore_keys(keys):
    return BotocoreCredentials(keys.access_key, keys.secret_key, keys.token)


class AtTime(S3SigV4Auth):
    """botocore's own signer, with the time and the payload rule given."""

    def __init__(self, keys, region, payload):
        super().__init__(botocore_keys(keys), "s3", region)
        self.payload_text = payload

    def payload(self, request):
        return self.payload_text

    def sign(self, request):
        self._modify_request_before_signing(request)  # type: ignore[attr-defined]
        text = self.string_to_sign(request, self.canonical_request(request))
        return self.signature(text, request)


@given(signers, requests)
def test_every_request_is_signed_as_botocore_signs_it(signer, request_):
    at = datetime.fromtimestamp(signer._clock(), UTC)
    signed = signer.sign(request_)
    headers = dict(signed.headers)
    theirs = as_botocore(signer, request_, at)
    keys = signer._credentials.keys()
    auth = AtTime(keys, signer.endpoint.region, headers["x-amz-content-sha256"])
    assert headers["authorization"].endswith(f"Signature={auth.sign(theirs)}")
    assert headers["x-amz-content-sha256"] == theirs.headers["X-Amz-Content-SHA256"]
    assert signed.target.split("?")[0] == urlsplit(theirs.url).path


def test_a_body_with_a_trailing_checksum_is_signed_as_botocore_signs_it():
    endpoint = parse_endpoint("https://s3.eu-west-1.amazonaws.com", region="eu-west-1")
    signer = SigV4Signer(endpoint, FixedCredentials(EXAMPLE_KEYS))
    request = Request("PUT", "b", "k", body=b"abc", checksum=CRC64NVME, trails=True)
    request = request.with_headers(*Trailer(CRC64NVME, 3).headers)
    theirs = as_botocore(signer, request, datetime.now(UTC))
    theirs.context["checksum"] = {"request_algorithm": {"in": "trailer"}}
    payload = S3SigV4Auth(botocore_keys(EXAMPLE_KEYS), "s3", "eu-west-1").payload(theirs)
    signed = dict(signer.sign(request).headers)
    assert signed["x-amz-content-sha256"] == payload
    names = signed["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"content-encoding", "x-amz-decoded-content-length", "x-amz-trailer"} <= {*names}


class QueryAtTime(S3SigV4QueryAuth):
    """botocore's own query signer, at the time given."""

    def sign(self, request):
        self._modify_request_before_signing(request)  # type: ignore[attr-defined]
        text = self.string_to_sign(request, self.canonical_request(request))
        return self.signature(text, request)


@given(signers, requests, st.integers(1, 604_800))
def test_every_url_is_presigned_as_botocore_presigns_it(signer, request_, seconds):
    at = datetime.fromtimestamp(signer._clock(), UTC)
    url = signer.presign(request_, expires_in=timedelta(seconds=seconds))
    theirs = as_botocore(signer, request_, at)
    auth = QueryAtTime(
        botocore_keys(signer._credentials.keys()), "s3", signer.endpoint.region, seconds
    )
    assert url.endswith(f"&X-Amz-Signature={auth.sign(theirs)}")


def test_a_presigned_url_cannot_outlive_seven_days():
    with pytest.raises(ValueError, match="seven days"):
        signer_at("https://s3.amazonaws.com").presign(
            Request("PUT", "b", "k"), expires_in=timedelta(days=7, seconds=1)
        )


def test_a_form_is_signed_for_the_region_that_the_bucket_was_found_in():
    signer = signer_at("https://s3.amazonaws.com")
    elsewhere = Response(301, b"HTTP/1.1 301 No\r\nx-amz-bucket-region: eu-west-3", b"")
    assert learns(signer, elsewhere)
    url, form = signer.sign_form(GET.bucket, {"key": "k"}, [], expires_in=timedelta(hours=1))
    scope = form["x-amz-credential"].split("/")[1:]
    assert ("eu-west-3" in url, scope[1]) == (True, "eu-west-3")
    key = derive_key(EXAMPLE_KEYS.secret_key, scope[0], "eu-west-3")
    signature = hmac.digest(key, form["policy"].encode(), "sha256").hex()
    assert form["x-amz-signature"] == signature


@pytest.mark.parametrize("value", ["a\r\nx-amz-acl: public-read", "a\nb", "a\0b"])
def test_a_header_cannot_break_out_of_its_line(value):
    with pytest.raises(ValueError, match="line break"):
        signer_at("https://s3.amazonaws.com").sign(
            Request("PUT", "b", "k", headers=(("x-amz-meta-a", value),))
        )


def learns(signer, answer):
    return signer.learn(GET, signer.sign(GET), answer)


def refusal(code, *, date=EXAMPLE_TIME, status=403):
    head = f"HTTP/1.1 {status} No\r\nDate: {format_datetime(date, usegmt=True)}"
    body = f"<Error><Code>{code}</Code></Error>" if code else ""
    return Response(status, head.encode(), body.encode())


def test_a_wrong_clock_is_corrected_by_the_one_of_s3():
    signer = signer_at("https://s3.amazonaws.com")
    theirs = EXAMPLE_TIME + timedelta(minutes=40)
    assert learns(signer, refusal("RequestTimeTooSkewed", date=theirs))
    signed = signer.sign(Request("GET", "b", "k"))
    assert dict(signed.headers)["x-amz-date"] == "20130524T004000Z"
    assert not learns(signer, refusal("RequestTimeTooSkewed", date=theirs))


def test_a_refusal_without_words_is_taken_for_a_wrong_clock_only_if_it_is_wrong():
    signer = signer_at("https://s3.amazonaws.com")
    assert not learns(signer, refusal("", date=EXAMPLE_TIME + timedelta(minutes=2)))
    assert learns(signer, refusal("", date=EXAMPLE_TIME + timedelta(minutes=20)))


class Renewing:
    """Credentials that have one set of keys after the other."""

    def __init__(self, keys):
        self._keys = keys

    def keys(self):
        return self._keys[0]

    def refresh(self):
        del self._keys[0]
        return True


def test_expired_keys_are_renewed_and_a_denial_is_not_signed_again():
    endpoint = parse_endpoint("https://s3.amazonaws.com", region="us-east-1")
    credentials = Renewing([EXAMPLE_KEYS, Keys("AKIA2", "other", "token")])
    signer = SigV4Signer(endpoint, credentials)
    assert not learns(signer, refusal("AccessDenied"))
    assert "AKIAIOSFODNN7EXAMPLE" in dict(signer.sign(GET).headers)["authorization"]
    assert learns(signer, refusal("ExpiredToken", status=400))
    assert "AKIA2" in dict(signer.sign(GET).headers)["authorization"]


def test_what_is_known_already_is_worth_signing_again_and_asks_nobody():
    signer = signer_at("https://s3.amazonaws.com")
    early = signer.sign(GET)
    late = EXAMPLE_TIME + timedelta(minutes=40)
    assert learns(signer, refusal("RequestTimeTooSkewed", date=late))
    assert signer.learn(GET, early, refusal("RequestTimeTooSkewed", date=late))
    assert not signer.learn(GET, early, refusal("AccessDenied"))


def test_secrets_do_not_show():
    assert "secret" not in repr(Keys("AKIA", "secret", "token-secret"))
    signed = signer_at("https://s3.amazonaws.com").sign(Request("GET", "b", "k"))
    assert "Signature" not in repr(signed)


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://s3.amazonaws.com", "b.s3.eu-west-3.amazonaws.com"),
        ("https://s3.us-east-2.amazonaws.com", "b.s3.eu-west-3.amazonaws.com"),
        ("https://s3.example.org", "s3.example.org"),
    ],
)
def test_a_bucket_of_another_region_is_found_there(url, host):
    signer = signer_at(url)
    moved = Response(
        301, b"HTTP/1.1 301 Moved\r\nx-amz-bucket-region: eu-west-3", b"<Error></Error>"
    )
    assert learns(signer, moved)
    assert not learns(signer, moved)
    headers = dict(signer.sign(GET).headers)
    assert headers["host"] == host
    assert "/eu-west-3/s3/aws4_request" in headers["authorization"]
    elsewhere = dict(signer.sign(Request("GET", "other", "k")).headers)
    assert "/us-east-1/s3/aws4_request" in elsewhere["authorization"]
