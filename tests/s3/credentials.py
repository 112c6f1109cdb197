"""Credentials that never change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twobuckets.s3.engine import Keys


@dataclass(slots=True)
class FixedCredentials:
    current: Keys

    def keys(self) -> Keys:
        return self.current

    def refresh(self) -> bool:
        return False
