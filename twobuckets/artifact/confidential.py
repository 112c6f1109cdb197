"""Which files look as if they held secrets: nobody packs one without meaning it.

Whoever may read a function's code can read all that its artifact holds, and so can whoever may read
the bucket that it is deployed from.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final, NamedTuple

from twobuckets.artifact.contents import is_included
from twobuckets.errors import TwoBucketsError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from twobuckets.artifact.contents import Entry

_TOLD = 10
_LOOKED_AT_BYTES = 1 << 16
_PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----")
_CODE = (".py", ".pyi")
# Lower-case names, and what a file of that name usually is.
_NAMES: Final = (
    ("credentials*", "credentials"),
    ("client_secret*.json", "credentials"),
    ("service[-_]account*.json", "credentials"),
    ("secrets.*", "secrets"),
    ("secret.*", "secrets"),
    (".env*", "an environment's secrets"),
    ("*.env", "an environment's secrets"),
    (".netrc", "passwords"),
    (".pgpass", "passwords"),
    (".pypirc", "passwords"),
    ("*htpasswd", "passwords"),
    ("kubeconfig*", "credentials"),
    ("*.kubeconfig", "credentials"),
    ("*.tfstate", "Terraform's state, which holds secrets"),
    ("*.tfstate.*", "Terraform's state, which holds secrets"),
    ("*.tfvars", "Terraform's variables"),
    ("id_rsa*", "an SSH key"),
    ("id_dsa*", "an SSH key"),
    ("id_ecdsa*", "an SSH key"),
    ("id_ed25519*", "an SSH key"),
    ("*.ppk", "an SSH key"),
    ("*.key", "a private key"),
    ("*.p8", "a private key"),
    ("*.p12", "a key store"),
    ("*.pfx", "a key store"),
    ("*.jks", "a key store"),
    ("*.bks", "a key store"),
    ("*.keystore", "a key store"),
    ("*.kdbx", "a key store"),
)
# More often harmless than not: packed, and told.
_DOUBTFUL: Final = (("id_*", "an SSH key"), ("*.pem", "a key"))


class _Doubt(NamedTuple):
    path: str
    looks_like: str
    is_refused: bool


def require_nothing_confidential(
    entries: Iterable[Entry], *, of: str, include: Sequence[str]
) -> list[str]:
    """Return what to tell of the entries that may hold secrets.

    `of` is where they come from, for messages. Entries that match `include` are meant. A module is
    told and never refused: that code is called `credentials.py` says little.
    Raises UsageError naming all entries that surely look like secrets.
    """
    doubts = [
        doubt
        for entry in entries
        if not is_included(entry.path, include) and (doubt := _doubt(entry)) is not None
    ]
    refused = [doubt for doubt in doubts if doubt.is_refused]
    if refused:
        told = "; ".join(f"{doubt.path} looks like {doubt.looks_like}" for doubt in refused[:_TOLD])
        more = f"; and {len(refused) - _TOLD} more" if len(refused) > _TOLD else ""
        names = ", ".join(f'"{doubt.path}"' for doubt in refused[:_TOLD])
        raise UsageError(
            f"Could not pack the processor: in {of}, {told}{more}",
            hint="Whoever can read the function's code can read what is packed. Move it away, or"
            f" say that it is meant, under [processor] in twobuckets.toml: include = [{names}]",
        )
    return [
        f"{doubt.path} of {of} looks like {doubt.looks_like} and was packed" for doubt in doubts
    ]


def _doubt(entry: Entry) -> _Doubt | None:
    name = entry.path.rpartition("/")[2].lower()
    is_code = name.endswith(_CODE)
    for pattern, looks_like in _NAMES:
        if fnmatchcase(name, pattern):
            return _Doubt(entry.path, looks_like, is_refused=not is_code)
    if _PRIVATE_KEY.search(_beginning(entry.file)):
        return _Doubt(entry.path, "a private key", is_refused=not is_code)
    for pattern, looks_like in _DOUBTFUL:
        if fnmatchcase(name, pattern):
            return _Doubt(entry.path, looks_like, is_refused=False)
    return None


def _beginning(file: Path) -> bytes:
    try:
        with file.open("rb") as raw:
            return raw.read(_LOOKED_AT_BYTES)
    except OSError as error:
        raise TwoBucketsError(
            f"Could not pack the processor: {file} can't be read ({error.strerror})",
            hint="Change its permissions.",
        ) from error
