"""Text that is safe to show: remote characters made visible, words made safe for a shell."""

from __future__ import annotations

import re
import textwrap
import unicodedata
from collections.abc import Iterator

# Cc and Cf hold escape sequences and the marks that reorder a line; Zl and Zp break one; Cs are
# the surrogates that stand for undecodable bytes in file names.
_ACTING_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# What shows as nothing, as a space, or as whatever the font has: Co are private to a font, Cn are
# no characters.
_UNSEEN_CATEGORIES = _ACTING_CATEGORIES | {"Co", "Cn", "Zs"}
# Spaces that whoever writes the script types, and expects to see as one.
_SPACES = frozenset(" \u3000")
_JOINER = "\u200d"
# Letters, symbols and marks that show as nothing (Unicode, Default_Ignorable_Code_Point), and the
# braille cell without a dot.
_BLANK = "\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\uffa0"
_SELECTORS = "\ufe00-\ufe0f\U000e0100-\U000e01ef"
_UNSEEN = re.compile(f"[{_BLANK}]")
_SELECTOR = re.compile(f"[{_SELECTORS}]")
_LOOKED_AT_TWICE = re.compile(f"[{_BLANK}{_SELECTORS}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_READ_SHORT = {"\\\\": "\\"} | {escape: c for c, escape in _SHORT.items()}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.|\Z)", re.DOTALL)

# Words that mean themselves in every shell; zsh expands a leading "=", fish a leading "%".
_BARE = re.compile(r"[\w./:,+@-][\w./:,+@%=-]*", re.ASCII)
# A command in a sentence.
_QUOTED = re.compile(r"`[^`]+`")
_PIECES = re.compile(r"'|\\|[^'\\]+")
_AS_IN_FORMAT = re.compile(r"[\w ./:,+@=-]", re.ASCII)


class UnquotableError(ValueError):
    """A text that no shell's word can hold, or none that means the same in every shell."""


def visible(text: str) -> str:
    r"""Return `text` with every character that can't be seen as an escape.

    A newline becomes `\n`, an escape `\x1b`, a right-to-left override `\u202e`, a Hangul filler
    `\u3164`: the result is one line, moves no cursor, reorders nothing, and two texts that differ
    look different. Printable text of any script stays as it is, with the selectors and joiners
    that shape its ideographs and emoji.
    """
    if _is_plain(text):
        return text
    return "".join(_escape(c) if is_unseen else c for c, is_unseen in _iter_seen(text))


def escaped(text: str) -> str:
    r"""Return what `visible` does, in a form that `unescaped` reads back exactly.

    A backslash of the text's own is two, and a byte that is no text is written as its surrogate.
    """
    if _is_plain(text) and "\\" not in text:
        return text
    return "".join(
        "\\\\" if c == "\\" else _escape_exactly(c) if is_unseen else c
        for c, is_unseen in _iter_seen(text)
    )


def unescaped(text: str) -> str:
    r"""Return the text of which this is the escaped form.

    The escapes are two backslashes for one, `\n`, `\r`, `\t`, and `\xNN`, `\uNNNN` or `\UNNNNNNNN`
    with a character's number in hexadecimal. Raises ValueError for any other backslash.
    """
    if "\\" not in text:
        return text
    return _ESCAPE.sub(_unescape, text)


def is_hidden(character: str) -> bool:
    """Tell whether one character would act on a terminal instead of showing on it."""
    return unicodedata.category(character) in _ACTING_CATEGORIES and character != _JOINER


