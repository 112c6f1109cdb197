"""The image that jobs run in, built by docker or podman where there is one."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from twobuckets.errors import TwoBucketsError, UsageError
from twobuckets.text import shell_word

if TYPE_CHECKING:
    from pathlib import Path

    from twobuckets.settings import Settings

_PROGRAMS: Final = ("docker", "podman")
# How the two name machines, by how Lambda does.
_PLATFORMS: Final = {"arm64": "linux/arm64", "x86_64": "linux/amd64"}


@dataclass(frozen=True, slots=True)
class Image:
    """An image that was built; `push` is the command that puts it where jobs pull it from."""

    image: str
    push: str


def build_image(settings: Settings) -> Image:
    """Build the image that `heavy.image` names, from the Dockerfile beside the settings.

    The program's output goes to stderr. Raises UsageError without a name or a Dockerfile, and
    TwoBucketsError without docker and podman, or when the build fails.
    """
    if settings.heavy_image is None:
        raise UsageError(
            "Could not build the image for jobs: it has no name",
            hint="Set heavy.image in twobuckets.toml, to the repository and tag it is pushed to.",
        )
    dockerfile = settings.directory / "Dockerfile"
    if not dockerfile.is_file():
        raise UsageError(
            f"Could not build the image for jobs: there is no {dockerfile}",
            hint="`twobuckets init --heavy` writes one into a new folder.",
        )
    program = next(filter(shutil.which, _PROGRAMS), None)
    command = _command(program or _PROGRAMS[0], settings, settings.heavy_image)
    shown = " ".join(shell_word(word, otherwise="PATH") for word in command)
    if program is None:
        raise TwoBucketsError(
            "Could not build the image for jobs: neither docker nor podman is installed here",
            hint=f"Where one is: {shown}",
        )
    # What it says goes where a person looks, and stdout stays for records.
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=2)
    if done.returncode:
        raise TwoBucketsError(
            f"Could not build the image for jobs: {program} ended with status {done.returncode}",
            hint=f"What it says stands above. The command: {shown}",
        )
    name = shell_word(settings.heavy_image, otherwise="IMAGE")
    return Image(settings.heavy_image, f"{program} push {name}")


def _command(program: str, settings: Settings, image: str) -> list[str]:
    folder: Path = settings.directory
    platform = _PLATFORMS[settings.architecture]
    return [program, "build", "--platform", platform, "--tag", image, str(folder)]
