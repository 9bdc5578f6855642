"""Turns and pictures as rows of the database, both ways."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, TypeAlias

import numpy as np

from mmgen.visual_tokenizer import Codes
from mmgen.vocabulary import layout_from_json, layout_to_json
from mmgen_chat.conversation import Applied, Drawing, Picture, Segment, Turn, Usage, Words

__all__ = [
    "PICTURE_COLUMNS",
    "TURN_COLUMNS",
    "picture_of",
    "picture_row",
    "segment_rows",
    "turn_of",
    "turn_row",
]

Row: TypeAlias = tuple[Any, ...]

TURN_COLUMNS = (
    "id", "conversation_id", "parent_id", "role", "state", "failure", "usage", "applied",
    "seconds", "created",
)  # fmt: skip
PICTURE_COLUMNS = (
    "id", "turn_id", "png", "height", "width", "codes", "num_codebooks", "layout", "tokenizer",
    "fingerprint", "drawing", "source", "alt",
)  # fmt: skip

_CODE_TYPE = np.dtype("<i4")


def turn_row(turn: Turn, conversation_id: str) -> Row:
    """Return a turn without its segments, in the order of `TURN_COLUMNS`."""
    return (
        turn.id,
        conversation_id,
        turn.parent_id,
        turn.role,
        turn.state,
        turn.failure,
        _dumped(turn.usage),
        _dumped(turn.applied),
        turn.seconds,
        turn.created.isoformat(),
    )


def turn_of(row: Row, segments: Sequence[Segment]) -> Turn:
    """Return the turn of a row and its segments."""
    values = dict(zip(TURN_COLUMNS, row, strict=True))
    return Turn(
        id=values["id"],
        parent_id=values["parent_id"],
        role=values["role"],
        segments=tuple(segments),
        state=values["state"],
        failure=values["failure"],
        usage=None if values["usage"] is None else Usage(**json.loads(values["usage"])),
        applied=None if values["applied"] is None else Applied(**json.loads(values["applied"])),
        seconds=values["seconds"],
        created=datetime.fromisoformat(values["created"]),
    )


def segment_rows(turn: Turn) -> list[Row]:
    """Return `(turn_id, position, text, picture_id)` of each segment."""
    return [
        (turn.id, position, item.text, None)
        if isinstance(item, Words)
        else (turn.id, position, None, item.id)
        for position, item in enumerate(turn.segments)
    ]


def picture_row(picture: Picture, turn_id: str) -> Row:
    """Return a picture in the order of `PICTURE_COLUMNS`."""
    codes, layout, num_codebooks = None, None, None
    if picture.codes is not None:
        codes = picture.codes.array.astype(_CODE_TYPE).tobytes()
        num_codebooks = picture.codes.array.shape[1]
        layout = json.dumps(layout_to_json(picture.codes.layout))
    height, width = picture.size or (None, None)
    return (
        picture.id,
        turn_id,
        picture.png,
        height,
        width,
        codes,
        num_codebooks,
        layout,
        picture.tokenizer,
        picture.fingerprint,
        _dumped(picture.drawing),
        picture.source,
        picture.alt,
    )


def picture_of(row: Row) -> Picture:
    """Return the picture of a row."""
    values = dict(zip(PICTURE_COLUMNS, row, strict=True))
    codes = None
    if values["codes"] is not None:
        array = np.frombuffer(values["codes"], dtype=_CODE_TYPE).astype(np.int64)
        codes = Codes(
            array.reshape(-1, values["num_codebooks"]),
            layout_from_json(json.loads(values["layout"])),
        )
    has_size = values["height"] is not None
    drawing = values["drawing"]
    return Picture(
        id=values["id"],
        png=values["png"],
        size=(values["height"], values["width"]) if has_size else None,
        codes=codes,
        tokenizer=values["tokenizer"],
        fingerprint=values["fingerprint"],
        drawing=None if drawing is None else Drawing(**json.loads(drawing)),
        source=values["source"],
        alt=values["alt"],
    )


def _dumped(item: Usage | Applied | Drawing | None) -> str | None:
    return None if item is None else json.dumps(asdict(item))
