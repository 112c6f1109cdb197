"""A real Chromium against a pipeline on the embedded AWS, one of each for a module of tests."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from tests.embedded.conftest import empty
from twobuckets.cli import cli

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import BrowserContext, Page, Playwright

    from twobuckets.aws.clients import Aws

MIB = 1024 * 1024
INSTALL = "apt-get install chromium (Debian; others: https://www.chromium.org)"


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    """What drives browsers. It takes the thread's event loop, so it ends with the module."""
    if shutil.which("chromium") is None:
        pytest.skip(f"no chromium is installed: {INSTALL}")
    library = pytest.importorskip("playwright.sync_api")
    with library.sync_playwright() as started:
        yield started


@dataclass(frozen=True, slots=True)
class Intake:
    """The pipeline that pages upload to."""

    aws: Aws
    staging: str
    archive: str
    environ: dict[str, str]

    def run(self, *arguments: str) -> list[dict[str, Any]]:
        """Run the program for this pipeline, and return its records."""
        # Every test has a home of its own; the pipeline outlives it.
        result = CliRunner(env=self.environ).invoke(cli, ["--json", *arguments])
        assert result.exit_code == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines()]

    def archived(self, key: str, *, seconds: float = 20) -> bytes:
        """Wait until an object is archived, and return what is in it."""
        waited_until = time.monotonic() + seconds
        while True:
            try:
                return self.aws.s3.get_object(Bucket=self.archive, Key=key)["Body"].read()
            except self.aws.s3.exceptions.NoSuchKey:
                assert time.monotonic() < waited_until, self.describe(key)
                time.sleep(0.05)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Wake the processor for nothing that arrives meanwhile."""
        s3, bucket = self.aws.s3, self.staging
        found: Any = s3.get_bucket_notification_configuration(Bucket=bucket)
        found.pop("ResponseMetadata")
        s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
        try:
            yield
        finally:
            s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration=found)

    def describe(self, key: str) -> str:
        """Return what is known of a key that is not archived."""
        versions = self.aws.s3.list_object_versions(Bucket=self.staging)
        staged = [found["Key"] for found in versions.get("Versions", [])]
        return f"{key} is not archived; staged are {staged}; logged is {self.run('logs')}"

    def uploads(self) -> list[str]:
        """Return the keys of incomplete uploads."""
        found = self.aws.s3.list_multipart_uploads(Bucket=self.staging).get("Uploads", [])
        return [upload["Key"] for upload in found]


SETTINGS = """
stack = "local"
[deploy]
cors_origins = ["null"]
[page]
enabled = true
title = "Files for us"
sentence = "Ask Ada."
accent = "#f2c500"
"""


@pytest.fixture(scope="module")
def intake(
    embedded_clients: Aws, state_home: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Intake]:
    """A pipeline on the embedded AWS that takes files of pages; emptied after the module."""
    project = tmp_path_factory.mktemp("project")
    (project / "twobuckets.toml").write_text(SETTINGS)
    (project / "processor.py").write_text("def process(file): pass")
    environ = {
        "XDG_STATE_HOME": str(state_home),
        "TWOBUCKETS_CONFIG": str(project / "twobuckets.toml"),
    }
    result = CliRunner(env=environ).invoke(cli, ["--json", "deploy", "--yes"])
    assert result.exit_code == 0, result.stderr
    outputs = json.loads(result.stdout.splitlines()[-1])["outputs"]
    yield Intake(embedded_clients, outputs["StagingBucket"], outputs["ArchiveBucket"], environ)
    empty(embedded_clients)


@dataclass
class Visitor:
    """Somebody with a browser: one page, and what went over the line for it."""

    context: BrowserContext
    page: Page
    profile: Path
    line: Any = None
    sent: list[str] = field(default_factory=list)
    """The numbers of the parts that arrived, in their order."""
    errors: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        """Go to an address, and wait until the page can be used or says why not."""
        self.page.goto(url)
        self.wait(lambda: self.is_ready() or bool(self.text("#terms")))

    def is_ready(self) -> bool:
        """Tell whether a file can be chosen."""
        return self.page.is_visible("#drop")

    def text(self, selector: str) -> str:
        """Return what the page shows there."""
        return self.page.inner_text(selector)

    def choose(self, *files: Path, folder: bool = False) -> None:
        """Choose files as the person does in the browser's own dialogue."""
        self.wait(self.is_ready)
        self.page.set_input_files("#folder" if folder else "#files", [str(file) for file in files])

    def states(self) -> list[str]:
        """Return the state of each file."""
        rows = self.page.query_selector_all("#list li")
        return [row.get_attribute("data-state") or "" for row in rows]

    def notes(self) -> list[str]:
        """Return what is said of each file."""
        return [note.inner_text() for note in self.page.query_selector_all("#list .note")]

    def wait(self, condition: Callable[[], bool], *, seconds: float = 30) -> None:
        """Wait until something holds. The page's own policy forbids Playwright's way to wait."""
        waited_until = time.monotonic() + seconds
        while not condition():
            told = (self.states(), self.notes(), self.text("#terms"), self.errors)
            assert time.monotonic() < waited_until, told
            self.page.wait_for_timeout(30)

    def wait_for(self, *states: str, seconds: float = 30) -> None:
        """Wait until the files are in these states."""
        self.wait(lambda: self.states() == list(states), seconds=seconds)

    def stored(self) -> str:
        """Return all that the page keeps in the browser, as text."""
        kept = self.page.evaluate(
            """() => new Promise(resolve => {
              const opening = indexedDB.open('uploads')
              opening.onsuccess = () => {
                const asked = opening.result.transaction('uploads').objectStore('uploads').getAll()
                asked.onsuccess = () => { opening.result.close(); resolve(asked.result) }
              }
            })"""
        )
        return json.dumps(kept) + str(self.page.evaluate("JSON.stringify(localStorage)"))

    def kill(self) -> None:
        """End the browser's processes as a crash or a flat battery does."""
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if f"--user-data-dir={self.profile}".encode() in words:
                os.kill(int(folder.name), signal.SIGKILL)
        for lock in self.profile.glob("Singleton*"):
            lock.unlink()

    def slow_down(self, bytes_per_second: int, *, offline: bool = False) -> None:
        """Send no faster than that, 0 for no limit; or not at all."""
        if self.line is None:
            self.line = self.context.new_cdp_session(self.page)
            self.line.send("Network.enable")
        self.line.send(
            "Network.emulateNetworkConditions",
            {
                "offline": offline,
                "latency": 0,
                "downloadThroughput": -1,
                "uploadThroughput": bytes_per_second or -1,
            },
        )


