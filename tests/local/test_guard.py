"""Only requests that are meant for the server, by somebody who knows a key of it, come through."""

from __future__ import annotations

from functools import partial

import pytest

from twobuckets.local.server.guard import find_refusal

PORT = 4566
GOOD = {"host": f"127.0.0.1:{PORT}", "authorization": "AWS4-HMAC-SHA256 Credential=K/..."}


def refusal(
    path: str = "/bucket/key",
    *,
    known: bool = True,
    admitted: str | None = None,
    preflight: bool = False,
    **changed: str | None,
) -> str | None:
    headers = {**GOOD, **{name.replace("_", "-"): value for name, value in changed.items()}}
    raw = [(k.encode(), v.encode()) for k, v in headers.items() if v is not None]
    return refusal_of(raw, path, known=known, admitted=admitted, preflight=preflight)


def refusal_of(
    raw: list[tuple[bytes, bytes]],
    path: str = "/",
    *,
    known: bool = True,
    admitted: str | None = None,
    preflight: bool = False,
) -> str | None:
    return find_refusal(
        raw,
        path,
        port=PORT,
        is_known=lambda _: known,
        is_admitted=lambda origin: origin == admitted,
        is_preflight=preflight,
    )


def test_a_signed_request_to_this_address_comes_through():
    assert refusal() is None
    assert refusal(host=f"localhost:{PORT}") is None
    assert refusal(host=f"LOCALHOST:{PORT}") is None
    assert refusal(origin=f"http://127.0.0.1:{PORT}") is None
    assert refusal(sec_fetch_site="none") is None


@pytest.mark.parametrize(
    "host",
    [
        None,
        "",
        "127.0.0.1",
        "127.0.0.1:80",
        f"evil.example:{PORT}",
        f"127.0.0.1.evil.example:{PORT}",
        f"bucket.localhost:{PORT}",
        f"127.0.0.1:{PORT}.evil.example",
        f"0.0.0.0:{PORT}",
        f"[::1]:{PORT}",
    ],
)
def test_a_foreign_host_is_refused(host: str | None):
    assert refusal(host=host) is not None


def test_a_second_host_header_is_refused():
    raw = [(b"host", b"127.0.0.1:4566"), (b"Host", b"evil.example")]
    assert refusal_of(raw) is not None


PAGE = "http://localhost:5173"


def test_a_page_that_the_bucket_admits_comes_through_with_a_key():
    ask = partial(refusal, admitted=PAGE, origin=PAGE, sec_fetch_site="same-site")
    assert ask() is None
    assert ask(known=False) is not None
    assert ask(known=False, preflight=True) is None
    assert ask("/_ministack/reset", preflight=True) is not None
    assert ask(host="evil.example") is not None


def test_a_page_of_another_origin_gains_nothing_by_it():
    assert refusal(admitted=PAGE, origin="http://evil.example") is not None
    assert refusal(admitted=PAGE, origin="http://evil.example", preflight=True) is not None
    assert refusal(admitted=PAGE, sec_fetch_site="cross-site") is not None
    assert refusal(known=False, preflight=True) is not None


def test_two_origins_are_no_admitted_page():
    raw = [(b"host", b"127.0.0.1:4566"), (b"origin", PAGE.encode()), (b"Origin", b"http://evil")]
    assert refusal_of(raw, admitted=PAGE) is not None


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "", "http://localhost:3000", "http://127.0.0.1", "file://"],
)
def test_requests_of_web_pages_are_refused(origin: str):
    assert refusal(origin=origin) is not None


@pytest.mark.parametrize("site", ["cross-site", "same-site", "Cross-Site"])
def test_requests_that_a_browser_calls_foreign_are_refused(site: str):
    assert refusal(sec_fetch_site=site) is not None


@pytest.mark.parametrize(
    "path", ["/_ministack/reset", "/_ministack/health", "/_localstack/init", "/_alb/x", "/_aws/sqs"]
)
def test_the_emulators_own_paths_are_closed(path: str):
    assert refusal(path) is not None


def test_who_names_no_known_key_is_refused():
    assert refusal(known=False) is not None


def test_two_authorization_headers_are_refused():
    raw = [(b"host", b"127.0.0.1:4566"), (b"authorization", b"a"), (b"Authorization", b"b")]
    assert refusal_of(raw) is not None
