"""Tasks that a server answers: each row waits in a thread of the runner's, and asks no engine."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from mmgen.batch.results import Answer, Result
from mmgen.batch.rows import Row
from mmgen.batch.tasks.abstract import AbstractTask
from mmgen.errors import EngineError
from mmgen.generate.requests import TurnRequest

__all__ = ["AbstractEndpointTask", "first_of"]


class AbstractEndpointTask(AbstractTask):
    """Makes results of what a server answers, with the same fields as the tasks of engines.

    What the server does not tell is left out of results.
    """

    def requests(self, row: Row) -> Sequence[TurnRequest]:
        return ()

    def finish(self, row: Row, answers: Sequence[Answer]) -> Result:
        return self.answer(row)

    @abstractmethod
    def check(self, row: Row) -> None:
        """Refuse a row that cannot be asked of a server.

        Raises:
            SettingsError: it lacks something, or wants what a server cannot be asked for.
        """

    @abstractmethod
    def answer(self, row: Row) -> Result:
        """Ask the server about a row and wait for the result.

        Raises:
            TransientError: the same may succeed later.
            MmgenError: there is no result.
        """


def first_of(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the first of the objects that an answer has in a list.

    Raises:
        EngineError: it has none.
    """
    items = body.get(name)
    if not isinstance(items, list) or not items or not isinstance(items[0], dict):
        raise EngineError(f"the server's answer has no {name}; it has: {', '.join(body) or 'none'}")
    first: dict[str, Any] = items[0]
    return first