@pytest.fixture
def visit(playwright: Playwright, tmp_path: Path) -> Iterator[Callable[..., Visitor]]:
    """Open a browser with a profile of its own; another visit with its folder comes back to it."""
    opened: list[BrowserContext] = []

    def open_browser(profile: str = "profile", **options: Any) -> Visitor:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / profile,
            executable_path=shutil.which("chromium"),
            # Root has no sandbox in a container.
            args=["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else [],
            locale=options.pop("locale", "en-GB"),
            **options,
        )
        opened.append(context)
        return visitor_of(context, tmp_path / profile)

    yield open_browser
    for context in opened:
        # One that was killed is closed.
        with suppress(Exception):
            context.close()


def visitor_of(context: BrowserContext, profile: Path) -> Visitor:
    """Return a visitor on the first page of a browser."""
    page = context.pages[0] if context.pages else context.new_page()
    visitor = Visitor(context, page, profile)
    page.on("pageerror", lambda error: visitor.errors.append(str(error)))
    page.on("console", lambda m: visitor.errors.append(m.text) if m.type == "error" else None)

    def finished(request: Any) -> None:
        number = request.url.partition("partNumber=")[2].partition("&")[0]
        if request.method == "PUT" and number:
            visitor.sent.append(number)

    page.on("requestfinished", finished)
    return visitor


def digest_of(content: bytes) -> str:
    """Return a SHA-256, which a failing test can show."""
    return hashlib.sha256(content).hexdigest()
