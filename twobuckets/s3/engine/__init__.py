"""S3's hot path: requests by the thousand, signed here and sent over kept connections.

Everything that is not a hot loop goes through boto3; this package imports none of it.

    endpoint = parse_endpoint("https://s3.eu-west-1.amazonaws.com", region="eu-west-1")
    with connect(endpoint, credentials) as sender:
        for request, answer in sender.send_all(requests):   # in order of arrival
            if isinstance(answer, SendError): ...           # no answer, after all retries
            elif answer.ok: ...                             # any other status is the caller's

`Sender` is the only way in; what else is named here are the records that pass through it.
`records` says what is sent and what comes back, `bodies` what a request carries of a file and
`checksums` what proves it, `signing` turns a Request into a SignedRequest, `wire` speaks HTTP over
connections that `dial` opens, and behind `sender` a `flight` takes its caller's requests and gives
their answers, `loop` keeps as many of them on their way as `limit` finds worth it, `bulk` carries
large bodies in threads, and `retry` decides what is sent again.
A signer is anything with `sign` and `learn`: with keys at hand (SigV4Signer), or by asking a
broker that has them. `send_all` may be called while another one is still being read, and
`Flight.add` sends a follow-up of an answer first.
"""

from twobuckets.s3.engine.bodies import FileChangedError, FileSlice
from twobuckets.s3.engine.checksums import CRC32, CRC64NVME, Algorithm
from twobuckets.s3.engine.flight import Flight
from twobuckets.s3.engine.records import (
    Credentials,
    Endpoint,
    Expects,
    Keys,
    Request,
    Response,
    SendError,
    ServerAddress,
    SignedRequest,
    Signer,
    parse_endpoint,
)
from twobuckets.s3.engine.retry import RetryPolicy
from twobuckets.s3.engine.sender import Sender
from twobuckets.s3.engine.signing import SigV4Signer

__all__ = [
    "CRC32",
    "CRC64NVME",
    "Algorithm",
    "Credentials",
    "Endpoint",
    "Expects",
    "FileChangedError",
    "FileSlice",
    "Flight",
    "Keys",
    "Request",
    "Response",
    "RetryPolicy",
    "SendError",
    "Sender",
    "ServerAddress",
    "SigV4Signer",
    "SignedRequest",
    "Signer",
    "connect",
    "parse_endpoint",
]


def connect(
    endpoint: Endpoint,
    credentials: Credentials,
    *,
    most: int = 256,
    most_bulk: int = 16,
    bytes_per_second: int | None = None,
) -> Sender:
    """Return a sender that signs for an endpoint; the bounds are those of Sender."""
    return Sender(
        SigV4Signer(endpoint, credentials),
        ca_bundle=endpoint.ca_bundle,
        proxy=endpoint.proxy,
        most=most,
        most_bulk=most_bulk,
        bytes_per_second=bytes_per_second,
    )
