"""Actors that run real code side by side in one thread, switched where the schedule says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Any

from greenlet import getcurrent, greenlet


class Killed(BaseException):
    """The actor's process died here; nothing that it still tries has any effect."""


@dataclass(slots=True)
class Actor:
    """One line of control; `calls_left` counts down to its death, None means that it lives."""

    name: str
    stack: greenlet
    calls_left: int | None = None
    is_dead: bool = False
    is_done: bool = False
    local: dict[str, Any] = field(default_factory=dict)

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
        self._main = getcurrent()
        self.current: Actor | None = None
        self.errors: list[BaseException] = []
        self.trace: list[str] = []

    def spawn(self, name: str, run: Callable[[], None]) -> Actor:
        """Add an actor; it begins when the schedule comes to it."""
        actor: Actor = Actor(name, greenlet(lambda: self._run_actor(actor, run), self._main))
        self._actors.append(actor)
        return actor

    def run(self) -> None:
        """Run until every actor is done; raise the first error that one did not expect."""
        self.current = self._choose()
        while self.current is not None:
            self.current.stack.switch()  # until the actor that is running then is done
        if self.errors:
            raise self.errors[0]

    def step(self, operation: str) -> None:
        """Called before each S3 call of the running actor: here it dies, or another one goes on."""
        actor = self.current
        assert actor is not None
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
            following.stack.switch()
        self.trace.append(f"{actor.name}: {operation}")

    def _choose(self) -> Actor | None:
        for number in self._schedule:
            actor = self._actors[number % len(self._actors)]
            if not actor.is_done:
                return actor
        if self.current is not None and not self.current.is_done:
            return self.current
        return next((actor for actor in self._actors if not actor.is_done), None)

    def _run_actor(self, actor: Actor, run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            self.errors.append(error)
        actor.is_done = True
        self.current = self._choose()


class SameThread(Executor):
    """Stands in for ThreadPoolExecutor: calls at once what is submitted, in the actor's own line.

    A call from another thread could not be switched, and would have no place in the schedule.
    """

    def __init__(self, max_workers: int | None = None, thread_name_prefix: str = "") -> None:
        pass

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return what the call returned or raised, as a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except BaseException as error:
            future.set_exception(error)
        return future


class Later(SameThread):
    """As SameThread, but calls only once somebody waits for the answer."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Return a future that calls when it is asked."""
        return _LaterFuture(lambda: fn(*args, **kwargs))


class _LaterFuture(Future[Any]):
    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call = call

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self.set_result(self._call())
        return super().result(timeout)
