"""Texts inside S3's XML, found without parsing the whole document, and written."""

import re
from typing import Final

FORBIDDEN: Final = re.compile("[\0-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
"""A character that no XML 1.0 document can hold, not even as a reference (XML 1.0, "Char")."""
_REFERENCE = re.compile(r"&(#x[0-9a-fA-F]{1,6}|#[0-9]{1,7}|lt|gt|amp|quot|apos);")
_NAMED = {"lt": "<", "gt": ">", "amp": "&", "quot": '"', "apos": "'"}
_ESCAPES = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;", "\n": "&#10;", "\t": "&#9;"}
)


def find_text(document: bytes, tag: bytes) -> str:
    """Return the text of the first element of that tag; "" if there is none."""
    start = document.find(b"<%b>" % tag)
    end = document.find(b"</%b>" % tag, start)
    if start < 0 or end < 0:
        return ""
    return unescape(document[start + len(tag) + 2 : end].decode("utf-8", "replace"))


def unescape(text: str) -> str:
    """Return a text with XML's own five entities and character references resolved."""
    return _REFERENCE.sub(_resolve, text) if "&" in text else text


def escape(text: str) -> str:
    """Return a text as XML carries it; line ends as references, so that no parser changes them."""
    return text.translate(_ESCAPES)


def _resolve(found: re.Match[str]) -> str:
    name = found[1]
    if name[0] != "#":
        return _NAMED[name]
    number = int(f"0{name[1:]}", 16) if name[1] == "x" else int(name[1:])
    return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else "\ufffd"
