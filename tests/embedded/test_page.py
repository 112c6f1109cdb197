"""A page that needs no server uploads a file in a real browser, and nothing but that file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest

from tests.embedded.browser import MIB, digest_of, intake, playwright, visit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.embedded.browser import Intake, Visitor

__all__ = ["intake", "playwright", "visit"]

pytestmark = pytest.mark.browser


def link_to(intake: Intake, key: str, *options: str) -> str:
    page, _ = intake.run("presign", key, "--page-link", *options)
    assert page["type"] == "upload-page"
    return str(page["url"])


def test_a_linked_page_uploads_in_parts_and_tells_what_became_of_the_file(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path
):
    key = "in/käse & 50%+.bin"
    file = tmp_path / "any name.bin"
    file.write_bytes(os.urandom(20 * MIB + 12345))
    visitor = visit()
    visitor.open(link_to(intake, key))
    assert visitor.text("#sentence") == f"For {key}"
    visitor.choose(file)
    visitor.wait_for("processed")
    assert visitor.errors == []
    assert sorted(visitor.sent) == ["1", "2", "3"]
    assert digest_of(intake.archived(key)) == digest_of(file.read_bytes())
    head = intake.aws.s3.head_object(Bucket=intake.archive, Key=key, ChecksumMode="ENABLED")
    assert head["ChecksumType"] == "FULL_OBJECT"


def file_page(intake: Intake, folder: Path, key: str, *options: str) -> str:
    path = folder / "page.html"
    intake.run("presign", key, "--page", str(path), *options)
    return path.as_uri()


def arrived(visitor: Visitor, count: int) -> Callable[[], bool]:
    return lambda: len(visitor.sent) >= count


def test_a_closed_page_goes_on_with_what_s3_lacks(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path
):
    content = os.urandom(40 * MIB + 5)
    file = tmp_path / "film.mov"
    file.write_bytes(content)
    url = file_page(intake, tmp_path, "closed.mov")
    visitor = visit()
    visitor.open(url)
    visitor.slow_down(8 * MIB)
    visitor.choose(file)
    visitor.wait(arrived(visitor, 2))
    before = set(visitor.sent)
    visitor.context.close()

    visitor = visit()
    visitor.open(url)
    assert "Interrupted" in visitor.text("#kept")
    assert "film.mov" in visitor.text("#kept")
    visitor.choose(file)
    visitor.wait_for("processed")
    assert set(visitor.sent).isdisjoint(before)
    assert digest_of(intake.archived("closed.mov")) == digest_of(content)
    assert intake.uploads() == []

    visitor.page.reload()
    visitor.wait(lambda: "has ended" in visitor.text("#terms"))
    assert not visitor.is_ready()


def test_parts_of_another_file_of_the_same_name_size_and_time_are_sent_again(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path
):
    content = os.urandom(24 * MIB)
    file = tmp_path / "twin.bin"
    file.write_bytes(content)
    os.utime(file, (1.7e9, 1.7e9))
    visitor = visit()
    visitor.open(link_to(intake, "twin.bin"))
    visitor.slow_down(12 * MIB)
    visitor.choose(file)
    visitor.wait(arrived(visitor, 1))
    visitor.page.click(".pause")
    visitor.wait_for("paused")
    # On AWS pages of strangers' buckets have the same origin, and could read what is kept there.
    assert visitor.page.evaluate("indexedDB.databases()") == []
    before = sorted(visitor.sent)
    changed = content[: 8 * MIB] + os.urandom(16 * MIB)
    file.write_bytes(changed)
    os.utime(file, (1.7e9, 1.7e9))
    visitor.slow_down(0)
    visitor.page.reload()
    visitor.choose(file)
    visitor.wait_for("processed")
    assert sorted(visitor.sent[len(before) :]) == [n for n in "123" if n not in before or n > "1"]
    assert digest_of(intake.archived("twin.bin")) == digest_of(changed)


def test_a_file_that_changes_meanwhile_fails_and_makes_no_object(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path
):
    file = tmp_path / "log.txt"
    file.write_bytes(os.urandom(24 * MIB))
    visitor = visit()
    visitor.open(link_to(intake, "changing.txt"))
    visitor.slow_down(8 * MIB)
    visitor.choose(file)
    visitor.wait(arrived(visitor, 1))
    file.write_bytes(os.urandom(24 * MIB + 1))
    visitor.wait_for("failed")
    assert visitor.notes() == ["The file changed or can no longer be read. Choose it again."]
    assert intake.uploads() == ["changing.txt"]
    # The page is still good for the file as it is now.
    visitor.slow_down(0)
    visitor.page.click(".cancel")
    visitor.choose(file)
    visitor.wait_for("cancelled", "processed")
    assert digest_of(intake.archived("changing.txt")) == digest_of(file.read_bytes())


def test_what_the_page_can_not_do_it_says_in_the_persons_language(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path
):
    file = tmp_path / "a.txt"
    file.write_bytes(b"")
    visitor = visit(locale="de-DE")

    # Another size than the one that is bound.
    visitor.open(link_to(intake, "exact.txt", "--size", "5"))
    visitor.choose(file)
    assert visitor.notes() == ["Diese Seite nimmt eine Datei von genau 5 B; diese hat 0 B."]
    assert visitor.page.get_attribute("html", "lang") == "de"

    # Another file waits under the key: never overwritten, and not called received.
    url = link_to(intake, "taken.txt")
    visitor.open(url)
    with intake.asleep():
        intake.aws.s3.put_object(Bucket=intake.staging, Key="taken.txt", Body=b"first")
        visitor.choose(file)
        visitor.wait_for("failed")
        assert "wartet eine andere Datei" in visitor.notes()[0]
        kept = intake.aws.s3.get_object(Bucket=intake.staging, Key="taken.txt")["Body"].read()
        assert kept == b"first"

    # Signatures that ran out.
    url = link_to(intake, "late.txt", "--expires", "2s")
    visitor.open(url)
    visitor.page.wait_for_timeout(2100)
    visitor.choose(file)
    visitor.wait_for("failed")
    assert visitor.notes() == ["Diese Seite ist abgelaufen. Bitten Sie um eine neue."]

    # An empty file is a file.
    visitor.open(link_to(intake, "empty.txt", "--file", str(file)))
    visitor.choose(file)
    visitor.wait_for("processed")
    assert intake.archived("empty.txt") == b""
    assert visitor.text("#said") == "Die Datei ist angekommen und verarbeitet."


def test_a_bucket_without_a_rule_for_the_page_is_named(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path
):
    url = file_page(intake, tmp_path, "nocors.txt")
    rules: Any = intake.aws.s3.get_bucket_cors(Bucket=intake.staging)["CORSRules"]
    intake.aws.s3.delete_bucket_cors(Bucket=intake.staging)
    try:
        visitor = visit()
        visitor.open(url)
        visitor.wait(lambda: "CORS" in visitor.text("#terms"))
        assert f"bucket {intake.staging} lack the origin null" in visitor.text("#terms")
        assert not visitor.is_ready()
    finally:
        intake.aws.s3.put_bucket_cors(Bucket=intake.staging, CORSConfiguration={"CORSRules": rules})


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everybody_can_use_the_page(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path, scheme: str
):
    from axe_playwright_python.sync_playwright import Axe

    file = tmp_path / "a_rather_long_name_without_a_place_to_break_it.csv"
    file.write_bytes(os.urandom(9 * MIB))
    visitor = visit(color_scheme=scheme, viewport={"width": 320, "height": 640}, bypass_csp=True)
    visitor.open(link_to(intake, f"axe-{scheme}.csv"))
    states = []

    def look() -> None:
        found = Axe().run(visitor.page)
        assert found.violations_count == 0, found.generate_report()
        width = visitor.page.evaluate("document.documentElement.scrollWidth")
        assert width <= 320, "it has to be scrolled sideways"
        states.append(visitor.states())

    look()
    # By the keyboard alone.
    visitor.page.keyboard.press("Tab")
    assert visitor.page.evaluate("document.activeElement.id") == "pick"
    visitor.slow_down(3 * MIB)
    visitor.choose(file)
    visitor.wait(lambda: "of 9 MiB" in "".join(visitor.notes()))
    look()
    visitor.page.focus(".pause")
    visitor.page.keyboard.press("Enter")
    visitor.wait_for("paused")
    look()
    # The button that was pressed is gone, and the one in its place has the focus.
    visitor.slow_down(0)
    visitor.page.keyboard.press("Enter")
    visitor.wait_for("processed")
    look()
    assert states == [[], ["running"], ["paused"], ["processed"]]
