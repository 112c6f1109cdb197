"""The page that sends files from a browser: plain files beside this module, put together as one.

Nothing is built, bundled or fetched from elsewhere: a page is one HTML text with its style and
script in it, under a policy that allows exactly these by their hashes. Read the script in the order
of `_SCRIPTS`; all of it shares one module's scope. What signs requests for it, `signer`, is the
part that differs from page to page.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Final

_PLACE: Final = re.compile(r"\{(policy|style|data|script)\}")
_SCRIPTS: Final = (
    "words.js",
    "requests.js",
    "crc64nvme.js",
    "memory.js",
    "{signer}.js",
    "upload.js",
    "page.js",
)


def offer_page(offer: object, *, origin: str) -> str:
    """Return the page that sends one file with what is signed in it, as HTML: it is a secret.

    `offer` is what offer.js describes, `origin` where its requests go. Needs no server, and works
    from wherever S3's CORS rules let it.
    """
    # Nothing in a script element but `</script` and `<!--` is markup to a browser.
    data = json.dumps(offer, separators=(",", ":")).replace("<", "\\u003c")
    script, style = _script("offer"), _read("style.css")
    policy = _policy(script, style, origin)
    return _fill(
        style=style,
        script=script,
        policy=f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        data=f'<script type="application/json" id="offer">{data}</script>',
    )


def broker_page(origin: str) -> tuple[str, str]:
    """Return the page that asks a broker beside it to sign, as HTML, and its policy for a header.

    `origin` is where the signed requests go. The HTML is the same for everybody, and no secret.
    """
    script, style = _script("broker"), _read("style.css")
    policy = _policy(script, style, "'self'", origin) + "; frame-ancestors 'none'"
    return _fill(style=style, script=script, policy="", data=""), policy


def _policy(script: str, style: str, *origins: str) -> str:
    """Return the Content-Security-Policy under which only our own script and style run."""
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src '{_hash(script)}'",
            f"style-src '{_hash(style)}'",
            f"connect-src {' '.join(origins)}",
            "worker-src blob:",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _script(signer: str) -> str:
    return "\n" + "\n".join(_read(name.format(signer=signer)) for name in _SCRIPTS)


def _fill(**parts: str) -> str:
    # In one pass: what is filled in may look like a place itself.
    return _PLACE.sub(lambda place: parts[place[1]], _read("page.html"))


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")
