"""What S3 answers, read."""

from __future__ import annotations

import pytest

from twobuckets.s3.answers import AnswerError, parse_parts

PART = "<Part><PartNumber>1</PartNumber><Size>7</Size><ETag>&#34;e&#x22;</ETag></Part>"


@pytest.mark.parametrize("key", ["&#x1b;[31mred", "&#0;", "&#xFFFE;", "&#x110000;", "a&#10;b"])
def test_a_key_that_xml_cannot_hold_hides_nothing_else_of_an_answer(key: str):
    answer = f"<ListPartsResult><Key>{key}</Key>{PART}</ListPartsResult>"
    (part,) = parse_parts(answer.encode())
    assert (part.number, part.size_bytes, part.etag) == (1, 7, "e")


def test_an_answer_that_is_no_document_is_refused():
    with pytest.raises(AnswerError, match="not XML"):
        parse_parts(b"<ListPartsResult>")
