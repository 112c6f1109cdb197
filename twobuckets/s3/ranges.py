"""Splits a listing into key ranges that are listed at the same time, and puts them in order again.

Pure bookkeeping, no requests: `wanted` says what to ask for next, `absorb` takes the pages in any
order, `take` gives them back in key order. S3 lists keys in the order of their UTF-8 bytes, which
is the order of Python's strings.

A gap is a range of keys, after `marker` and up to `end` inclusive, that is not listed yet. The
gaps together always cover what is missing, and never overlap, so that every key which exists all
the while is listed exactly once wherever the ranges are split and whatever else changes.
Where to split is a guess from the keys seen so far. A guess costs one request for a single key, and
a wrong one only that request.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import NamedTuple

from twobuckets.s3.answers import Marker

PROBE_KEYS = 1
_FRACTION_CHARACTERS = 8
_MOST_GUESSES = 48
_ENOUGH_PAGES = 32


class Page(NamedTuple):
    """What the planner has to know of a page; `content` is the caller's."""

    first_key: str | None
    last_key: str | None
    following: Marker | None
    content: object


class Slice(NamedTuple):
    """A page of which the keys up to `end` count; all do when that is None."""

    page: Page
    end: str | None


@dataclass(slots=True, eq=False)
class Gap:
    """A range of keys not listed yet, and the pages of it that wait for their turn."""

    marker: Marker
    end: str | None
    unproven: bool = False
    asked: bool = False
    done: bool = False
    fresh: bool = False
    last_page: tuple[str, str] = ("", "")
    pages: deque[Slice] = field(default_factory=deque)


