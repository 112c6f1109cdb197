"""Every guard of the processor, what stands there when it is taken out, and where it counts."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tests.racemodel.world import Scenario, Upload


@dataclass(frozen=True, slots=True)
class Guard:
    """A piece of a module's source without which this scenario breaks a law.

    In a schedule actor 0 is the client, an operator is 1, and then come the events. The first
    number says who begins; each further one, who goes on when somebody is about to call S3.
    """

    what: str
    source: str
    instead: str
    scenario: Scenario
    says: str
    module: str = "archive"


A, BB, CCC = Upload(b"A"), Upload(b"BB"), Upload(b"CCC")
ONE, TWO = (A,), (A, BB)

# The first event finds its version, reads it, looks whether it still is the one to archive, and
# copies it.
TO_THE_READ, TO_THE_COPY, AFTER_THE_COPY = [1] * 3, [1] * 5, [1] * 6
TO_THE_MARKER = [2] * 6
"""Steps of the second event until it is about to hide its version, with an older one under it."""
WHOLE = 30
"""Steps enough for an event from its beginning to its end."""
UPLOAD = [0]
UPLOADED = [0, *UPLOAD]


def unversioned(uploads: tuple[Upload, ...], schedule: tuple[int, ...]) -> Scenario:
    return Scenario(uploads, schedule, staging_versioned=False, archive_versioned=False)


def covered_in_the_archive(*deaths: int) -> Scenario:
    """A third upload is archived wholly while the second one's function is about to copy.

    First and third are the same bytes, so that the copy's condition cannot tell them apart. The
    second one's function can die after some of its calls.
    """
    return Scenario(
        (A, Upload(b"BB", deaths=deaths), A),
        (*UPLOADED, *[1] * WHOLE, *UPLOAD, *[2] * 5, *UPLOAD, *[3] * WHOLE, *[2] * WHOLE),
    )


GUARDS = [
    Guard(
        what="the version and condition of a read",
        source="        return pin(self.bucket, self.key, self.version_id, self.etag)\n",
        instead='        return {"Bucket": self.bucket, "Key": self.key}\n',
        # The first event finds its version, and then come another one and the same bytes again.
        scenario=Scenario((A, BB, A), (*UPLOADED, *TO_THE_READ, *UPLOAD, *UPLOAD)),
        says="read another version",
        module="looking",
    ),
    Guard(
        what="the condition on the source of a copy",
        source="""return {"CopySource": source, "CopySourceIfMatch": f'"{self.etag}"'}""",
        instead="""return {"CopySource": source}""",
        scenario=unversioned(TWO, (*UPLOADED, *TO_THE_COPY, *UPLOAD)),
        says="archived unprocessed",
        module="looking",
    ),
    Guard(
        what="the version of the source of a copy",
        source="""            source["VersionId"] = self.version_id""",
        instead="""            pass""",
        # With a condition alone, the third upload would be copied for the first one.
        scenario=Scenario((A, BB, A), (*UPLOADED, *TO_THE_COPY, *UPLOAD, *UPLOAD)),
        says="archived unprocessed",
        module="looking",
    ),
    Guard(
        what="the look before archiving",
        source="""            require_wanted(arrival, staged, place, seen)""",
        instead="""            pass""",
        scenario=Scenario(TWO, (*UPLOADED, *TO_THE_READ, *UPLOAD)),
        says="archived although replaced",
    ),
    Guard(
        what="the condition on the destination of a copy",
        source="""{"IfMatch": f'"{seen.etag}"'} if seen else {"IfNoneMatch": "*"}""",
        instead="""{}""",
        # The second upload is archived wholly while the first one's function is about to copy.
        scenario=Scenario(TWO, (*UPLOADED, *TO_THE_COPY, *UPLOAD, *[2] * WHOLE)),
        says="regressed",
        module="copying",
    ),
    Guard(
        what="the look at what a copy has covered",
        source="""        _keep_newest_on_top(s3, destination, staged.key, above=above)""",
        instead="""        pass""",
        scenario=covered_in_the_archive(),
        says="regressed",
    ),
    Guard(
        what="the look at what a copy had covered before a crash",
        source="""            _keep_newest_on_top(s3, destination, staged.key, above=None)""",
        instead="""            pass""",
        scenario=covered_in_the_archive(5),
        says="regressed",
    ),
    Guard(
        what="the order of uploads",
        source="and not _is_later(arrival, staged, seen, seen.origin):",
        instead="and False:",
        # An operator brings the first upload to light again after the second one is archived.
        scenario=Scenario(TWO, (*UPLOADED, *UPLOAD, *[3] * 9, *[1] * 5), undelete=True),
        says="regressed",
        module="looking",
    ),
    Guard(
        what="the verification of a copy",
        source="""        _require_equal(s3, staged, destination, version_id)\n    if""",
        instead="""        pass\n    if""",
        scenario=Scenario(ONE, corrupt_copies=1),
        says="lost",
    ),
    Guard(
        what="the verification of a copy that was found",
        source="        is_like = is_equal(s3, staged.described, seen.described)",
        instead="        is_like = True",
        scenario=Scenario(ONE, corrupt_copies=1),
        says="lost",
        module="looking",
    ),
    Guard(
        what="the recognition of what is archived",
        source="    return judge_copy(seen.origin, identity_of(arrival, staged), likeness)",
        instead="    return False and likeness",
        scenario=Scenario((Upload(b"A", deaths=(5,)),)),
        says="processed again",
        module="looking",
    ),
    Guard(
        what="the version of a delete",
        source="""Key=staged.key, VersionId=staged.version_id)""",
        instead="""Key=staged.key)""",
        scenario=Scenario(ONE),
        says="said archived of a version that is still in staging",
    ),
    Guard(
        what="the condition of a delete",
        source="""        s3.delete_object(**where, IfMatch=f'"{etag}"')""",
        instead="""        s3.delete_object(**where)""",
        scenario=unversioned(TWO, (*UPLOADED, *AFTER_THE_COPY, *UPLOAD)),
        says="lost",
    ),
    Guard(
        what="the condition of a delete marker",
        source="""        s3.delete_object(**where, IfMatch=f'"{etag}"')""",
        instead="""        s3.delete_object(**where)""",
        # The third upload comes when the second one is archived and about to be hidden.
        scenario=Scenario((A, BB, CCC), (*UPLOADED, *UPLOAD, *TO_THE_MARKER, *UPLOAD)),
        says="lost",
    ),
    Guard(
        what="the delete marker over an older version",
        source="""        if place.is_replaced or place.is_hidden or (lists and""",
        instead="""        if is_pinned or (lists and""",
        scenario=Scenario(TWO),
        says="brought an older version to light",
    ),
    Guard(
        what="the second try of a delete marker",
        source="""        if code_of(error) not in _LOST_RACE:
            raise
        return False
""",
        instead="""        pass
""",
        scenario=Scenario(TWO, conflicting_write=2),
        says="brought an older version to light",
    ),
    Guard(
        what="the second try of a delete",
        source="""        if code_of(error) not in _LOST_RACE:
            raise
        return False
""",
        instead="""        pass
""",
        scenario=replace(unversioned(ONE, ()), conflicting_write=2),
        says="said archived of what is still in staging",
    ),
    Guard(
        what="the listing after a 404",
        source="""    place = _listed_place(s3, arrival.bucket, arrival.key, arrival.version_id)
""",
        instead="""    place = Place(is_hidden=head is None) if pinned else None
""",
        scenario=Scenario(ONE, unfound_head=1),
        says="said missing of the latest upload",
        module="looking",
    ),
    Guard(
        what="the doubt about a delete marker",
        source=" and not (seen and seen.origin):",
        instead=":",
        # The third upload, of the same bytes, is hidden by the marker meant for the second.
        scenario=Scenario((A, BB, BB), (*UPLOADED, *UPLOAD, *TO_THE_MARKER, *UPLOAD)),
        says="said missing of the latest upload",
        module="looking",
    ),
    Guard(
        what="the second look at the archive, for what is covered",
        source="            if is_on_top\n",
        instead="            if True\n",
        # As above; the archive is asked first, and has the second upload only a moment later.
        scenario=Scenario(
            (A, BB, BB),
            (*UPLOADED, *UPLOAD, *[2] * 5, *UPLOAD, *[3] * 2, *[2] * 3, *[3] * WHOLE),
            asks_early=True,
        ),
        says="said missing of the latest upload",
        module="runtime",
    ),
    Guard(
        what="deleting last",
        source="""        try:
            copy = _ensure_archived(""",
        instead="""        delete_staged(s3, staged, place, lists=False, in_parts=False)
        try:
            copy = _ensure_archived(""",
        scenario=Scenario(ONE),
        says="lost",
    ),
]
