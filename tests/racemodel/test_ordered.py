"""With the queue that orders three laws more hold; without it, or a part of it, they do not."""

from __future__ import annotations

import concurrent.futures
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given

from tests.racemodel.mutants import mutant_of_processor
from tests.racemodel.ordered import ORDER, OrderedWorld, WatchedWorld, side_by_side
from tests.racemodel.strategies import find_breach, scenarios
from tests.racemodel.test_racemodel import run_settings
from twobuckets import processor as real_processor

if TYPE_CHECKING:
    from tests.racemodel.world import Scenario

VERSIONED = scenarios(staging_versioned=True)
_world: list[OrderedWorld] = []


def run_ordered(scenario: Scenario, processor: ModuleType = real_processor, **kind: Any) -> None:
    world = OrderedWorld(scenario, processor, **kind)
    _world[:] = [world]
    world.run()


@run_settings(150)
@given(VERSIONED)
def test_no_interleaving_breaks_the_order(scenario: Scenario) -> None:
    run_ordered(scenario)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [1, 3])
def test_none_of_20_000_interleavings_breaks_the_order(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_records_run_side_by_side(monkeypatch)

    @run_settings(10_000)
    @given(VERSIONED)
    def run(scenario: Scenario) -> None:
        run_ordered(scenario, batch=batch, wakes=2)

    run()


def let_records_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = side_by_side(lambda: _world[0].scheduler)
    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", executor)


@pytest.mark.parametrize("law", ORDER)
def test_without_a_queue_each_law_is_broken(law: str) -> None:
    def run(scenario: Scenario) -> None:
        WatchedWorld(scenario, order=[law]).run()

    assert find_breach(run, VERSIONED, 4_000, saying=f"{law}: ")


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the processor that order hangs on, and what stands there without it."""

    what: str
    module: str
    source: str
    instead: str
    says: str


PARTS = [
    Part(
        what="routing",
        module="ordering",
        source="return contract.orders(self._url) and not self.sent(messages)",
        instead="return False",
        says="overlap: ",
    ),
    Part(
        what="the routing of wake-ups",
        module="runtime",
        source="if queue is not None and queue.wants(batch.messages):",
        instead="if queue is not None and queue.wants(batch.messages) "
        "and not any(arrival.is_asked_for for arrival in arrivals):",
        says="overlap: ",
    ),
    Part(
        what="a group for each key",
        module="ordering",
        source="MessageGroupId=group_of(arrival.bucket, arrival.key)",
        instead="MessageGroupId=once",
        says="overlap: ",
    ),
    Part(
        what="the look at versions once the message has come",
        module="runtime",
        source="        if not duplicate:\n"
        "            looking.require_wanted(arrival, staged, place, seen)\n",
        instead="        if not duplicate:\n",
        says="late: ",
    ),
    Part(
        what="an id of its own for each message",
        module="ordering",
        source="hashlib.sha256(once.encode())",
        instead="hashlib.sha256(str(arrival.version_id).encode())",
        says="stuck: ",
    ),
]


@pytest.mark.parametrize("part", PARTS, ids=[part.what for part in PARTS])
def test_without_a_part_of_it_a_law_is_broken(mutants: Path, part: Part) -> None:
    careless = mutant_of_processor(mutants, (part.module, part.source, part.instead))
    run = partial(run_ordered, processor=careless)
    assert find_breach(run, VERSIONED, 4_000, saying=part.says)


def test_a_message_that_is_seen_again_while_it_is_processed_breaks_a_law() -> None:
    assert find_breach(partial(run_ordered, leaky=True), VERSIONED, 4_000, saying="overlap: ")


def test_records_of_one_key_side_by_side_break_a_law(
    mutants: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_records_run_side_by_side(monkeypatch)
    each = "pool.map(run_key, [[number] for number in range(len(records))])"
    careless = mutant_of_processor(
        mutants,
        ("runtime", "pool.map(run_key, by_key.values())", each),
        ("runtime", "record_concurrency, len(by_key))", "record_concurrency, len(records))"),
    )
    run = partial(run_ordered, processor=careless, batch=3)
    assert find_breach(run, VERSIONED, 4_000, saying="overlap: ")
