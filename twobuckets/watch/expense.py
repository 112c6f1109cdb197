"""What looking costs: requests counted as they are made, at list prices."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from twobuckets.aws.clients import Aws
    from twobuckets.prices import Prices

_HOUR: Final = timedelta(hours=1)
# Amazon SQS and CloudWatch pricing pages, us-east-1: a million requests, a thousand metrics got.
_SQS_USD: Final = 0.40 / 1_000_000
_METRIC_USD: Final = 0.01 / 1_000


class Expense:
    """Counts calls, of which those of S3, SQS and CloudWatch's metrics cost something."""

    def __init__(self, aws: Aws, prices: Prices) -> None:
        self._prices = prices
        self._calls: Counter[str] = Counter()
        for client in (aws.s3, aws.sqs, aws.cloudwatch, aws.logs, aws.functions):
            client.meta.events.register("before-call", self._count)

    @property
    def requests(self) -> int:
        """How many requests were made."""
        return self._calls.total()

    @property
    def usd(self) -> float:
        """What they cost together."""
        lists = sum(n for name, n in self._calls.items() if name.startswith("s3.List"))
        reads = sum(n for name, n in self._calls.items() if name.startswith("s3.")) - lists
        queues = sum(n for name, n in self._calls.items() if name.startswith("sqs."))
        metrics = sum(n for name, n in self._calls.items() if name.startswith("cloudwatch."))
        stored = self._prices.requests_usd(writes=lists, reads=reads)
        return stored + queues * _SQS_USD + metrics * _METRIC_USD

    def an_hour(self, elapsed: timedelta) -> float:
        """Return what an hour costs like the time so far, which began with a first look."""
        return self.usd * (_HOUR / max(elapsed, timedelta(minutes=1)))

    def _count(self, model: Any, **_: Any) -> None:
        self._calls[f"{model.service_model.service_name}.{model.name}"] += 1
