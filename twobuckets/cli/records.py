"""The records that commands make themselves, beside those of the rooms: how each of them ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class InitSummary:
    """What `init` did."""

    type_name: ClassVar[str] = "summary"
    files: int


@dataclass(frozen=True, slots=True)
class BuildSummary:
    """What `build` did."""

    type_name: ClassVar[str] = "summary"
    artifacts: int
    zipped_bytes: int
    unzipped_bytes: int


@dataclass(frozen=True, slots=True)
class Template:
    """The CloudFormation template, as YAML."""

    body: str


@dataclass(frozen=True, slots=True)
class TemplateSummary:
    """What `template` did."""

    type_name: ClassVar[str] = "summary"
    size_bytes: int


@dataclass(frozen=True, slots=True)
class CompletionScript:
    """The script that makes a shell complete commands."""

    shell: str
    body: str


@dataclass(frozen=True, slots=True)
class CompletionSummary:
    """What `completion` did."""

    type_name: ClassVar[str] = "summary"
    shell: str


@dataclass(frozen=True, slots=True)
class PresignSummary:
    """What `presign` did."""

    type_name: ClassVar[str] = "summary"
    requests: int
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class CredentialsSummary:
    """What `credentials` did."""

    type_name: ClassVar[str] = "summary"
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class LsSummary:
    """What was listed, together; `cost_month_usd` is an estimate at list prices."""

    type_name: ClassVar[str] = "summary"
    bucket: str
    count: int
    size_bytes: int
    cost_month_usd: float


@dataclass(frozen=True, slots=True)
class LogsSummary:
    """How much was shown; `outcomes` counts outcomes, `failed-invocation` and `line` by name.

    Nothing from before `start_at` was looked at.
    """

    type_name: ClassVar[str] = "summary"
    log_group: str
    entries: int
    outcomes: dict[str, int]
    start_at: datetime


@dataclass(frozen=True, slots=True)
class HelpSummary:
    """How many topics, or pages, `help` showed."""

    type_name: ClassVar[str] = "summary"
    topics: int


@dataclass(frozen=True, slots=True)
class Progressed:
    """How far a run is, told now and then; `total_bytes` is what was found so far."""

    type_name: ClassVar[str] = "progress"

    sent_bytes: int
    total_bytes: int
    done: int
