"""File names, as strangers' machines have them, as the ends of keys."""

import unicodedata

# Controls, what acts on text unseen, halves of characters, and line ends.
_REPLACED = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def clean_path(path: str) -> str:
    """Return a path that is safe to end a key: relative, NFC, with no unseen characters.

    Backslashes part segments as slashes do; empty segments, `.` and `..` are left out, so that no
    client that takes a key for a path can be led elsewhere. What is clean stays as it is. "" when
    nothing is left.
    """
    text = unicodedata.normalize("NFC", path).replace("\\", "/")
    text = "".join("_" if unicodedata.category(c) in _REPLACED else c for c in text)
    segments = (segment.strip() for segment in text.split("/"))
    return "/".join(segment for segment in segments if segment not in ("", ".", ".."))
