"""The third actor: doctor's remedy for what is archived and was not deleted from staging."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

from tests.racemodel.world import ARCHIVE, STAGING, World
from twobuckets.doctor import remedies as real_remedies
from twobuckets.errors import TwoBucketsError
from twobuckets.pipeline.versions import Version

if TYPE_CHECKING:
    from tests.racemodel.s3 import Client
    from twobuckets.doctor.site import Site

_LOOKS = 3
"""How often somebody runs doctor."""


def add_doctor(world: World, key: str = "key", remedies: Any = real_remedies) -> None:
    """Add somebody who runs `doctor --fix` for the key, whatever else goes on."""

    def fix(client: Client) -> None:
        site = cast(
            "Site",
            SimpleNamespace(
                aws=SimpleNamespace(s3=client),
                staging=STAGING,
                archive=ARCHIVE,
                sleep=lambda seconds: None,
            ),
        )
        for _ in range(_LOOKS):
            for stuck in _list(client, world, key):
                try:
                    remedies._delete_archived(site, stuck)
                except TwoBucketsError:
                    continue  # one line of the command's report

    world.spawn("doctor", fix)


def _list(client: Client, world: World, key: str) -> list[Version]:
    """Return what doctor lists in staging: the current objects."""
    page = client.list_objects_v2(Bucket=STAGING, Prefix=key)
    return [
        Version(
            row["Key"],
            row["VersionId"] if world.staging.versioned else None,
            row["ETag"].strip('"'),
            row["Size"],
            row["LastModified"],
        )
        for row in page["Contents"]
    ]
