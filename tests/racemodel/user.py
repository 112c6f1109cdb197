"""The function's user code in the race model; it belongs to whichever world is running."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.racemodel.world import World

world: World | None = None


def process(file: Any) -> None:
    assert world is not None
    world.process(file)
