"""Text that is safe to show: remote characters made visible, words made safe for a shell."""

from __future__ import annotations

import shlex
import unicodedata

# Cc and Cf hold escape sequences and the marks that reorder a line; Zl and Zp break one;
# Cs are the surrogates that stand for undecodable bytes in file names; Co and Cn are no characters.
_HIDDEN_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Joins the parts of one emoji, and is harmless anywhere.
_HARMLESS = frozenset({"\u200d"})
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def visible(text: str) -> str:
    r"""Return `text` with every control, formatting and undecodable character as an escape.

    A newline becomes `\n`, an escape `\x1b`, a right-to-left override `\u202e`: the result is one
    line, moves no cursor and reorders nothing. Printable text of any script stays as it is.
    """
    if text.isprintable():
        return text
    return "".join(_escape(c) if is_hidden(c) else c for c in text)


def is_hidden(character: str) -> bool:
    """Tell whether one character would act on a terminal instead of showing on it."""
    return unicodedata.category(character) in _HIDDEN_CATEGORIES and character not in _HARMLESS


def shell_word(text: str) -> str:
    r"""Return `text` as one word that bash, zsh and ksh read back exactly, safe to show and paste.

    Hidden characters make it an ANSI-C quoted word, `$'a\nb'`.
    """
    if text.isprintable() or not any(is_hidden(c) for c in text):
        return shlex.quote(text)
    quoted = []
    for c in text:
        if is_hidden(c):
            quoted += [f"\\x{byte:02x}" for byte in c.encode("utf-8", "surrogateescape")]
        elif c in "\\'":
            quoted.append("\\" + c)
        else:
            quoted.append(c)
    return "$'" + "".join(quoted) + "'"


def _escape(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
