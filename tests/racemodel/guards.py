"""Every guard of the processor, what stands there when it is taken out, and where it counts."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import strategies as st

from tests.racemodel.strategies import scenarios
from tests.racemodel.world import Scenario, Upload


@dataclass(frozen=True, slots=True)
class Guard:
    """A piece of a module's source without which some scenario of `among` breaks a law."""

    what: str
    source: str
    instead: str
    among: st.SearchStrategy[Scenario]
    module: str = "archive"
    says: str = ""
    examples: int = field(default=3_000)


ANY = scenarios(staging_versioned=True, archive_versioned=True)
QUIET = scenarios(staging_versioned=True, archive_versioned=True, is_quiet=True)
SAME_BYTES = scenarios(
    staging_versioned=True, archive_versioned=True, is_quiet=True, repeats_bodies=True
)
UNVERSIONED = scenarios(staging_versioned=False, archive_versioned=False, is_quiet=True)


def _covered(*deaths: int) -> st.SearchStrategy[Scenario]:
    """A third upload is archived wholly while the second one's function is about to copy.

    First and third are the same bytes, so that the copy's condition cannot tell them apart. The
    actors are the client and the three events; the second can die after some of its calls.
    """
    return st.builds(
        lambda before, calls: Scenario(
            uploads=(Upload(b"A"), Upload(b"BB", deaths=deaths), Upload(b"A")),
            schedule=(0, *[1] * 20, *[0] * before, *[2] * calls, 0, 0, *[3] * 20, *[2] * 20),
        ),
        st.integers(1, 3),
        st.integers(1, 12),
    )


# An operator brings the first upload to light again after the second one is archived.
UNDELETED = st.builds(
    lambda before, calls: Scenario(
        uploads=(Upload(b"A"), Upload(b"BB")),
        schedule=(*[0] * before, *[3] * calls, *[1] * 5),
        undelete=True,
    ),
    st.integers(1, 4),
    st.integers(1, 14),
)

GUARDS = [
    Guard(
        what="the version and condition of a read",
        source="        return pin\n",
        instead='        return {"Bucket": self.bucket, "Key": self.key}\n',
        among=QUIET,
        says="read another version",
    ),
    Guard(
        what="the condition on the source of a copy",
        source="""return {"CopySource": source, "CopySourceIfMatch": f'"{self.etag}"'}""",
        instead="""return {"CopySource": source}""",
        among=UNVERSIONED,
        says="archived unprocessed",
    ),
    Guard(
        what="the version of the source of a copy",
        source="""            source["VersionId"] = self.version_id""",
        instead="""            pass""",
        among=SAME_BYTES,
        says="archived unprocessed",
    ),
    Guard(
        what="the look before archiving",
        source="""            require_wanted(arrival, staged, place, seen)""",
        instead="""            pass""",
        among=QUIET,
        says="archived although replaced",
    ),
    Guard(
        what="the condition on the destination of a copy",
        source="""{"IfMatch": f'"{seen.etag}"'} if seen else {"IfNoneMatch": "*"}""",
        instead="""{}""",
        among=QUIET,
        says="regressed",
    ),
    Guard(
        what="the look at what a copy has covered",
        source="""        _keep_newest_on_top(s3, destination, staged.key, above=above)""",
        instead="""        pass""",
        among=_covered(),
        says="regressed",
    ),
    Guard(
        what="the look at what a copy had covered before a crash",
        source="""            _keep_newest_on_top(s3, destination, staged.key, above=None)""",
        instead="""            pass""",
        among=st.integers(1, 12).flatmap(_covered),
        says="regressed",
    ),
    Guard(
        what="the order of uploads",
        source="and not _is_later(arrival, staged, seen, seen.origin):",
        instead="and False:",
        among=UNDELETED,
        says="regressed",
    ),
    Guard(
        what="the verification of a copy",
        source="""    _require_equal(s3, staged, destination, version_id)\n    if""",
        instead="""    if""",
        among=ANY,
        says="lost",
    ),
    Guard(
        what="the verification of a copy that was found",
        source="return is_same(arrival, seen.origin, staged) and is_equal(staged.head, seen.head)",
        instead="return is_same(arrival, seen.origin, staged)",
        among=ANY,
        says="lost",
    ),
    Guard(
        what="the recognition of what is archived",
        source="return is_same(arrival, seen.origin, staged) and is_equal(staged.head, seen.head)",
        instead="return False",
        among=ANY,
        says="processed again",
    ),
    Guard(
        what="the version of a delete",
        source="""Key=staged.key, VersionId=staged.version_id)""",
        instead="""Key=staged.key)""",
        among=ANY,
    ),
    Guard(
        what="the condition of a delete",
        source="""        s3.delete_object(**where, IfMatch=f'"{etag}"')""",
        instead="""        s3.delete_object(**where)""",
        among=UNVERSIONED,
        says="lost",
    ),
    Guard(
        what="the condition of a delete marker",
        source="""        s3.delete_object(**where, IfMatch=f'"{etag}"')""",
        instead="""        s3.delete_object(**where)""",
        among=QUIET,
        says="lost",
    ),
    Guard(
        what="the delete marker over an older version",
        source="""    if place.has_older and not place.is_replaced and not place.is_hidden:""",
        instead="""    if False:""",
        among=QUIET,
        says="stuck",
    ),
    Guard(
        what="the doubt about a delete marker",
        source=" and not (seen and seen.origin):",
        instead=":",
        among=SAME_BYTES,
        says="said missing of the latest upload",
    ),
    Guard(
        what="deleting last",
        source="""        try:
            version_id = _ensure_archived(""",
        instead="""        delete_staged(s3, staged, place)
        try:
            version_id = _ensure_archived(""",
        among=ANY,
        says="lost",
    ),
]
