"""What is measured: each job makes its files and buckets anew and knows each tool's words."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.bench.measure import Measurement, run
from tests.bench.tools import ARCHIVE, BEFORE, OURS, STAGING, Tool, environment
from tests.bench.yardstick import Yardstick


@dataclass(frozen=True, slots=True)
class Job:
    """A job: the buckets before it, and the arguments that make each tool do it."""

    files: Path
    prepare: Callable[[Yardstick], None]
    words: Mapping[str, Sequence[str]]
    accept: Sequence[int] = (0,)

    @property
    def tools(self) -> list[str]:
        """The tools that can do it, twobuckets first, and then another one of it."""
        ours, *others = self.words
        return [ours, BEFORE, *others]

    def measure(self, server: Yardstick, tool: Tool, number: int) -> Measurement:
        """Run a tool once; `number` keeps what a round leaves behind from the next one."""
        home = self.files / "home" / f"{tool.name}-{number}"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
        self.prepare(server)
        server.ask("zero")
        taken = run(
            tool.name,
            [*tool.program, *self.words[OURS if tool.name == BEFORE else tool.name]],
            environment(server, home),
            accept=self.accept,
        )
        return replace(taken, requests=server.ask("stats")["requests"])


def _make_files(folder: Path, count: int, size: int) -> Path:
    stamp = folder.with_suffix(f".{count}x{size}")
    if not stamp.exists():
        shutil.rmtree(folder, ignore_errors=True)
        for number in range(count):
            path = folder / f"{number % 100:03d}" / f"file-{number:06d}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(os.urandom(size))
        stamp.touch()
    return folder


def _make_file(path: Path, size: int) -> Path:
    if not path.exists() or path.stat().st_size != size:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            for start in range(0, size, 1 << 20):
                file.write(os.urandom(min(1 << 20, size - start)))
    return path


def _empty(server: Yardstick) -> None:
    server.reset(STAGING, ARCHIVE)


def _filled(count: int, size: int) -> Callable[[Yardstick], None]:
    def fill(server: Yardstick) -> None:
        server.reset(STAGING)
        server.ask("fill", bucket=ARCHIVE, n=count, size=size)

    return fill


def upload_large(files: Path, scale: float) -> Job:
    """One file of a gibibyte, in parts."""
    path = str(_make_file(files / "large.bin", int(scale * 2**30)))
    return Job(
        files,
        _empty,
        {
            "twobuckets": ("upload", path),
            "s5cmd": ("cp", "--concurrency", "16", path, f"s3://{STAGING}/"),
            "rclone": (
                *("copyto", path, f"y:{STAGING}/large.bin", "--s3-upload-concurrency", "16"),
                "--s3-disable-checksum",
            ),
            "aws": ("s3", "cp", "--quiet", path, f"s3://{STAGING}/"),
            "obstore": ("upload", STAGING, path),
            "boto3": (STAGING, path),
            "awscrt": (STAGING, path),
        },
    )


def _upload_many(files: Path, count: int, size: int, *, peers: bool) -> Job:
    folder = str(_make_files(files / f"many-{size}-{count}", count, size))
    ours: Mapping[str, Sequence[str]] = {"twobuckets": ("upload", "--recursive", folder)}
    theirs: Mapping[str, Sequence[str]] = {
        "s5cmd": ("cp", f"{folder}/", f"s3://{STAGING}/"),
        "rclone": (
            *("copy", folder, f"y:{STAGING}", "--transfers", "64", "--checkers", "64"),
            *("--no-traverse", "--no-check-dest", "--s3-no-head"),
        ),
        "obstore": ("upload", STAGING, folder),
        "boto3": (STAGING, folder),
        "boto3-threads": (STAGING, folder),
        "awscrt": (STAGING, folder),
        "aws": ("s3", "cp", "--quiet", "--recursive", folder, f"s3://{STAGING}/"),
    }
    return Job(files, _empty, {**ours, **(theirs if peers else {})})


def upload_small(files: Path, scale: float) -> Job:
    """5,000 files of 4 KiB."""
    return _upload_many(files, int(5000 * scale), 4096, peers=True)


def upload_few(files: Path, scale: float) -> Job:
    """5,000 files of 1 KiB, to compare upload-many with."""
    return _upload_many(files, int(5000 * scale), 1024, peers=False)


def upload_many(files: Path, scale: float) -> Job:
    """100,000 files of 1 KiB: the cost of a file and the memory should be those of upload-few."""
    return _upload_many(files, int(100_000 * scale), 1024, peers=False)


def ls(files: Path, scale: float) -> Job:
    """List 100,000 keys."""
    return Job(
        files,
        _filled(int(100_000 * scale), 100),
        {
            "twobuckets": ("ls", "archive"),
            "s5cmd": ("ls", f"s3://{ARCHIVE}/*"),
            "rclone": (
                "lsf",
                "-R",
                "--fast-list",
                "--use-server-modtime",
                "--format",
                "tsp",
                f"y:{ARCHIVE}",
            ),
            "obstore": ("ls", ARCHIVE),
            "aws": ("s3", "ls", "--recursive", f"s3://{ARCHIVE}/"),
        },
    )


def reprocess(files: Path, scale: float) -> Job:
    """Copy 5,000 objects of 4 KiB back to staging; ours compares, journals, and looks again."""
    return Job(
        files,
        _filled(int(5000 * scale), 4096),
        {
            "twobuckets": ("reprocess", "--prefix", "", "--yes"),
            "s5cmd": ("cp", f"s3://{ARCHIVE}/*", f"s3://{STAGING}/"),
            "rclone": (
                *("copy", f"y:{ARCHIVE}", f"y:{STAGING}", "--transfers", "64"),
                *("--checkers", "64", "--fast-list", "--no-check-dest"),
            ),
            "aws": ("s3", "cp", "--quiet", "--recursive", f"s3://{ARCHIVE}/", f"s3://{STAGING}/"),
        },
    )


def start_help(files: Path, _: float) -> Job:
    """`--help`, against an empty Python."""
    return _start(files, "--help")


def start_version(files: Path, _: float) -> Job:
    """`--version`, against an empty Python."""
    return _start(files, "--version")


def _start(files: Path, option: str) -> Job:
    return Job(
        files,
        lambda _: None,
        {"twobuckets": (option,), "python": ("-c", "pass"), "aws": ("--version",)},
    )


JOBS: dict[str, Callable[[Path, float], Job]] = {
    "help": start_help,
    "version": start_version,
    "upload-small": upload_small,
    "upload-large": upload_large,
    "upload-few": upload_few,
    "upload-many": upload_many,
    "ls": ls,
    "reprocess": reprocess,
}
