"""OpenAI's batch files: lines of requests in, lines of responses and of errors out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from mmgen.batch.log import Record
from mmgen.batch.places import name_of, open_lines
from mmgen.batch.readers import AbstractReader
from mmgen.batch.rows import BrokenRow, InputRow, Row
from mmgen.errors import SettingsError

__all__ = [
    "BatchFileReader",
    "error_line",
    "is_refusal",
    "output_line",
    "row_of_line",
]

_FIELDS = ("custom_id", "method", "url", "body")
_ID = "batch_req_"


class BatchFileReader(AbstractReader):
    """One request a line, each with `custom_id`, `method`, `url` and `body`."""

    def __init__(self, places: Sequence[str], urls: Sequence[str]) -> None:
        """Take files.

        Args:
            urls: paths that can be answered.
        """
        self._places = tuple(places)
        self._urls = tuple(urls)

    @property
    def kind(self) -> str:
        return "openai-batch"

    @property
    def places(self) -> tuple[str, ...]:
        return self._places

    def rows(self) -> Iterator[InputRow]:
        index = 0
        for place in self._places:
            with open_lines(place) as file:
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield self._row(index, line, f"line {number} of {name_of(place)}")
                        index += 1

    def _row(self, index: int, line: bytes, where: str) -> InputRow:
        id_ = str(index)
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise SettingsError(f"a {type(value).__name__}, expected an object")
            if isinstance(value.get("custom_id"), str):
                id_ = value["custom_id"]
            self._check(value)
        except ValueError as error:
            # Errors of settings are among them, and those of JSON.
            return BrokenRow(index=index, id=id_, reason=f"{where}: {error}")
        return Row(index=index, id=id_, fields={"url": value["url"], "body": value["body"]})

    def _check(self, value: dict[str, Any]) -> None:
        missing = [name for name in _FIELDS if name not in value]
        unknown = [name for name in value if name not in _FIELDS]
        if missing or unknown:
            told = [f"no {name}" for name in missing] + [f"the field {name!r}" for name in unknown]
            raise SettingsError(f"it has {' and '.join(told)}; expected {', '.join(_FIELDS)}")
        if not isinstance(value["custom_id"], str) or not value["custom_id"]:
            raise SettingsError(f"custom_id must be text, got {value['custom_id']!r}")
        if value["method"] != "POST":
            raise SettingsError(f"method must be 'POST', got {value['method']!r}")
        if value["url"] not in self._urls:
            raise SettingsError(
                f"there is no url {value['url']!r}; choose one of {', '.join(self._urls)}"
            )
        if not isinstance(value["body"], dict):
            raise SettingsError(f"body must be an object, got {value['body']!r}")
        if value["body"].get("stream"):
            raise SettingsError("a batch has no streams; leave 'stream' out of the body")


def is_refusal(record: Record) -> bool:
    """Return whether a request was answered with a refusal."""
    return record.fault is None and record.fields["response"]["status_code"] >= 400


def output_line(record: Record) -> dict[str, Any] | None:
    """Return the line of a request that was answered."""
    if record.fault is not None or is_refusal(record):
        return None
    return _line(record, record.fields["response"], None)


def error_line(record: Record) -> dict[str, Any] | None:
    """Return the line of a request that was refused or could not be answered."""
    if record.fault is not None:
        fault = {"code": record.fault.kind, "message": record.fault.reason}
        return _line(record, None, fault)
    return _line(record, record.fields["response"], None) if is_refusal(record) else None


def row_of_line(line: dict[str, Any]) -> int:
    """Return the row that a written line belongs to."""
    return int(str(line["id"]).removeprefix(_ID))


def _line(record: Record, response: Any, error: Any) -> dict[str, Any]:
    return {
        "id": f"{_ID}{record.row:012d}",
        "custom_id": record.id,
        "response": response,
        "error": error,
    }
