"""Requests in OpenAI's shape, sent as they are to whatever answers them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmgen.batch.posting import AbstractPoster
from mmgen.batch.results import Answer, Result
from mmgen.batch.rows import Row
from mmgen.batch.tasks.abstract import AbstractTask, ColumnKind
from mmgen.generate.requests import TurnRequest

__all__ = ["PostTask"]


class PostTask(AbstractTask):
    """Asks no engine of the runner's: each row is one call, which waits in a thread."""

    def __init__(self, poster: AbstractPoster) -> None:
        self._poster = poster

    @property
    def name(self) -> str:
        return "openai-batch"

    @property
    def settings(self) -> Mapping[str, Any]:
        return {"answered_by": self._poster.name}

    @property
    def columns(self) -> Mapping[str, ColumnKind]:
        return {"response": "json"}

    @property
    def words(self) -> str:
        return "response"

    def requests(self, row: Row) -> Sequence[TurnRequest]:
        return ()

    def finish(self, row: Row, answers: Sequence[Answer]) -> Result:
        reply = self._poster.post(row.fields["url"], row.fields["body"])
        body = reply.body
        identity = body.get("id") if isinstance(body, dict) else None
        response = {
            "status_code": reply.status,
            "request_id": identity or f"row-{row.index}",
            "body": body,
        }
        return Result(fields={"response": response})
