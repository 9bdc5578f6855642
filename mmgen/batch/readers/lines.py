"""Inputs of one row a line or object: text, CSV, TSV, JSON and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal, TypeAlias

from mmgen.batch.places import folder_of, name_of, open_lines
from mmgen.batch.readers.abstract import AbstractReader, FieldNames, row_of
from mmgen.batch.rows import BrokenRow, InputRow
from mmgen.errors import DataError

__all__ = ["JsonLinesReader", "JsonReader", "TableReader", "TextReader"]

Meaning: TypeAlias = Literal["prompt", "picture"]
"""What a bare line of text is."""


class TextReader(AbstractReader):
    """One prompt, or one path of a picture, a line; empty lines do not count."""

    def __init__(self, places: Sequence[str], names: FieldNames, *, meaning: Meaning) -> None:
        self._places = tuple(places)
        self._names = names
        self._field = names.prompt if meaning == "prompt" else names.picture

    @property
    def kind(self) -> str:
        return "txt"

    @property
    def places(self) -> tuple[str, ...]:
        return self._places

    def rows(self) -> Iterator[InputRow]:
        index = 0
        for place, number, line in _lines(self._places):
            text = _text(line)
            if text is None:
                yield _not_text(index, place, number)
            else:
                yield row_of(index, {self._field: text}, self._names, folder=folder_of(place))
            index += 1


class JsonLinesReader(AbstractReader):
    """One JSON object a line."""

    def __init__(self, places: Sequence[str], names: FieldNames) -> None:
        self._places = tuple(places)
        self._names = names

    @property
    def kind(self) -> str:
        return "jsonl"

    @property
    def places(self) -> tuple[str, ...]:
        return self._places

    def rows(self) -> Iterator[InputRow]:
        for index, (place, number, line) in enumerate(_lines(self._places)):
            where = f"line {number} of {name_of(place)}"
            try:
                value = json.loads(line)
            except ValueError as error:
                yield BrokenRow(index=index, id=str(index), reason=f"{where} is not JSON: {error}")
                continue
            yield _row_of_object(index, value, where, self._names, folder_of(place))


class JsonReader(AbstractReader):
    """Files that each hold a list of JSON objects."""

    def __init__(self, places: Sequence[str], names: FieldNames) -> None:
        self._places = tuple(places)
        self._names = names

    @property
    def kind(self) -> str:
        return "json"

    @property
    def places(self) -> tuple[str, ...]:
        return self._places

    def rows(self) -> Iterator[InputRow]:
        index = 0
        for place in self._places:
            with open_lines(place) as file:
                data = file.read()
            try:
                values = json.loads(data)
            except ValueError as error:
                raise DataError(f"{place} is not JSON: {error}") from None
            if not isinstance(values, list):
                raise DataError(
                    f"{place} holds a {type(values).__name__}, expected a list of objects"
                )
            for number, value in enumerate(values, start=1):
                where = f"item {number} of {name_of(place)}"
                yield _row_of_object(index, value, where, self._names, folder_of(place))
                index += 1


class TableReader(AbstractReader):
    """CSV or TSV files with a line of names at the top."""

    def __init__(
        self, places: Sequence[str], names: FieldNames, *, separator: Literal[",", "\t"]
    ) -> None:
        self._places = tuple(places)
        self._names = names
        self._separator = separator

    @property
    def kind(self) -> str:
        return "csv" if self._separator == "," else "tsv"

    @property
    def places(self) -> tuple[str, ...]:
        return self._places

    def rows(self) -> Iterator[InputRow]:
        index = 0
        for place in self._places:
            with open_lines(place) as file:
                text = io.TextIOWrapper(
                    file, encoding="utf-8-sig", errors="surrogateescape", newline=""
                )
                table = csv.reader(text, delimiter=self._separator, strict=True)
                try:
                    head = next(table, None)
                    self._check_head(head, place)
                    assert head is not None
                    for values in table:
                        if values:
                            yield self._row(index, head, values, place, table.line_num)
                            index += 1
                except csv.Error as error:
                    raise DataError(f"line {table.line_num} of {place}: {error}") from error
                finally:
                    text.detach()

    def _check_head(self, head: list[str] | None, place: str) -> None:
        if not head:
            raise DataError(f"{place} is empty; its first line must name the columns")
        double = sorted({name for name in head if head.count(name) > 1})
        if double:
            raise DataError(f"{place} has two columns named {double[0]!r}; rename one")
        if not {self._names.prompt, self._names.picture} & set(head):
            raise DataError(
                f"{place} has no column {self._names.prompt!r} or {self._names.picture!r}; its "
                f"first line names {', '.join(head)}"
            )

    def _row(
        self, index: int, head: Sequence[str], values: Sequence[str], place: str, line: int
    ) -> InputRow:
        where = f"line {line} of {name_of(place)}"
        if len(values) != len(head):
            reason = f"{where} has {len(values)} cells, expected {len(head)}"
            return BrokenRow(index=index, id=str(index), reason=reason)
        if any(not _is_utf8(value) for value in values):
            return BrokenRow(index=index, id=str(index), reason=f"{where} is not UTF-8")
        return row_of(
            index, dict(zip(head, values, strict=True)), self._names, folder=folder_of(place)
        )


def _lines(places: Sequence[str]) -> Iterator[tuple[str, int, bytes]]:
    """Yield the lines that are not empty with their file and their number in it."""
    for place in places:
        with open_lines(place) as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(b"\xef\xbb\xbf")
                if line.strip():
                    yield place, number, line


def _text(line: bytes) -> str | None:
    try:
        return line.decode("utf-8").strip()
    except UnicodeDecodeError:
        return None


def _not_text(index: int, place: str, number: int) -> BrokenRow:
    reason = f"line {number} of {name_of(place)} is not UTF-8"
    return BrokenRow(index=index, id=str(index), reason=reason)


def _is_utf8(text: str) -> bool:
    return not any("\udc80" <= character <= "\udcff" for character in text)


def _row_of_object(index: int, value: Any, where: str, names: FieldNames, folder: str) -> InputRow:
    if not isinstance(value, dict):
        reason = f"{where} is a {type(value).__name__}, expected an object"
        return BrokenRow(index=index, id=str(index), reason=reason)
    return row_of(index, value, names, folder=folder)
