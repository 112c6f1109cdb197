"""How signed requests and scoped credentials are shown: as lines for a shell to run."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from rich.text import Text

from twobuckets.cli.times import shown
from twobuckets.cli.views import View, Views, remote
from twobuckets.text import shell_word, visible
from twobuckets.units import counted, format_bytes, format_instant
from twobuckets.upload.credentials import ScopedCredentials
from twobuckets.upload.page import UploadPage
from twobuckets.upload.presign import PresignedRequest, StartedUpload


def _request(record: PresignedRequest) -> Text:
    # Pasted as a whole, the lines upload: what is for another day is a comment.
    mark = "# " if record.purpose in ("abort", "list-parts") else ""
    comment = _comment(f"{_purpose(record)}, until ", record.expires_at)
    if record.command is None:
        return Text.assemble(
            comment, ("# no shell has a word for this key: --json has the form", "dim")
        )
    return Text.assemble(comment, (mark, "dim"), record.command)


def _purpose(record: PresignedRequest) -> str:
    where = _word(f"s3://{record.bucket}/{record.key}")
    size = f", exactly {record.size_bytes:,} bytes" if record.size_bytes is not None else ""
    match record.purpose:
        case "part":
            return f"part {record.part_number}{size}"
        case "complete":
            return "complete, when every part was sent"
        case "post" if record.size_bytes is None and record.max_bytes is not None:
            return f"{where}, at most {format_bytes(record.max_bytes)}"
        case "put" | "post":
            return where + size
        case purpose:
            return purpose


def _started(record: StartedUpload) -> Text:
    cut = counted(record.parts, "part")
    if record.part_bytes is not None:
        cut += f" of {counted(record.part_bytes, 'byte')}"
    comment = _comment(
        f"{_word(f's3://{record.bucket}/{record.key}')}, upload id {_word(record.upload_id)}, "
        f"{cut}, until ",
        record.expires_at,
        end="" if record.split is None else "\n",
    )
    return Text.assemble(comment, record.split or "")


def _page(record: UploadPage) -> Text:
    # A link is printed alone, for a pipe or a message.
    if record.url is not None:
        return Text(record.url)
    what = f"uploads {_word(f's3://{record.bucket}/{record.key}')}, until "
    return Text.assemble(_word(record.file or ""), "  ", _comment(what, record.expires_at, end=""))


def _credentials(record: ScopedCredentials) -> Text:
    variables = {
        "AWS_ACCESS_KEY_ID": record.access_key_id,
        "AWS_SECRET_ACCESS_KEY": record.secret_access_key,
        "AWS_SESSION_TOKEN": record.session_token,
        "AWS_CREDENTIAL_EXPIRATION": format_instant(record.expires_at),
        "AWS_REGION": record.region,
    }
    if record.endpoint_url is not None:
        variables["AWS_ENDPOINT_URL"] = record.endpoint_url
    lines = [f"export {name}={shell_word(value)}" for name, value in variables.items()]
    what = f"uploads {_word(f's3://{record.bucket}/{record.key}')} only, until "
    return Text.assemble(_comment(what, record.expires_at), "\n".join(lines))


def _word(remote_text: str) -> str:
    # Pasted into zsh, a comment is a command, and what it says is expanded.
    return shell_word(visible(remote_text))


def _comment(text: str, expires_at: datetime, end: str = "\n") -> Text:
    # One line, as `remote` makes it, so that nothing of a key can become a command.
    return Text.assemble(Text("# ", "dim"), remote(text + shown(expires_at), "dim"), end)


VIEWS: Final[Views] = {
    PresignedRequest: View(_request),
    StartedUpload: View(_started),
    UploadPage: View(_page),
    ScopedCredentials: View(_credentials),
}
