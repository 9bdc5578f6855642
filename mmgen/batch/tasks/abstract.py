"""What a task promises the runner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from mmgen.batch.results import Answer, More, Result
from mmgen.batch.rows import Row
from mmgen.generate.requests import TurnRequest

__all__ = ["AbstractTask", "ColumnKind"]

ColumnKind: TypeAlias = Literal["int", "float", "str", "bool", "json"]
"""Type of a result's field where outputs have columns."""


class AbstractTask(ABC):
    """Turns rows into requests and answers into results.

    Its methods are called from several threads at once and keep no state between rows.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What the job directory calls it."""

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, Any]:
        """Everything that decides results besides row and model, as JSON values."""

    @property
    @abstractmethod
    def columns(self) -> Mapping[str, ColumnKind]:
        """The fields that results may have, besides row and id."""

    @property
    @abstractmethod
    def words(self) -> str:
        """The field that is a result's text: the caption, or the prompt of a picture."""

    @abstractmethod
    def requests(self, row: Row) -> Sequence[TurnRequest]:
        """Return what to ask for a row; its picture is read here.

        Where nothing is asked, `finish` is called without answers.

        Raises:
            MmgenError: the row cannot be answered; a `TransientError` is tried again.
        """

    @abstractmethod
    def finish(self, row: Row, answers: Sequence[Answer]) -> Result | More:
        """Return what to keep of the answers, one per request in order, or ask for more.

        Raises:
            MmgenError: there is no result.
        """
