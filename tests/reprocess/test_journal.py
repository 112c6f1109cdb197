"""The journal: what survives, who may go on with it, and what is read back."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from twobuckets.errors import TwoBucketsError, UsageError
from twobuckets.reprocess.items import Change, State
from twobuckets.reprocess.journals import (
    create,
    find_process,
    find_unfinished,
    open_newest,
    remove_old,
    require_unfinished,
)
from twobuckets.reprocess.plan import Action, Kind

if TYPE_CHECKING:
    from twobuckets.reprocess.journal import Journal

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
PLACE = "a pipeline"


def new(directory: Path, *keys: str, fingerprint: str = "f") -> Journal:
    description = {"command": "c", "place": PLACE}
    journal = create(directory, fingerprint=fingerprint, description=description, now=NOW)
    journal.add(Action(key, Kind.COPY, "v", "e", 5) for key in keys)
    return journal


@settings(max_examples=20)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=30))
def test_any_key_comes_back_exactly_and_in_order(
    tmp_path_factory: pytest.TempPathFactory, keys: list[str]
):
    with new(tmp_path_factory.mktemp("j"), *keys) as journal:
        assert [item.key for item in journal.iter_items(State.PLANNED)] == keys


def test_items_may_change_while_they_are_read(tmp_path: Path):
    with new(tmp_path, *(str(n) for n in range(1200))) as journal:
        seen = 0
        for item in journal.iter_items(State.PLANNED):
            journal.note([Change(item.id, State.DONE)])
            seen += 1
        assert seen == 1200
        assert list(journal.iter_items(State.PLANNED)) == []
        (count,) = journal.counts()
        assert (count.state, count.objects, count.bytes) == (State.DONE, 1200, 6000)


def test_a_plan_that_nobody_agreed_to_is_not_gone_on_with(tmp_path: Path):
    new(tmp_path, "a").close()
    assert find_unfinished(tmp_path, place=PLACE) is None
    with pytest.raises(UsageError, match="no unfinished reprocess run"):
        require_unfinished(tmp_path, place=PLACE)


def test_an_agreed_run_is_found_again_by_its_words_until_it_has_ended(tmp_path: Path):
    with new(tmp_path, "a") as journal:
        journal.approve()
        with pytest.raises(TwoBucketsError, match=f"process {os.getpid()} works on it"):
            find_unfinished(tmp_path, place=PLACE, fingerprint="f")
        assert find_unfinished(tmp_path, place=PLACE, fingerprint="other") is None
        assert find_process(journal.path) == os.getpid()
    assert find_process(journal.path) is None
    assert find_unfinished(tmp_path, place="another pipeline") is None
    assert find_unfinished(tmp_path, place=PLACE, fingerprint="other") is None
    with require_unfinished(tmp_path, place=PLACE) as found:
        assert [item.key for item in found.iter_items()] == ["a"]
        found.end(NOW)
    assert find_unfinished(tmp_path, place=PLACE) is None
    newest = open_newest(tmp_path, place=PLACE)
    assert newest is not None
    with newest:
        assert newest.is_ended


def test_what_failed_is_planned_again_and_what_had_begun_is_looked_at_first(tmp_path: Path):
    with new(tmp_path, "a", "b", "c") as journal:
        a, b, c = journal.iter_items()
        journal.begin([a], 5.0)
        journal.note([Change(a.id, State.FAILED, "why"), Change(b.id, State.FAILED, "why")])
        journal.note([Change(c.id, State.LEFT, "gone")])
        assert journal.reopen_failed() == 2
        assert [(i.key, i.state) for i in journal.iter_items()] == [
            ("a", State.BEGUN),
            ("b", State.PLANNED),
            ("c", State.LEFT),
        ]


def test_what_was_noted_survives_a_kill(tmp_path: Path):
    script = textwrap.dedent(f"""
        import time
        from pathlib import Path
        from tests.reprocess.test_journal import *
        journal = new(Path({str(tmp_path)!r}), *map(str, range(300)))
        journal.approve()
        for item in journal.iter_items():
            journal.note([Change(item.id, State.DONE)])
            print(item.id, flush=True)
    """)
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        noted = 0
        while noted < 100:
            noted = int(process.stdout.readline())
        os.kill(process.pid, signal.SIGKILL)
    with require_unfinished(tmp_path, place=PLACE) as journal:
        assert len(list(journal.iter_items(State.DONE))) >= noted


def test_old_runs_and_unused_plans_are_forgotten_and_others_kept(tmp_path: Path):
    for name, approve, end in (
        ("ended", True, True),
        ("unused", False, False),
        ("open", True, False),
    ):
        with new(tmp_path, name) as journal:
            if approve:
                journal.approve()
            if end:
                journal.end(NOW)
    remove_old(tmp_path, before=NOW + timedelta(days=1))
    with require_unfinished(tmp_path, place=PLACE) as journal:
        assert [item.key for item in journal.iter_items()] == ["open"]
    assert len(list(tmp_path.glob("*.journal"))) == 1


def test_a_folder_that_can_not_be_written_to_is_an_error_that_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TwoBucketsError, match="Could not write the journal"):
        create(tmp_path / "file" / "x", fingerprint="f", description={}, now=NOW)


def test_a_journal_that_was_begun_and_not_written_is_passed_over_and_kept(tmp_path: Path):
    with new(tmp_path, "a") as journal:
        journal.approve()
    (tmp_path / "20991231T000000-001.journal").write_bytes(b"")
    remove_old(tmp_path, before=NOW + timedelta(days=1))
    with require_unfinished(tmp_path, place=PLACE) as found:
        assert found.path == journal.path
    newest = open_newest(tmp_path, place=PLACE)
    assert newest is not None
    newest.close()
    assert len(list(tmp_path.glob("*.journal"))) == 2
