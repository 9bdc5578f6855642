"""What a reader of inputs promises, and how fields of any source become rows."""

from __future__ import annotations

import base64
import binascii
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmgen.batch.places import join
from mmgen.batch.rows import (
    AbstractPicture,
    BrokenRow,
    FilePicture,
    InputRow,
    Row,
    StoredPicture,
    check_id,
)
from mmgen.errors import SettingsError

__all__ = ["AbstractReader", "FieldNames", "row_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldNames:
    """Which fields of an input mean what."""

    id: str = "id"
    """The id; rows without it are known by their number."""
    prompt: str = "prompt"
    """What to draw, or what to ask about a picture."""
    picture: str = "image"
    """The picture: a path, a URL, bytes, or Hugging Face's struct of bytes and path."""


class AbstractReader(ABC):
    """Rows in a fixed order, as often as they are asked for."""

    @property
    @abstractmethod
    def kind(self) -> str:
        """Form of the input."""

    @property
    @abstractmethod
    def places(self) -> tuple[str, ...]:
        """Files or folders that are read."""

    @abstractmethod
    def rows(self) -> Iterator[InputRow]:
        """Yield every row in order; pictures are read later.

        Raises:
            DataError: the input itself is damaged, beyond single rows.
        """


def row_of(
    index: int, values: Mapping[str, Any], names: FieldNames, *, folder: str, id_: str | None = None
) -> InputRow:
    """Return the row that a source's fields describe.

    Args:
        values: field name to value; None and empty texts count as absent.
        folder: what relative paths of pictures are relative to.
        id_: the id where the fields give none; by default the index.
    """
    given = values.get(names.id)
    row_id = (str(index) if id_ is None else id_) if given in (None, "") else str(given)
    try:
        check_id(row_id)
        kept = {name: value for name, value in values.items() if value not in (None, "")}
        for name, meaning in ((names.id, "id"), (names.prompt, "prompt")):
            if name in kept:
                kept[meaning] = kept.pop(name)
        kept.pop("id", None)
        picture = picture_of(kept.pop(names.picture, None), names.picture, folder)
    except SettingsError as error:
        return BrokenRow(index=index, id=safe_id(row_id, index), reason=str(error))
    return Row(index=index, id=row_id, fields=kept, picture=picture)


def safe_id(id_: str, index: int) -> str:
    """Return an id that may be refused in a form fit for reports."""
    clean = id_.encode("utf-8", "replace").decode()
    return clean if 0 < len(clean) <= 200 else f"{clean[:60]}…" or str(index)


def picture_of(value: Any, field: str, folder: str) -> AbstractPicture | None:
    """Return what a field says of a picture."""
    match value:
        case None:
            return None
        case bytes():
            return StoredPicture(value)
        case str() if value.startswith("data:"):
            return StoredPicture(_from_data_url(value, field))
        case str():
            if "\0" in value:
                raise SettingsError(f"{field} holds a path with a zero byte")
            return FilePicture(join(folder, value))
        case {"bytes": bytes(data)} if data:
            return StoredPicture(data)
        case {"path": str(path)} if path:
            return FilePicture(join(folder, path))
    raise SettingsError(
        f"{field} must be a path, a URL or the bytes of a picture, got {type(value).__name__}"
    )


def _from_data_url(url: str, field: str) -> bytes:
    head, comma, body = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise SettingsError(f"{field} holds a data URL that is not base64")
    try:
        return base64.b64decode(body, validate=True)
    except binascii.Error as error:
        raise SettingsError(f"{field} holds a damaged data URL: {error}") from error
