"""What SNS and EventBridge say of the ways on from S3: who is told, and what of the event is left.

Rules: SNS API reference, ListSubscriptionsByTopic; EventBridge API reference, Target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twobuckets.aws.clients import Aws
    from twobuckets.pipeline.lookups import Lookups

# The members of a rule's target that put something else in the event's place.
_REWRITING: Final = ("Input", "InputPath", "InputTransformer")


@dataclass(frozen=True, slots=True)
class RuleTarget:
    """A target of an EventBridge rule; `rewrites` names what changes the event on the way."""

    rule: str
    arn: str
    rewrites: str | None


class TopicFacts:
    """Topics and EventBridge rules that lead on. Raises CouldNotLook."""

    def __init__(self, aws: Aws, lookups: Lookups) -> None:
        self._aws = aws
        self._lookups = lookups

    def subscribers(self, topic_arn: str) -> list[str]:
        """Return the endpoints of a topic's subscriptions, queues' by ARN; none without a topic."""

        def call() -> Any:
            pages = self._aws.sns.get_paginator("list_subscriptions_by_topic")
            return [
                str(found.get("Endpoint"))
                for page in pages.paginate(TopicArn=topic_arn)
                for found in page["Subscriptions"]
            ]

        what, permission = f"the subscriptions of {topic_arn}", "sns:ListSubscriptionsByTopic"
        found: list[str] = self._lookups.read(what, permission, call, absent=("NotFound",)) or []
        return found

    def rule_targets(self, target_arn: str) -> list[RuleTarget]:
        """Return how the rules of the default event bus lead to an ARN; S3's events come there."""

        def call() -> Any:
            pages = self._aws.events.get_paginator("list_rule_names_by_target")
            return [
                name
                for page in pages.paginate(TargetArn=target_arn)
                for name in page.get("RuleNames", [])
            ]

        what, permission = f"the rules that lead to {target_arn}", "events:ListRuleNamesByTarget"
        rules: list[str] = self._lookups.read(what, permission, call)
        return [
            RuleTarget(rule, target_arn, next((n for n in _REWRITING if n in target), None))
            for rule in rules
            for target in self._targets(rule)
            if target["Arn"] == target_arn
        ]

    def _targets(self, rule: str) -> list[Mapping[str, Any]]:
        def call() -> Any:
            pages = self._aws.events.get_paginator("list_targets_by_rule").paginate(Rule=rule)
            return [target for page in pages for target in page["Targets"]]

        what, permission = f"the targets of the rule {rule}", "events:ListTargetsByRule"
        found: list[Mapping[str, Any]] | None = self._lookups.read(
            what, permission, call, absent=("ResourceNotFoundException",)
        )
        return found or []
