"""The upload page of a stack: a link opens it, files come through, and bad days do no harm."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.embedded.browser import MIB, digest_of, intake, playwright, visit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.embedded.browser import Intake, Visitor

__all__ = ["intake", "playwright", "visit"]

pytestmark = pytest.mark.browser


def link_to(intake: Intake, prefix: str, *options: str) -> str:
    link, summary = intake.run("link", "--prefix", prefix, *options)
    assert summary["minted"] == 1
    return str(link["url"])


def archived_under(intake: Intake, prefix: str) -> dict[str, str]:
    """Return the keys under a prefix by the path that the sender knows, without the delivery."""
    listed = intake.aws.s3.list_objects_v2(Bucket=intake.archive, Prefix=prefix)
    keys = [item["Key"] for item in listed.get("Contents", [])]
    return {key.removeprefix(prefix).partition("/")[2]: key for key in keys}


def require_archived(intake: Intake, prefix: str, name: str, content: bytes) -> None:
    key = archived_under(intake, prefix)[name]
    assert digest_of(intake.archived(key)) == digest_of(content)


def test_files_and_folders_of_all_kinds_arrive_and_leave_a_receipt(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path
):
    folder = tmp_path / "Ordner"
    contents = {"käse & 50%+.csv": b"a,b\n", "leer.txt": b"", "a/b/big.bin": os.urandom(9 * MIB)}
    contents |= {f"a/{n}.txt": str(n).encode() for n in range(30)}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    visitor = visit()
    visitor.open(link_to(intake, "folder/", "--title", "Files for Acme"))
    assert visitor.text("#title") == "Files for Acme"
    assert visitor.text("#sentence") == "Ask Ada."
    visitor.choose(folder, folder=True)
    # The same path once more is another file, in another delivery.
    other = tmp_path / "Ordner.txt"
    for content in (b"one", b"two"):
        other.write_bytes(content)
        visitor.choose(other)
        visitor.wait(lambda: all(s == "processed" for s in visitor.states()), seconds=60)
    assert visitor.errors == []
    assert len(visitor.states()) == len(contents) + 2
    for name, content in contents.items():
        require_archived(intake, "folder/", f"Ordner/{name}", content)
    listed = intake.aws.s3.list_objects_v2(Bucket=intake.archive, Prefix="folder/")["Contents"]
    twice = [item["Key"] for item in listed if item["Key"].endswith("/Ordner.txt")]
    assert sorted(map(intake.archived, twice)) == [b"one", b"two"]

    with visitor.page.expect_download() as download:
        visitor.page.click("#receipt")
    receipt = download.value.path().read_text()
    assert "Files for Acme" in receipt
    assert all(f"Ordner/{name}\n" in receipt for name in contents)
    head = intake.aws.s3.head_object(
        Bucket=intake.archive,
        Key=archived_under(intake, "folder/")["Ordner/a/b/big.bin"],
        ChecksumMode="ENABLED",
    )
    assert f"CRC64NVME {head['ChecksumCRC64NVME']}" in receipt


def test_a_killed_browser_goes_on_and_an_upload_that_is_not_wanted_leaves_nothing(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path
):
    url = link_to(intake, "killed/")
    content = os.urandom(40 * MIB + 777)
    file, unwanted = tmp_path / "killed.bin", tmp_path / "unwanted.bin"
    file.write_bytes(content)
    unwanted.write_bytes(os.urandom(20 * MIB))
    visitor = visit()
    visitor.open(url)
    visitor.slow_down(12 * MIB)
    visitor.choose(file, unwanted)
    visitor.wait(lambda: len(visitor.sent) >= 3)
    visitor.kill()
    assert len(intake.uploads()) == 2

    visitor = visit()
    visitor.open(url)
    visitor.wait(visitor.is_ready)
    rows = visitor.page.query_selector_all("#kept li")
    shown = [row.inner_text() for row in rows]
    assert any("killed.bin" in text and "of 40 MiB arrived" in text for text in shown)
    stored = visitor.stored()
    assert url.partition("#")[2] not in stored
    assert "X-Amz" not in stored
    (row,) = [row for row in rows if "unwanted.bin" in row.inner_text()]
    discard = row.query_selector(".discard")
    assert discard is not None
    discard.click()
    visitor.wait(lambda: len(intake.uploads()) == 1)
    before = parts_in_s3(intake)
    assert before
    visitor.choose(file)
    visitor.wait_for("processed")
    assert set(visitor.sent).isdisjoint(before)
    assert len(visitor.sent) + len(before) == 6
    require_archived(intake, "killed/", "killed.bin", content)

    # Cancelled in the middle: S3 keeps nothing of it.
    visitor.slow_down(4 * MIB)
    visitor.choose(unwanted)
    visitor.wait(lambda: len(intake.uploads()) == 1)
    visitor.page.click(".cancel")
    visitor.wait_for("processed", "cancelled")
    visitor.wait(lambda: intake.uploads() == [])


def parts_in_s3(intake: Intake) -> set[str]:
    (upload,) = intake.aws.s3.list_multipart_uploads(Bucket=intake.staging)["Uploads"]
    listed = intake.aws.s3.list_parts(
        Bucket=intake.staging, Key=upload["Key"], UploadId=upload["UploadId"]
    )
    return {str(part["PartNumber"]) for part in listed.get("Parts", [])}


def test_a_file_that_the_browser_keeps_a_handle_of_goes_on_without_being_chosen(
    intake: Intake, visit: Callable[..., Visitor]
):
    visitor = visit()
    visitor.open(link_to(intake, "handle/"))
    # A file of the page's own file system stands for one that the person picks.
    visitor.page.evaluate(
        """async size => {
          const root = await navigator.storage.getDirectory()
          const handle = await root.getFileHandle('picked.bin', { create: true })
          const stream = await handle.createWritable()
          await stream.write(new Uint8Array(size).fill(7))
          await stream.close()
          window.showOpenFilePicker = async () => [handle]
        }""",
        20 * MIB,
    )
    visitor.slow_down(6 * MIB)
    visitor.page.click("#pick")
    visitor.wait(lambda: len(visitor.sent) >= 1)
    visitor.page.click(".pause")
    visitor.wait_for("paused")
    before = list(visitor.sent)
    visitor.slow_down(0)
    visitor.page.reload()
    visitor.wait(lambda: visitor.page.is_visible("#kept .resume"))
    visitor.page.click("#kept .resume")
    visitor.wait_for("processed")
    assert set(visitor.sent[len(before) :]).isdisjoint(before)
    require_archived(intake, "handle/", "picked.bin", b"\x07" * 20 * MIB)


def test_what_was_chosen_and_can_not_be_read_is_shown_and_keeps_no_other_file_back(
    intake: Intake, visit: Callable[..., Visitor]
):
    visitor = visit()
    visitor.open(link_to(intake, "locked/"))
    # It takes what is dropped once it knows its link.
    visitor.wait(lambda: visitor.page.is_visible("#pick"))
    visitor.page.evaluate(
        """() => {
          const no = () => new DOMException('locked', 'NotReadableError')
          const good = name => ({ isFile: true, name, file: take => take(new File([name], name)) })
          const bad = { isFile: true, name: 'bad', file: (_, refuse) => refuse(no()) }
          const folder = (name, ...reads) => ({
            isDirectory: true, name, createReader: () => ({ readEntries: (take, refuse) => {
              const read = reads.shift() ?? []
              read === no ? refuse(no()) : take(read)
            } }),
          })
          const entry = folder('top', [bad, folder('shut', no), good('one')], [good('two')])
          const items = [{ kind: 'file', webkitGetAsEntry: () => entry, getAsFile: () => null }]
          dispatchEvent(Object.assign(new Event('drop'), { dataTransfer: { items } }))
          window.showOpenFilePicker = async () => [
            { name: 'gone', getFile: async () => { throw no() } },
            { name: 'three', getFile: async () => new File(['three'], 'three') },
          ]
        }"""
    )
    visitor.page.click("#pick")
    visitor.wait(lambda: sorted(visitor.states()) == ["failed"] * 3 + ["processed"] * 3)
    assert "3 files were not received." in visitor.text("#said")
    shown = [row.inner_text() for row in visitor.page.query_selector_all("#list .name")]
    assert set(shown) == {"top/bad", "top/shut", "top/one", "top/two", "gone", "three"}
    require_archived(intake, "locked/", "top/two", b"two")


def test_a_bad_line_and_signatures_that_ran_out_only_take_time(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path
):
    content = os.urandom(24 * MIB)
    file = tmp_path / "far.bin"
    file.write_bytes(content)
    visitor = visit()
    signed = []

    def spoil(route: Any) -> None:
        """Hand out signatures of long ago every second time."""
        answer = route.fetch()
        body = answer.json()
        signed.append(len(body["parts"]))
        if len(signed) % 2:
            for request in body["parts"].values():
                request["url"] = request["url"].replace("X-Amz-Date=2", "X-Amz-Date=1")
        route.fulfill(response=answer, body=json.dumps(body))

    visitor.page.route("**/api/parts", spoil)
    visitor.open(link_to(intake, "far/"))
    visitor.slow_down(8 * MIB)
    visitor.choose(file)
    visitor.wait(lambda: len(visitor.sent) >= 1)
    visitor.slow_down(0, offline=True)
    visitor.wait(lambda: "offline" in visitor.notes()[0], seconds=60)
    visitor.slow_down(0)
    visitor.wait_for("processed", seconds=60)
    # One call signs several parts.
    assert max(signed) > 1
    require_archived(intake, "far/", "far.bin", content)


def test_a_lost_answer_is_no_failure_and_another_file_of_the_name_is_never_taken_for_it(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path
):
    visitor = visit()
    failed: list[str] = []

    def lose(route: Any) -> None:
        """Let the first try of the first file arrive, and say that it failed."""
        request = route.request
        if request.method != "PUT" or failed:
            route.continue_()
            return
        failed.append(unquote(urlsplit(request.url).path).split("/", 2)[2])
        intake.aws.s3.put_object(Bucket=intake.staging, Key=failed[0], Body=b"")
        origin = request.headers["origin"]
        route.fulfill(status=503, headers={"access-control-allow-origin": origin})

    visitor.page.route(f"**/{intake.staging}/**", lose)
    visitor.open(link_to(intake, "same/"))
    with intake.asleep():
        (tmp_path / "caf\u00e9.txt").write_bytes(b"")
        visitor.choose(tmp_path / "caf\u00e9.txt")
        visitor.wait_for("received")
        # One name, in two ways of writing it.
        (tmp_path / "cafe\u0301.txt").write_bytes(b"other")
        visitor.choose(tmp_path / "cafe\u0301.txt")
        visitor.wait_for("received", "received")
        listed = intake.aws.s3.list_objects_v2(Bucket=intake.staging, Prefix="same/")["Contents"]
        assert sorted(item["Size"] for item in listed) == [0, 5]
        assert failed[0] in [item["Key"] for item in listed]
    empty_staging(intake, "same/")


def empty_staging(intake: Intake, prefix: str) -> None:
    listed = intake.aws.s3.list_objects_v2(Bucket=intake.staging, Prefix=prefix)["Contents"]
    for item in listed:
        intake.aws.s3.delete_object(Bucket=intake.staging, Key=item["Key"])


def test_a_link_takes_what_it_is_for_until_it_is_revoked(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path
):
    url = link_to(intake, "few/", "--max-files", "2", "--max-size", "1MB", "--types", "txt,csv")
    names = ("one.txt", "two.csv", "three.txt", "four.exe", "five.txt")
    for name in names:
        size = 2 * MIB if name == "five.txt" else 10
        (tmp_path / name).write_bytes(b"x" * size)
    visitor = visit()
    visitor.open(url)
    assert "Up to 2 files of up to 977 KiB each" in visitor.text("#terms")
    visitor.choose(*(tmp_path / name for name in names))
    visitor.wait(lambda: not {"waiting", "running", "received"} & set(visitor.states()))
    assert sorted(visitor.states()) == ["failed"] * 3 + ["processed"] * 2
    assert "This link has had all the files that it was good for." in visitor.notes()
    assert "Only files of these types can be sent here: txt, csv." in visitor.notes()
    listed, summary = intake.run("ls", "links")[-2:]
    links = [row for row in intake.run("ls", "links") if row.get("prefix") == "few/"]
    (link,) = links
    assert (link["claimed"], link["files"], link["max_files"]) == (2, 2, 2)
    assert url.partition("#")[2] not in json.dumps([listed, summary])

    ended, _ = intake.run("link", "--revoke", link["id"])
    assert ended["prefix"] == "few/"
    # A browser that never asked before finds it gone at once where no broker remembers it.
    assert [row for row in intake.run("ls", "links") if row.get("prefix") == "few/"] == []


def test_without_a_link_the_page_is_inert(intake: Intake, visit: Callable[..., Visitor]):
    url = link_to(intake, "inert/").partition("#")[0]
    visitor = visit()
    for fragment in ("", "#guess", "#" + "A" * 43):
        visitor.page.goto("about:blank")
        visitor.open(url + fragment)
        assert "incomplete, does not exist or was withdrawn" in visitor.text("#terms")
        assert not visitor.is_ready()


def test_everybody_can_use_the_page_of_a_stack(
    intake: Intake, visit: Callable[..., Visitor], tmp_path: Path
):
    from axe_playwright_python.sync_playwright import Axe

    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_bytes(b"x")
    visitor = visit(viewport={"width": 320, "height": 640}, bypass_csp=True)
    visitor.open(link_to(intake, "axe/"))
    found = Axe().run(visitor.page)
    assert found.violations_count == 0, found.generate_report()
    visitor.choose(tmp_path / "a.txt", tmp_path / "b.txt")
    visitor.wait_for("processed", "processed")
    found = Axe().run(visitor.page)
    assert found.violations_count == 0, found.generate_report()
    assert visitor.text("#said") == "All 2 files were received and processed."
