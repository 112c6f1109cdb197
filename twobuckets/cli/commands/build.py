"""`twobuckets build`: the processor's artifact."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from twobuckets import artifact
from twobuckets.cli import command
from twobuckets.cli.records import BuildSummary
from twobuckets.units import format_bytes

if TYPE_CHECKING:
    from twobuckets.cli.app import App

_FILE = click.Path(path_type=Path)


@command("build")
@click.option("--source", type=_FILE, help="A module, a package or a folder of modules.")
@click.option("--process", metavar="MODULE:FUNCTION", help="The function that gets each file.")
@click.option("--requirements", type=_FILE, help="What the processor needs, in pip's format.")
@click.option("--runtime", metavar="RUNTIME", help="Lambda's runtime, such as python3.13.")
@click.option("--architecture", metavar="ARCH", help="arm64 or x86_64.")
@click.option(
    "--build-sdists",
    is_flag=True,
    help="Let requirements without a wheel run their own code on this machine to be built.",
)
@click.option("--out", type=_FILE, help="The zip to write.  [default: .twobuckets/processor.zip]")
@click.option("--image", is_flag=True, help="Build the image for jobs instead, with docker.")
@click.pass_obj
def build(
    app: App,
    source: Path | None,
    process: str | None,
    requirements: Path | None,
    runtime: str | None,
    architecture: str | None,
    build_sdists: bool,
    out: Path | None,
    image: bool,
) -> None:
    """Build the processor's artifact and check that it can be imported.

    The zip holds your module, the wheels it requires and the runtime of twobuckets. Requirements
    are a file in pip's format, or a uv.lock, poetry.lock, pdm.lock or pylock.toml. Folders of yours
    among them are built in isolation; nothing else runs its own code. The same input gives the same
    bytes. What is not given here comes from [processor] in twobuckets.toml. With
    --stack local it is built for this machine. What looks like a secret is refused; -v lists what
    goes in.

    \b
      twobuckets build
      twobuckets build --source intake/ --process intake.main:process --architecture x86_64
    """
    if image:
        from twobuckets.artifact.image import build_image

        built_image = build_image(app.settings)
        app.out.record(built_image)
        app.finish(BuildSummary(artifacts=0, zipped_bytes=0, unzipped_bytes=0))
        return
    app.flags |= {
        # Relative to where the person is; the paths in the file are relative to the file.
        "source": str(source.absolute()) if source else None,
        "requirements": str(requirements.absolute()) if requirements else None,
        "process": process,
        "runtime": runtime,
        "architecture": architecture,
        "build_sdists": "true" if build_sdists else None,
    }
    built = artifact.build_configured(app.settings, out=out.absolute() if out else None)
    if app.verbosity and not app.json:
        app.out.stream(built.files)
    app.out.record(built)
    for notice in built.notices():
        app.out.note(notice)
    if built.zipped_bytes > artifact.DIRECT_UPLOAD_LIMIT_BYTES:
        app.out.note(
            f"Lambda accepts a zip over {format_bytes(artifact.DIRECT_UPLOAD_LIMIT_BYTES)} only "
            "from S3, which is how `twobuckets deploy` does it."
        )
    app.finish(
        BuildSummary(
            artifacts=1, zipped_bytes=built.zipped_bytes, unzipped_bytes=built.unzipped_bytes
        )
    )