def shell_word(text: str, *, otherwise: str | None = None) -> str:
    r"""Return `text` as one word that every POSIX shell, zsh and fish read back exactly.

    It is safe to show and to paste, history expansion included. What can't be seen makes it
    `"$(printf 'a\012b')"`, because `$'a\nb'` is not known to dash, where a quote in it would end
    the word. A text with NUL or a newline at its end has no such form: `otherwise` is returned
    then, a placeholder for instance.
    Raises UnquotableError for such a text when there is no `otherwise`.
    """
    if _BARE.fullmatch(text):
        return text
    if _is_plain(text) or not any(is_unseen for _, is_unseen in _iter_seen(text)):
        # fish reads a backslash between single quotes, so it stands between double ones, where all
        # shells read a pair as one; bash's history takes a bare pair for a quoted quote.
        pieces = {"'": "\\'", "\\": '"\\\\"'}
        return "".join(pieces.get(p, f"'{p}'") for p in _PIECES.findall(text)) or "''"
    try:
        raw = text.encode("utf-8", "surrogateescape")
        # A command substitution drops them.
        if b"\0" not in raw and not raw.endswith(b"\n"):
            return f"\"$(printf '{_printf_format(text)}')\""
    except UnicodeEncodeError:
        pass
    if otherwise is None:
        raise UnquotableError("the text can't be written as a word for every shell")
    return otherwise


def _printf_format(text: str) -> str:
    """Return the format that makes `printf` write a text: octal is all that every one knows."""
    written = []
    for number, (c, is_unseen) in enumerate(_iter_seen(text)):
        # Shells with a history look for "!" before they look for quotes inside of quotes, and a
        # hyphen in front begins an option.
        as_it_is = _AS_IN_FORMAT.match(c) if c.isascii() else not is_unseen
        if as_it_is and not (number == 0 and c == "-"):
            written.append(c)
        else:
            written += [f"\\{byte:03o}" for byte in c.encode("utf-8", "surrogateescape")]
    return "".join(written)


def _is_plain(text: str) -> bool:
    """Tell whether all of a text can be seen; most is, and this is quick."""
    return text.isprintable() and (text.isascii() or _LOOKED_AT_TWICE.search(text) is None)


def _iter_seen(text: str) -> Iterator[tuple[str, bool]]:
    """Yield each character and whether it can't be seen where it stands."""
    before = ""
    for c, after in zip(text, f"{text[1:]}\0", strict=True):
        if c == _JOINER:
            is_unseen = not (_is_emoji(before) and _is_emoji(after))
        elif _SELECTOR.match(c):
            is_unseen = not _shapes(c, before)
        else:
            category = unicodedata.category(c)
            is_unseen = (category in _UNSEEN_CATEGORIES and c not in _SPACES) or bool(
                _UNSEEN.match(c)
            )
        yield c, is_unseen
        # A selector belongs to what it shapes, and a second one shapes nothing.
        before = "" if is_unseen else c


def _is_emoji(character: str) -> bool:
    # So are the pictures, Sk the tones of skin; the selector has just chosen the coloured form.
    return character == "\ufe0f" or (
        not character.isascii() and unicodedata.category(character) in ("So", "Sk")
    )


def _shapes(selector: str, before: str) -> bool:
    """Tell whether a variation selector can change how the character before it looks."""
    if before == "" or before.isascii():
        return False
    if selector in "\ufe0e\ufe0f":
        return unicodedata.category(before)[0] in "SP"
    is_ideograph = unicodedata.category(before) == "Lo" and (
        unicodedata.east_asian_width(before) == "W"
    )
    return is_ideograph or unicodedata.category(before) == "Sm"


def wrapped(text: str, width: int, indent: str = "", first: str | None = None) -> str:
    """Return prose in lines of at most `width`, broken between words only.

    What stands in backquotes is a command to paste and stays on one line. `first` begins the first
    line, `indent` the others, and the first as well where `first` is None.
    """
    # Any character that text made visible never holds does as a blank that does not break.
    whole = _QUOTED.sub(lambda match: match[0].replace(" ", "\0"), text)
    lines = textwrap.wrap(
        whole,
        width,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("\0", " ")


def _escape_exactly(character: str) -> str:
    # `visible` shows an undecodable byte as that byte, which a character may have as its number.
    code = ord(character)
    return f"\\u{code:04x}" if 0xDC80 <= code <= 0xDCFF else _escape(character)


def _unescape(match: re.Match[str]) -> str:
    said = match[0]
    if said in _READ_SHORT:
        return _READ_SHORT[said]
    try:
        # "\x" has two digits and what follows; a backslash alone has none.
        return chr(int(match[1] or match[2] or match[3], 16))
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{said} is no escape; a backslash is written as two") from None


def _escape(character: str) -> str:
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
