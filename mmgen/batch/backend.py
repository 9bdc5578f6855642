"""What answers requests: many at once, in any order."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from mmgen.batch.results import Answer
from mmgen.errors import MmgenError
from mmgen.generate.events import ImageFinished, TurnFailed, TurnFinished
from mmgen.generate.requests import TurnRequest
from mmgen.generate.session import Session
from mmgen.generate.turn import TurnInProgress

__all__ = ["AbstractBackend", "NoEngine", "Outcome", "Prepared", "SessionBackend"]


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """A request that is ready to be started."""

    key: int
    request: TurnRequest
    num_ids: int
    """Length of its prompt; requests of like length are started together."""
    payload: Any = None
    """What the backend made of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """How a request ended."""

    key: int
    answer: Answer | MmgenError


class AbstractBackend(ABC):
    """Answers requests. `prepare` is called from any thread, the rest from one."""

    @property
    @abstractmethod
    def capacity(self) -> int:
        """Requests to have under way at once, so that it is never idle."""

    @property
    def description(self) -> Mapping[str, Any]:
        """What of it may decide results, as JSON values."""
        return {}

    @property
    @abstractmethod
    def num_unfinished(self) -> int:
        """Requests that were started and have no outcome."""

    @abstractmethod
    def prepare(self, key: int, request: TurnRequest) -> Prepared:
        """Check a request and do all that needs no engine, such as encoding its pictures.

        Raises:
            MmgenError: the request cannot be served.
        """

    @abstractmethod
    def start(self, prepared: Prepared) -> None:
        """Begin to answer a request.

        Raises:
            MmgenError: the request cannot be served.
        """

    @abstractmethod
    def step(self) -> list[Outcome]:
        """Go on a little, waiting for something to happen; return what ended."""

    @property
    @abstractmethod
    def num_ids(self) -> int:
        """Token ids taken and given so far."""


class NoEngine(AbstractBackend):
    """For tasks that ask no engine: their rows are answered where `finish` waits."""

    def __init__(
        self,
        description: Mapping[str, Any] | None = None,
        count_ids: Callable[[], int] = lambda: 0,
    ) -> None:
        """Take what is known of who answers instead.

        Args:
            description: what of it may decide results.
            count_ids: gives the token ids that it has taken and given so far.
        """
        self._description = dict(description or {})
        self._count_ids = count_ids

    @property
    def capacity(self) -> int:
        return 0

    @property
    def description(self) -> Mapping[str, Any]:
        return self._description

    @property
    def num_unfinished(self) -> int:
        return 0

    @property
    def num_ids(self) -> int:
        return self._count_ids()

    def prepare(self, key: int, request: TurnRequest) -> Prepared:
        raise AssertionError("nothing is asked of an engine here")

    def start(self, prepared: Prepared) -> None:
        raise AssertionError("nothing is asked of an engine here")

    def step(self) -> list[Outcome]:
        return []


@dataclass(slots=True, eq=False)
class _Open:
    request: TurnRequest
    images: list[ImageFinished] = field(default_factory=list)


class SessionBackend(AbstractBackend):
    """Answers with a session's engine in this process."""

    def __init__(
        self,
        session: Session,
        *,
        capacity: int,
        description: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a session that nobody else uses.

        Args:
            capacity: requests to have under way; the engine's rows, so that it is full.
            description: what of the engine may decide results, such as where it runs.
        """
        self.session = session
        self._description = dict(description or {})
        self._capacity = capacity
        self._open: dict[int, _Open] = {}
        self._num_ids = 0

    @property
    def capacity(self) -> int:
        return self._capacity

    @property
    def description(self) -> Mapping[str, Any]:
        return self._description

    @property
    def num_unfinished(self) -> int:
        return len(self._open)

    @property
    def num_ids(self) -> int:
        return self._num_ids

    def prepare(self, key: int, request: TurnRequest) -> Prepared:
        turn = self.session.begin(key, request)
        return Prepared(key, request, len(turn.span.prompt_ids), turn)

    def start(self, prepared: Prepared) -> None:
        turn: TurnInProgress = prepared.payload
        self.session.start(turn)
        self._open[prepared.key] = _Open(prepared.request)

    def step(self) -> list[Outcome]:
        outcomes = []
        for event in self.session.step():
            match event:
                case ImageFinished():
                    self._open[event.index].images.append(event)
                case TurnFinished():
                    outcomes.append(Outcome(event.index, self._answer(event)))
                case TurnFailed():
                    del self._open[event.index]
                    outcomes.append(Outcome(event.index, event.error))
        return outcomes

    def _answer(self, event: TurnFinished) -> Answer:
        opened = self._open.pop(event.index)
        usage = event.usage
        self._num_ids += usage.prompt_ids + usage.text_ids + usage.image_ids
        return Answer(
            request=opened.request,
            text=event.text,
            images=tuple(opened.images),
            turn=event.turn,
            end=event.end,
            usage=usage,
        )
