"""Whom a bucket's notification configuration tells of new objects.

Rules: S3 user guide, "Amazon S3 Event Notifications".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from twobuckets.settings import function_name_of, qualifier_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

CREATED: Final = "s3:ObjectCreated:*"
# Every way in which clients bring a file; CompleteMultipartUpload is how large ones end.
_ARRIVALS: Final = (
    "s3:ObjectCreated:Put",
    "s3:ObjectCreated:Post",
    "s3:ObjectCreated:Copy",
    "s3:ObjectCreated:CompleteMultipartUpload",
)
TARGETS: Final = (
    ("LambdaFunctionConfigurations", "LambdaFunctionArn"),
    ("QueueConfigurations", "QueueArn"),
    ("TopicConfigurations", "TopicArn"),
)
EVENTBRIDGE: Final = "EventBridge"
"""Stands where other targets have their ARN."""


@dataclass(frozen=True, slots=True)
class Route:
    """One configuration of a bucket's notification: what it tells whom of which keys."""

    target_arn: str
    events: tuple[str, ...]
    prefix: str = ""
    suffix: str = ""

    @property
    def is_direct(self) -> bool:
        """Tell whether S3 itself calls a function."""
        return ":lambda:" in self.target_arn

    def tells_of(self, key: str) -> bool:
        """Tell whether a key passes the filter."""
        return key.startswith(self.prefix) and key.endswith(self.suffix)

    def overlaps(self, other: Route) -> bool:
        """Tell whether there are keys that pass both filters."""
        return (self.prefix.startswith(other.prefix) or other.prefix.startswith(self.prefix)) and (
            self.suffix.endswith(other.suffix) or other.suffix.endswith(self.suffix)
        )


def is_about_arrivals(configuration: Mapping[str, Any]) -> bool:
    """Tell whether any of the events of one notification configuration is a new object."""
    return any(event.startswith("s3:ObjectCreated") for event in configuration["Events"])


def targets_of(notification: Mapping[str, Any]) -> list[str]:
    """Return the ARNs of all that is told of anything."""
    targets = [c[target] for kind, target in TARGETS for c in notification.get(kind, [])]
    return [*targets, EVENTBRIDGE] if "EventBridgeConfiguration" in notification else targets


def routes_of(notification: Mapping[str, Any]) -> list[Route]:
    """Return the routes of a notification configuration that tell of new objects.

    EventBridge, which is told of everything or nothing, is none of them.
    """
    return [
        route_of(configuration, target)
        for kind, target in TARGETS
        for configuration in filter(is_about_arrivals, notification.get(kind, []))
    ]


def route_of(configuration: Mapping[str, Any], target: str) -> Route:
    """Return the route of one configuration, whose member `target` is an ARN."""
    rules = configuration.get("Filter", {}).get("Key", {}).get("FilterRules", [])
    # S3 writes these names in either case.
    values = {rule["Name"].lower(): rule["Value"] for rule in rules}
    return Route(
        target_arn=configuration[target],
        events=tuple(configuration["Events"]),
        prefix=values.get("prefix", ""),
        suffix=values.get("suffix", ""),
    )


def missing_events(routes: Iterable[Route]) -> list[str]:
    """Return the kinds of arrival that none of the routes tells of."""
    events = {event for route in routes for event in route.events}
    return [event for event in _ARRIVALS if not {event, CREATED} & events]


def routes_to(
    function: str,
    notification: Mapping[str, Any],
    *,
    sources: Callable[[], Collection[str]],
    admits: Callable[[str], bool],
    subscribers: Callable[[str], Collection[str]],
) -> list[Route]:
    """Return the routes of new objects that end at a function, straight or through others.

    `function` is its name, `name:qualifier` or ARN. `sources` returns the ARNs of its event
    sources, `admits` tells whether its policy lets a service call it: a topic or EventBridge counts
    then, and so does EventBridge where a queue feeds the function. `subscribers` returns the
    endpoints of a topic: one that tells a queue of the function's counts as well. All are asked
    only about what does not lead straight to the function.
    """

    def ends_there(route: Route) -> bool:
        if route.is_direct:
            return leads_to(route.target_arn, function)
        if ":sns:" not in route.target_arn:
            return route.target_arn in sources()
        if admits("sns.amazonaws.com"):
            return True
        queues = {arn for arn in sources() if ":sqs:" in arn}
        return bool(queues) and not queues.isdisjoint(subscribers(route.target_arn))

    found = [route for route in routes_of(notification) if ends_there(route)]
    if "EventBridgeConfiguration" in notification and (
        admits("events.amazonaws.com") or any(":sqs:" in arn for arn in sources())
    ):
        found.append(Route(EVENTBRIDGE, (CREATED,)))
    return found


def leads_to(target_arn: str, function: str) -> bool:
    """Tell whether an ARN is a function's, in the version or alias that is meant.

    `function` is its name, `name:qualifier` or ARN.
    """
    if ":lambda:" not in target_arn or function_name_of(target_arn) != function_name_of(function):
        return False
    latest = (None, "$LATEST")
    wanted, got = qualifier_of(function), qualifier_of(target_arn)
    return wanted == got or (wanted in latest and got in latest)
