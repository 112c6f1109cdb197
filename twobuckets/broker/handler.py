"""One request of the HTTP API (payload format 2.0) to one answer, and one line in the log."""

import base64
import binascii
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from twobuckets.broker import actions, grants, storage
from twobuckets.broker.actions import Settings
from twobuckets.broker.grants import Refused

MOST_BODY_BYTES = 64 * 1024
"""The largest request has a hundred parts with their checksums, about 8 KB."""
_HEADER = "x-upload-token"
_ACTIONS = {
    "about": actions.about,
    "start": actions.start,
    "parts": actions.parts,
    "finish": actions.finish,
    "state": actions.state,
}
_page: dict[str, Any] = {}


def handler(event: Mapping[str, Any], _context: object) -> dict[str, Any]:
    """Answer a request: the page to a GET, what is asked for to a POST that shows a token."""
    started = time.perf_counter()
    request = event["requestContext"]["http"]
    action, link_id = "page", ""
    try:
        if request["method"] == "GET":
            answer = _show_page()
        else:
            action = str((event.get("pathParameters") or {}).get("action", ""))
            settings = Settings.of(os.environ)
            link_id, grant = grants.find(_token_of(event), settings.links)
            body = _read_body(event)
            if action not in _ACTIONS:
                raise Refused(404, "no-such-action", "There is no such action.")
            answer = _reply(200, _ACTIONS[action](settings, link_id, grant, body))
    except Refused as refusal:
        answer = _reply(refusal.status, {"error": refusal.code, "message": str(refusal)})
    except storage.UnavailableError:
        message = "The link could not be looked up. Try again."
        answer = _reply(503, {"error": "try-again", "message": message})
    line = {
        "twobuckets_broker": 1,
        # Only names that are ours: what strangers send is not for a log.
        "action": action if action in _ACTIONS or action == "page" else "other",
        "link": link_id[: grants.SHOWN_ID] or None,
        "status": answer["statusCode"],
        "source_ip": request.get("sourceIp"),
        "duration_ms": round(1000 * (time.perf_counter() - started), 2),
    }
    print(json.dumps(line))  # noqa: T201 - standard output is the function's log
    return answer


def _token_of(event: Mapping[str, Any]) -> str:
    return str((event.get("headers") or {}).get(_HEADER, ""))


def _read_body(event: Mapping[str, Any]) -> dict[str, Any]:
    text = event.get("body") or "{}"
    if len(text) > MOST_BODY_BYTES:
        raise Refused(413, "bad-request", "That request is too long.")
    try:
        if event.get("isBase64Encoded"):
            text = base64.b64decode(text, validate=True)
        body = json.loads(text)
    except (ValueError, RecursionError, binascii.Error):
        body = None
    if not isinstance(body, dict):
        raise Refused(400, "bad-request", "That request is not understood.")
    return body


def _show_page() -> dict[str, Any]:
    if not _page:
        from twobuckets.page import broker_page

        staging = storage.Bucket(os.environ["STAGING_BUCKET"])
        _page["html"], _page["policy"] = broker_page(staging.origin)
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-security-policy": _page["policy"],
        "cache-control": "no-cache",
        "referrer-policy": "no-referrer",
        "strict-transport-security": "max-age=63072000",
        "x-content-type-options": "nosniff",
    }
    return {"statusCode": 200, "headers": headers, "body": _page["html"]}


def _reply(status: int, body: Mapping[str, Any]) -> dict[str, Any]:
    headers = {
        "content-type": "application/json",
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
    }
    return {"statusCode": status, "headers": headers, "body": json.dumps(body)}
