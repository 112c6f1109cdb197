"""The records that commands make themselves, beside those of the rooms: how each of them ended."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from twobuckets.pipeline.reading import StoredObject


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
class LinkSummary:
    """What `link` did."""

    type_name: ClassVar[str] = "summary"
    minted: int
    revoked: int


@dataclass(frozen=True, slots=True)
class LinksSummary:
    """How many links `ls links` showed."""

    type_name: ClassVar[str] = "summary"
    links: int


@dataclass(frozen=True, slots=True)
class ContentBlock:
    """A block of an object's bytes, from `offset` of what was asked for on."""

    offset: int
    base64: str


@dataclass(frozen=True, slots=True)
class ReadSummary:
    """What `cat` or `get` read; `place` is staging or archive, `file` where it was written."""

    type_name: ClassVar[str] = "summary"
    place: str
    bucket: str
    key: str
    version_id: str | None
    etag: str
    size_bytes: int
    content_type: str | None
    modified_at: datetime
    read_bytes: int
    file: str | None

    @classmethod
    def of(cls, found: StoredObject, *, read_bytes: int, file: str | None) -> ReadSummary:
        """Return what was read of an object."""
        return cls(
            found.place,
            found.bucket,
            found.key,
            found.version_id,
            found.etag,
            found.size_bytes,
            found.content_type,
            found.modified_at,
            read_bytes,
            file,
        )


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
class TracedKey:
    """A key whose life follows: its events, and what is true of it now."""

    key: str


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """How many keys were traced, how many of them need you, and how many events that took.

    The log was searched from `log_start_at` on, which is null where there is none. `has_more` says
    that more keys have the prefix.
    """

    type_name: ClassVar[str] = "summary"
    keys: int
    needs_you: int
    events: int
    log_start_at: datetime | None
    has_more: bool


@dataclass(frozen=True, slots=True)
class FleetSummary:
    """How many pipelines were asked, and of how many something was wrong or could not be read.

    For `status --all` only the latter count, for `doctor --all` findings do.
    """

    type_name: ClassVar[str] = "summary"
    pipelines: int
    attention: int


@dataclass(frozen=True, slots=True)
class WatchSummary:
    """How long was watched, how often, and what it cost at list prices."""

    type_name: ClassVar[str] = "summary"
    looks: int
    watched: timedelta
    outcomes: int
    requests: int
    cost_usd: float


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
