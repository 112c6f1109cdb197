"""Files go up and back through faults and kills (`python -m tests.faults` blows harder)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.faults.storm import Wishes, run_storm

if TYPE_CHECKING:
    from pathlib import Path

    from twobuckets import local
    from twobuckets.aws.clients import Aws


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_storm_loses_nothing_and_every_report_is_true(
    embedded: Aws, embedded_server: local.Server, tmp_path: Path
):
    wishes = Wishes(files=60, rate=0.15, kill_seconds=2, large_every=100)
    storm = run_storm(embedded_server, embedded, tmp_path / "storm", wishes)
    assert (storm.lost, storm.wrong, storm.untrue) == ([], [], [])
    # The first run of each is killed in its first requests, wherever it is by then.
    assert storm.up.kills > 0
    assert storm.back.kills > 0
    assert storm.up.faults.total() > 0
    assert storm.back.faults.total() > 0
