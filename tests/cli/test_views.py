"""Every record has one view, in the file where it is looked for."""

from __future__ import annotations

import pkgutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from twobuckets.cli import views
from twobuckets.cli.views import FILES, View, human, views_of

HERE = Path(views.__file__).parent
# What shows no records: the live displays.
NO_TABLE = {"progress"}


def test_every_file_of_views_is_one_that_records_are_looked_for_in():
    there = {module.name for module in pkgutil.iter_modules([str(HERE)])}
    assert there - NO_TABLE == set(FILES.values())


@pytest.mark.parametrize("file", sorted(set(FILES.values())))
def test_every_view_of_a_file_is_found_by_its_record(file: str):
    for record_type, view in views_of(file).items():
        assert views._find_view(record_type) is view, record_type


def test_a_record_without_a_view_is_named():
    @dataclass
    class Unseen:
        pass

    with pytest.raises(TypeError, match="Unseen has no view"):
        human(Unseen())


def test_a_view_for_terminals_only_is_no_line_of_a_pipe(monkeypatch: pytest.MonkeyPatch):
    @dataclass
    class Table:
        pass

    monkeypatch.setitem(views._FOUND, Table, View(lambda _: object()))  # type: ignore[arg-type,return-value]
    with pytest.raises(TypeError, match="terminals only"):
        views.plain(Table())