class Ranges:
    """The gaps of one listing in key order.

    `most` requests are open at once; `most_pages` bounds the pages that wait because an earlier
    range is not listed yet (those of the first range never wait).
    """

    def __init__(
        self, *, prefix: str = "", start_after: str = "", most: int = 32, most_pages: int = 512
    ) -> None:
        self.most = most
        self._prefix = prefix
        self._most_pages = most_pages
        self._gaps: deque[Gap] = deque([Gap(Marker(start_after), None)])
        self._open = 0
        self._waiting = 0
        self._seen: set[str] = set()

    @property
    def waiting(self) -> int:
        """How many pages wait for their turn."""
        return self._waiting

    @property
    def finished(self) -> bool:
        """Say whether every page was listed and taken."""
        self._drop_finished()
        return not self._gaps

    def take(self) -> Slice | None:
        """Return the next page in key order, or None while it is still to come."""
        self._drop_finished()
        if self._gaps and self._gaps[0].pages:
            self._waiting -= 1
            return self._gaps[0].pages.popleft()
        return None

    def wanted(self, *, spread: bool = True) -> Iterator[tuple[Gap, int | None]]:
        """Yield the gaps to ask for now, each with how many keys (None: as many as a page holds).

        With `spread`, gaps that go on after a page are split until as many requests are open as
        may be.
        """
        self._drop_finished()
        room = self._most_pages - self._waiting - self._open
        idle = [gap for gap in self._gaps if not gap.asked and not gap.done]
        if spread and self.most > self._open + len(idle) and room > len(idle):
            self._split(self.most - self._open - len(idle))
            idle = [gap for gap in self._gaps if not gap.asked and not gap.done]
        for gap in idle:
            if self._open >= self.most:
                return
            if room <= 0 and gap is not self._gaps[0]:
                return
            room -= 1
            self._open += 1
            gap.asked = True
            yield gap, PROBE_KEYS if gap.unproven else None

    def absorb(self, gap: Gap, page: Page) -> None:
        """Take note of the page that was asked for; raises ValueError if it leads nowhere."""
        gap.asked = False
        self._open -= 1
        outside = page.first_key is None or _is_after(page.first_key, gap.end)
        is_probe, gap.unproven = gap.unproven, False
        if outside:
            gap.done = True
            following = self._skip_empty(gap, page.first_key)
            if is_probe or following is None:
                return
            # Asked for in vain, but maybe the very page that is wanted next.
            gap = following
        elif is_probe:
            return
        gap.pages.append(Slice(page, gap.end))
        self._waiting += 1
        if page.following is None or (page.last_key and _is_after(page.last_key, gap.end)):
            gap.done = True
            return
        if page.following <= gap.marker:
            raise ValueError(f"the listing does not go on after {gap.marker.key!r}")
        gap.marker = page.following
        gap.fresh = True
        if page.first_key is not None and page.last_key is not None:
            gap.last_page = page.first_key, page.last_key
            self._seen.update(page.first_key, page.last_key)

    def _skip_empty(self, gap: Gap, next_key: str | None) -> Gap | None:
        """Mark gaps behind one as done, up to the next key that S3 has.

        Returns the gap which that key is in if nothing of it was listed yet or is being asked for.
        """
        for later in islice(self._gaps, self._gaps.index(gap) + 1, None):
            if next_key is not None and not _is_after(next_key, later.end):
                if later.asked or later.done or next_key <= later.marker.key:
                    return None
                later.unproven = False
                return later
            if not later.asked:
                later.done = True
        return None

    def _drop_finished(self) -> None:
        while self._gaps and self._gaps[0].done and not self._gaps[0].pages:
            self._gaps.popleft()

    def _split(self, free: int) -> None:
        """Split gaps that were just found to go on, the first ones first."""
        fresh = [gap for gap in self._gaps if gap.fresh and not gap.done]
        if self._waiting >= _ENOUGH_PAGES:
            # Whoever takes them has work; only a long first range could still make them wait.
            fresh = [gap for gap in fresh if gap is self._gaps[0]]
        for number, gap in enumerate(fresh):
            if free <= 0:
                return
            gap.fresh = False
            share = max(1, free // (len(fresh) - number))
            if gap.end is None:
                points = self._guess_onwards(*gap.last_page)
            else:
                points = self._guess_between(*gap.last_page, gap.end, share)
            if not points:
                continue
            free -= len(points)
            at = self._gaps.index(gap)
            self._gaps.rotate(-at - 1)
            for start, end in zip(reversed(points), reversed([*points[1:], gap.end]), strict=True):
                self._gaps.appendleft(Gap(Marker(start), end, unproven=True))
            self._gaps.rotate(at + 1)
            gap.end = points[0]

    def _guess_onwards(self, first: str, last: str) -> list[str]:
        """Guess where keys go on after a page when their end is not known.

        What was the same all over the page is what changes next: it is raised at each position.
        """
        likely: list[str] = []
        others: list[str] = []
        for position in range(len(self._prefix), min(_common_length(first, last) + 1, len(last))):
            stem, character = last[:position], last[position]
            if character in "0123456789":
                likely += [stem + c for c in "0123456789" if c > character]
                others += [stem + c for c in "Aa"]
            else:
                others += [stem + c for c in "0AHPahjpt" if c > character]
        points = {*likely[:_MOST_GUESSES], *others[: _MOST_GUESSES - len(likely)]}
        return sorted(point for point in points if point > last)

    def _guess_between(self, first: str, last: str, end: str, most: int) -> list[str]:
        """Guess points that divide what follows a page, up to an end, into shares of a page.

        Keys are read as fractions whose digits are the characters seen so far.
        """
        start = _common_length(first, end)
        digits = sorted(self._seen.union(first[start:], last[start:], end[start:]))
        base = len(digits)
        value = {character: number for number, character in enumerate(digits)}

        def read(key: str) -> int:
            number = 0
            for position in range(start, start + _FRACTION_CHARACTERS):
                number = number * base + (value[key[position]] if position < len(key) else 0)
            return number

        def write(number: int) -> str:
            characters = []
            for _ in range(_FRACTION_CHARACTERS):
                number, digit = divmod(number, base)
                characters.append(digits[digit])
            return last[:start] + "".join(reversed(characters)).rstrip(digits[0])

        low, high = read(last), read(end)
        shares = min(most + 1, 8, (high - low) // max(1, low - read(first)))
        points = {write(low + (high - low) * step // shares) for step in range(1, shares)}
        return sorted(point for point in points if last < point < end)


def _is_after(key: str, end: str | None) -> bool:
    return end is not None and key > end


def _common_length(left: str, right: str) -> int:
    for position, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return position
    return min(len(left), len(right))
