"""What the embedded AWS keeps in its state directory, and the proof of who runs there.

Both the client side and the server process use this module, so it imports nothing heavy.
"""

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class RootKey:
    """The root key of one state directory: random, and valid nowhere else."""

    access_key: str
    secret_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ServerRecord:
    """The pid file's content: what a running server says about itself.

    `process_started` identifies the process behind `pid`, because the kernel gives pids out again.
    `program` is the path of a file of the installation that it runs from, `page_port` that of
    upload pages.
    """

    pid: int
    process_started: str
    port: int
    program: str = ""
    page_port: int = 0


@dataclass(frozen=True, slots=True)
class StateDirectory:
    """The places inside one state directory of the embedded AWS."""

    root: Path

    @property
    def record(self) -> Path:
        """The pid file; it exists while a server answers, and after one was killed."""
        return self.root / "server.json"

    @property
    def server_lock(self) -> Path:
        """Held by the server process for as long as it lives."""
        return self.root / "server.lock"

    @property
    def start_lock(self) -> Path:
        """Held by whoever starts or stops the server."""
        return self.root / "start.lock"

    @property
    def key(self) -> Path:
        """The root key, readable by its owner only."""
        return self.root / "root-key.json"

    @property
    def port(self) -> Path:
        """The port of the last run; the next run takes it again if it is free."""
        return self.root / "port"

    @property
    def page_port(self) -> Path:
        """The port of upload pages of the last run, likewise."""
        return self.root / "page-port"

    @property
    def log(self) -> Path:
        """What the server process says."""
        return self.root / "server.log"

    @property
    def services(self) -> Path:
        """The services' state: stacks, functions, roles, queues, log events."""
        return self.root / "services"

    @property
    def objects(self) -> Path:
        """S3's objects and their versions."""
        return self.root / "objects"

    @property
    def invocations(self) -> Path:
        """The Lambda invocations that S3 asked for and that have not ended yet."""
        return self.root / "invocations.sqlite"

    @property
    def temporary(self) -> Path:
        """Folders of Lambda children; nothing in it outlives the server."""
        return self.root / "run"

    def create(self) -> None:
        """Create the directory for its owner only."""
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)

    def read_record(self) -> ServerRecord | None:
        """Return what the last server wrote about itself, or None."""
        try:
            return ServerRecord(**json.loads(self.record.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write_record(self, record: ServerRecord) -> None:
        """Write the pid file in one step."""
        write_private(self.record, json.dumps(asdict(record)))

    def read_credentials(self) -> RootKey | None:
        """Return the root key, or None before the first start."""
        try:
            return RootKey(**json.loads(self.key.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def write_credentials(self, credentials: RootKey) -> None:
        """Write the root key for its owner only."""
        write_private(self.key, json.dumps(asdict(credentials)))

    def discard_temporary(self) -> None:
        """Remove what a server leaves behind when it is killed."""
        shutil.rmtree(self.temporary, ignore_errors=True)
        with suppress(OSError):
            self.record.unlink()

    def discard_all(self) -> None:
        """Forget every bucket, stack and key. The locks stay: somebody may be waiting on one."""
        self.discard_temporary()
        for folder in (self.services, self.objects, self.root / "default"):
            shutil.rmtree(folder, ignore_errors=True)
        for name in (self.key, self.port, self.page_port, self.log, self.log.with_suffix(".log.1")):
            name.unlink(missing_ok=True)
        for file in self.root.glob(f"{self.invocations.name}*"):
            file.unlink(missing_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a file in one step, readable and writable by its owner only."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    partial.replace(path)


def is_locked(path: Path) -> bool:
    """Tell whether a living process holds the lock; the kernel frees a dead one's."""
    try:
        file = path.open("rb")
    except OSError:
        return False
    with file:
        try:
            # Shared, so that two who ask at once do not take each other for the holder.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Try to take the lock once; yields whether it was free."""
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def process_started(pid: int) -> str | None:
    """Return when a process started, in the kernel's words, or None when there is none.

    Two processes that had the same pid differ in it.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        if Path("/proc/self").exists():
            return None
    else:
        # The command's name, in parentheses, may hold anything; starttime is field 22 (proc(5)).
        fields = stat.rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    listing = subprocess.run(
        ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return listing.stdout.strip() or None
