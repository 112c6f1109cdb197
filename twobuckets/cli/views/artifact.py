"""How new projects and artifacts are shown."""

from __future__ import annotations

from typing import Final

from rich.text import Text

from twobuckets.artifact import (
    DIRECT_UPLOAD_LIMIT_BYTES,
    UNZIPPED_LIMIT_BYTES,
    Artifact,
    Content,
    PackedFile,
)
from twobuckets.artifact.image import Image
from twobuckets.artifact.starter import WrittenFile
from twobuckets.cli.views import View, Views, remote
from twobuckets.text import visible
from twobuckets.units import format_bytes

_SHOWN_CONTENTS = 8


def _written(record: WrittenFile) -> Text:
    return Text.assemble("wrote ", remote(str(record.path), "bold"))


def _artifact(record: Artifact) -> Text:
    machine = "this machine" if record.architecture == "native" else record.architecture
    lines = [
        Text.assemble(
            "built ", remote(str(record.path), "bold"), f" for {record.runtime} on {machine}"
        ),
        Text.assemble("sha256    ", record.sha256),
        _size("zipped", record.zipped_bytes, DIRECT_UPLOAD_LIMIT_BYTES, "for a direct upload"),
        _size("unzipped", record.unzipped_bytes, UNZIPPED_LIMIT_BYTES, "in Lambda"),
    ]
    if record.bytecode is not None:
        size = sum(file.size_bytes for file in record.files if file.origin == "bytecode")
        lines.append(
            Text.assemble("bytecode  ", format_bytes(size), f" by Python {record.bytecode}")
        )
    lines += [_content(content) for content in record.contents[:_SHOWN_CONTENTS]]
    rest = record.contents[_SHOWN_CONTENTS:]
    if rest:
        size = sum(content.size_bytes for content in rest)
        lines.append(_content(Content(f"and {len(rest)} more", size)))
    return Text("\n").join(lines)


def _size(name: str, size_bytes: int, limit_bytes: int, what: str) -> Text:
    style = "yellow" if size_bytes > limit_bytes else ""
    return Text.assemble(
        f"{name:<8}  ",
        (format_bytes(size_bytes), style),
        (f"  of {format_bytes(limit_bytes)} {what}", "dim"),
    )


def _content(content: Content) -> Text:
    return Text.assemble(f"  {format_bytes(content.size_bytes):>10}  ", remote(content.path))


def _packed(file: PackedFile) -> Text:
    return Text.assemble(
        f"{format_bytes(file.size_bytes):>12}  ", remote(file.path), (f"  {file.origin}", "dim")
    )


def _image(image: Image) -> Text:
    return Text(f"{visible(image.image)} is built. To put it where jobs pull it from: {image.push}")


VIEWS: Final[Views] = {
    Image: View(_image),
    WrittenFile: View(_written),
    Artifact: View(_artifact),
    PackedFile: View(_packed),
}
