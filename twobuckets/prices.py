"""What storage and requests cost: S3's list prices as numbers. Pure.

The default is the list price of us-east-1 (Amazon S3 pricing page, first 50 TB a month). Other
regions differ by some tens of percent, and nobody's discounts are known here: every amount is an
estimate, and whoever shows one says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

_GB_BYTES: Final = 1024**3
"""S3 bills a GB of 2^30 bytes (Amazon S3 pricing page, "Storage")."""
_STANDARD: Final = "STANDARD"


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars for a GB stored for a month by storage class, and for 1,000 requests.

    `writes_usd` is for PUT, COPY, POST and LIST, `reads_usd` for GET and HEAD; DELETE is free.
    """

    storage_usd: Mapping[str, float]
    writes_usd: float
    reads_usd: float

    def month_usd(self, stored_bytes: int, storage_class: str = _STANDARD) -> float:
        """Return what storing so many bytes costs a month; an unknown class costs as Standard."""
        gb_usd = self.storage_usd.get(storage_class, self.storage_usd[_STANDARD])
        return stored_bytes / _GB_BYTES * gb_usd

    def requests_usd(self, *, writes: int = 0, reads: int = 0) -> float:
        """Return what so many requests cost, once."""
        return (writes * self.writes_usd + reads * self.reads_usd) / 1000

    def scaled_to(self, standard_gb_month_usd: float) -> Prices:
        """Return the prices of a region where a GB-month of Standard costs so much.

        The other prices change by the same factor, which is about what AWS's regions do.
        """
        factor = standard_gb_month_usd / self.storage_usd[_STANDARD]
        return replace(
            self,
            storage_usd={name: usd * factor for name, usd in self.storage_usd.items()},
            writes_usd=self.writes_usd * factor,
            reads_usd=self.reads_usd * factor,
        )


US_EAST_1: Final = Prices(
    storage_usd=MappingProxyType(
        {
            _STANDARD: 0.023,
            "REDUCED_REDUNDANCY": 0.024,
            "INTELLIGENT_TIERING": 0.023,
            "STANDARD_IA": 0.0125,
            "ONEZONE_IA": 0.01,
            "GLACIER_IR": 0.004,
            "GLACIER": 0.0036,
            "DEEP_ARCHIVE": 0.00099,
        }
    ),
    writes_usd=0.005,
    reads_usd=0.0004,
)


# AWS Lambda pricing page, us-east-1, first tier.
_GB_SECOND_USD: Final = MappingProxyType({"x86_64": 0.0000166667, "arm64": 0.0000133334})
_INVOCATION_USD: Final = 0.0000002


def function_usd(gb_seconds: float, invocations: int, architecture: str) -> float:
    """Return what invocations of a function cost; an unknown architecture costs as x86_64."""
    gb_second_usd = _GB_SECOND_USD.get(architecture, _GB_SECOND_USD["x86_64"])
    return gb_seconds * gb_second_usd + invocations * _INVOCATION_USD


def format_usd(amount: float) -> str:
    """Return an amount with as many digits as say something: `$0`, `<$0.01`, `$3.07`, `$1,200`."""
    if amount <= 0:
        return "$0"
    if amount < 0.01:
        return "<$0.01"
    return f"${amount:,.2f}" if amount < 1000 else f"${amount:,.0f}"


LAMBDA_GB_SECOND_USD: Final = {"arm64": 0.0000133334, "x86_64": 0.0000166667}
"""What a GB of memory costs a function each second (AWS Lambda pricing, us-east-1)."""
FARGATE_VCPU_HOUR_USD: Final = {"arm64": 0.03238, "x86_64": 0.04048}
"""What a processor costs a job each hour (AWS Fargate pricing, us-east-1)."""
FARGATE_GB_HOUR_USD: Final = {"arm64": 0.00356, "x86_64": 0.004445}
"""What a GB of memory costs a job each hour."""
