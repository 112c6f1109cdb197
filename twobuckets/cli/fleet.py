"""The pipelines of several regions, each as a command meets one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twobuckets.cli.app import App
from twobuckets.errors import NotFoundError, UsageError
from twobuckets.parallel import map_ordered

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")

_AT_ONCE = 4


def require_fleet(app: App) -> list[App]:
    """Return every pipeline in the regions of the settings, or in the one in use, by its stack.

    Raises UsageError where one pipeline is named, AccessError where a region can't be asked, and
    NotFoundError when there is none at all.
    """
    from twobuckets.stack.stacks import find_pipelines

    settings = app.settings
    if settings.is_local or settings.names_pair:
        raise UsageError(
            "--all is about the stacks of an account, and the settings name one pipeline",
            hint="Leave out --stack local, and staging and archive in twobuckets.toml.",
        )
    regions = settings.fleet_regions or (app.aws.region,)

    def find(region: str) -> list[App]:
        place = _app_in(app, region, None)
        stacks = find_pipelines(place.aws.cloudformation)
        return [_app_in(app, region, stack.name) for stack in stacks]

    fleet = [one for found in map_ordered(find, regions, workers=_AT_ONCE) for one in found]
    if not fleet:
        raise NotFoundError(
            f"There is no pipeline in {', '.join(regions)}",
            hint="--region, or fleet.regions in twobuckets.toml, say where to look.",
        )
    return fleet


def ask_each(fleet: list[App], ask: Callable[[App], T]) -> list[T]:
    """Return what was asked of each pipeline, several at a time, in their order."""
    return list(map_ordered(ask, fleet, workers=_AT_ONCE))


def _app_in(app: App, region: str, stack: str | None) -> App:
    return App(flags={**app.flags, "region": region, "stack": stack})
