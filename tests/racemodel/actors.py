"""Actors that run real code in threads, exactly one at a time, switched where the schedule says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any


class Killed(BaseException):
    """The actor's process died here; nothing that it still tries has any effect."""


@dataclass(slots=True)
class Actor:
    """One thread of control; `calls_left` counts down to its death, None means that it lives."""

    name: str
    run: Callable[[], None]
    calls_left: int | None = None
    is_dead: bool = False
    is_done: bool = False
    local: dict[str, Any] = field(default_factory=dict)
    turn: threading.Lock = field(default_factory=threading.Lock)
    helpers: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.turn.acquire()

    def kill_after(self, calls: int | None) -> None:
        """Be alive, for this many calls or for good."""
        self.is_dead, self.calls_left = False, calls


class Scheduler:
    """Decides at each step who goes on, by the numbers of a schedule; after its end, nobody waits.

    A schedule is a list of numbers, one for each step: the actor that it goes to, modulo how many
    there are by then. Actors are numbered in the order in which they were spawned; the numbers of
    those that are done are skipped.
    """

    def __init__(self, schedule: Sequence[int]) -> None:
        self._schedule = iter(schedule)
        self._actors: list[Actor] = []
        self._main = threading.Lock()
        self.current: Actor | None = None
        self.errors: list[BaseException] = []
        self.trace: list[str] = []

    def spawn(self, name: str, run: Callable[[], None]) -> Actor:
        """Add an actor; it begins when the schedule comes to it."""
        actor = Actor(name, run)
        self._actors.append(actor)
        threading.Thread(target=self._run_actor, args=(actor,), daemon=True).start()
        return actor

    def run(self) -> None:
        """Run until every actor is done; raise the first error that one did not expect."""
        first = self._choose()
        if first is None:
            return
        self._main.acquire()
        self.current = first
        first.turn.release()
        self._main.acquire()
        self._main.release()
        if self.errors:
            raise self.errors[0]

    def step(self, operation: str) -> None:
        """Called before each S3 call of the running actor, from its thread or a helper of it."""
        actor = self.current
        assert actor is not None
        with actor.helpers:  # an actor's helper threads come one after the other
            if actor.is_dead:
                raise Killed
            if actor.calls_left is not None:
                if actor.calls_left == 0:
                    actor.is_dead = True
                    self.trace.append(f"{actor.name}: killed before {operation}")
                    raise Killed
                actor.calls_left -= 1
            following = self._choose()
            assert following is not None
            if following is not actor:
                self.current = following
                following.turn.release()
                actor.turn.acquire()
            self.trace.append(f"{actor.name}: {operation}")

    def _choose(self) -> Actor | None:
        for number in self._schedule:
            actor = self._actors[number % len(self._actors)]
            if not actor.is_done:
                return actor
        if self.current is not None and not self.current.is_done:
            return self.current
        return next((actor for actor in self._actors if not actor.is_done), None)

    def _run_actor(self, actor: Actor) -> None:
        actor.turn.acquire()
        try:
            actor.run()
        except BaseException as error:
            self.errors.append(error)
        actor.is_done = True
        following = self._choose()
        self.current = following
        if following is None:
            self._main.release()
        else:
            following.turn.release()
