"""Signs S3 requests with the keys of the moment, by S3's clock, for where a bucket really is.

Everything that is not a hot loop is signed by botocore.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from http import HTTPStatus
from typing import NamedTuple

from twobuckets import sigv4
from twobuckets.aws.codes import Meaning, meaning_of
from twobuckets.s3.engine.bodies import BLOCK_BYTES
from twobuckets.s3.engine.records import (
    Credentials,
    Endpoint,
    Request,
    Response,
    ServerAddress,
    SignedRequest,
)

UNSIGNED_TRAILED = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()


class _Place(NamedTuple):
    """Where a bucket is, how its host is named, and the region that signatures are for."""

    origin: ServerAddress
    host: str
    prefix: str
    region: str


class SigV4Signer:
    """Signs requests for one endpoint with the keys of the moment.

    `clock` gives seconds since the epoch. When S3 says that this machine's clock is wrong, the
    signer goes by S3's clock from then on.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        credentials: Credentials,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.endpoint = endpoint
        self._credentials = credentials
        self._clock = clock
        self._skew = 0.0
        self._second = -1
        self._stamp = ""
        self._places: dict[str, _Place] = {}

    @property
    def signs_payload(self) -> bool:
        """Say whether a body is hashed before it is signed."""
        return self.endpoint.signs_payload

    def sign(self, request: Request) -> SignedRequest:
        """Sign a request with headers, for sending within the next 15 minutes.

        Raises ValueError for a header that would break out of its line.
        """
        stamp = self._read_clock()
        keys = self._credentials.keys()
        origin, host, prefix, region = self._find_place(request.bucket)
        payload = self._hash_payload(request)
        sent = [
            *request.headers,
            ("host", host),
            ("x-amz-content-sha256", payload),
            ("x-amz-date", stamp),
        ]
        if keys.token is not None:
            sent.append(("x-amz-security-token", keys.token))
        canonical, names = sigv4.canonical_headers(sent)
        path = prefix + sigv4.encode_path(request.key)
        query = sigv4.encode_query(request.query) if request.query else ""
        scope, signature = sigv4.seal(
            keys.secret_key,
            region,
            stamp,
            f"{request.method}\n{path}\n{query}\n{canonical}\n{names}\n{payload}",
        )
        credential = f"{keys.access_key}/{scope}"
        proof = f"Credential={credential}, SignedHeaders={names}, Signature={signature}"
        sent.append(("authorization", f"AWS4-HMAC-SHA256 {proof}"))
        target = f"{path}?{query}" if query else path
        made_with = keys, region, self._skew
        return SignedRequest(request.method, origin, target, tuple(sent), made_with)

    def presign(self, request: Request, *, expires_in: timedelta) -> str:
        """Return a URL that performs the request for whoever has it: it is a secret.

        Every header of the request is bound into the signature, so the client has to send exactly
        these. Raises ValueError if it is to live longer than the seven days that AWS allows.
        """
        origin, host, prefix, region = self._find_place(request.bucket)
        return sigv4.presign(
            request.method,
            f"{'https' if origin.tls else 'http'}://{host}",
            prefix + sigv4.encode_path(request.key),
            query=request.query,
            headers=request.headers,
            keys=self._credentials.keys(),
            region=region,
            stamp=self._read_clock(),
            expires_seconds=int(expires_in.total_seconds()),
        )

    def sign_form(
        self,
        bucket: str,
        fields: Mapping[str, str],
        conditions: list[list[str | int]],
        *,
        expires_in: timedelta,
    ) -> tuple[str, dict[str, str]]:
        """Return a URL and all the fields of a form that uploads to a bucket with one POST.

        The form has to send `fields` exactly and to fulfil `conditions` (S3 API reference, "POST
        Policy"). Raises ValueError if it is to live longer than seven days.
        """
        if not 1 <= expires_in.total_seconds() <= sigv4.LONGEST_EXPIRY_SECONDS:
            raise ValueError("a presigned form lives between one second and seven days")
        stamp = self._read_clock()
        keys = self._credentials.keys()
        origin, host, prefix, region = self._find_place(bucket)
        scope = f"{stamp[:8]}/{region}/s3/aws4_request"
        form = {
            **fields,
            "x-amz-algorithm": "AWS4-HMAC-SHA256",
            "x-amz-credential": f"{keys.access_key}/{scope}",
            "x-amz-date": stamp,
        }
        if keys.token is not None:
            form["x-amz-security-token"] = keys.token
        ends = time.gmtime(self._second + int(expires_in.total_seconds()))
        policy = {
            "expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", ends),
            "conditions": [
                {"bucket": bucket},
                *({name: value} for name, value in form.items()),
                *conditions,
            ],
        }
        # A bare $ begins a variable of S3's policy language, whatever JSON makes of it.
        text = json.dumps(policy).replace("$", "\\u0024")
        form["policy"] = base64.b64encode(text.encode()).decode()
        key = sigv4.derive_key(keys.secret_key, stamp[:8], region)
        form["x-amz-signature"] = hmac.digest(key, form["policy"].encode(), "sha256").hex()
        return f"{'https' if origin.tls else 'http'}://{host}{prefix}/", form

    def learn(self, request: Request, signed: SignedRequest, answer: Response) -> bool:
        """Take S3's clock, new keys or the bucket's region; True if signing again may help."""
        code = answer.code
        if answer.status == HTTPStatus.TEMPORARY_REDIRECT:
            return self._follow(request, answer)
        region = answer.headers.get("x-amz-bucket-region") if answer.status in {301, 400} else None
        means = meaning_of(code)
        is_about_clock = means is Meaning.WRONG_CLOCK or (answer.status == 403 and not code)
        if not (region or is_about_clock or means is Meaning.EXPIRED):
            return False
        place = self._find_place(request.bucket)
        if signed.made_with != (self._credentials.keys(), place.region, self._skew):
            # Another request of the same moment was refused first.
            return True
        if region and region != place.region:
            endpoint = self.endpoint.in_region(region)
            self._places[request.bucket] = _Place(*endpoint.find_origin(request.bucket), region)
            return True
        if is_about_clock:
            return self._adopt_clock(answer)
        return means is Meaning.EXPIRED and self._credentials.refresh()

    def _follow(self, request: Request, answer: Response) -> bool:
        found = self.endpoint.find_redirected(answer.headers.get("location", ""), request.bucket)
        if found is None:
            return False
        region = (
            answer.headers.get("x-amz-bucket-region") or self._find_place(request.bucket).region
        )
        self._places[request.bucket] = _Place(*found, region)
        return True

    def _adopt_clock(self, answer: Response) -> bool:
        from email.utils import parsedate_to_datetime

        try:
            theirs = parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
        except ValueError:
            return False
        skew = theirs - self._clock()
        # HEAD has no body and so no code: a skew beyond AWS's 15 minutes tells the same.
        if abs(skew - self._skew) < (60 if answer.code else 15 * 60):
            return False
        self._skew = skew
        self._second = -1
        return True

    def _read_clock(self) -> str:
        second = int(self._clock() + self._skew)
        if second != self._second:
            self._stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(second))
            self._second = second
        return self._stamp

    def _find_place(self, bucket: str) -> "_Place":
        place = self._places.get(bucket)
        if place is None:
            endpoint = self.endpoint
            place = _Place(*endpoint.find_origin(bucket), endpoint.region)
            self._places[bucket] = place
        return place

    def _hash_payload(self, request: Request) -> str:
        if not self.signs_payload:
            return UNSIGNED_TRAILED if request.trails else sigv4.UNSIGNED_PAYLOAD
        if not request.body:
            return EMPTY_SHA256
        if isinstance(request.body, bytes):
            return hashlib.sha256(request.body).hexdigest()
        digest = hashlib.sha256()
        for block in request.body.iter_blocks(memoryview(bytearray(BLOCK_BYTES))):
            digest.update(block)
        return digest.hexdigest()
