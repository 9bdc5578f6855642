"""What a server sends, put together: words, pictures, and what it tells at the end."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field, replace
from typing import Any

from mmgen_chat.backend import (
    End,
    Event,
    ImageFinished,
    ImageProgress,
    ImageStarted,
    TextDelta,
    TurnFinished,
)
from mmgen_chat.conversation import Applied, Drawing, Picture, Usage
from mmgen_chat.endpoint_wire import (
    delta_pictures,
    ordered_parts,
    picture_in,
    told_drawing,
    usage_of,
    with_file,
)

__all__ = ["ServerAnswer"]

_ENDS: dict[str, End] = {"stop": "end", "length": "length"}


@dataclass(slots=True, eq=False)
class ServerAnswer:
    """An answer as it comes: what its last event will tell, and its pictures."""

    prompt: str
    model: str
    started: float = field(default_factory=time.perf_counter)
    pictures: dict[int, Picture] = field(default_factory=dict)
    finished: set[int] = field(default_factory=set)
    usage: Usage = field(default_factory=Usage)
    end: End | None = None
    seed: int | None = None
    guidance_scale: float | None = None

    async def take_chunk(self, chunk: dict[str, Any]) -> list[Event]:
        """Return the events for a chunk of a stream, or for a whole answer."""
        if chunk.get("usage"):
            self.usage = usage_of(chunk["usage"])
        choices = chunk.get("choices")
        return await self._take_choice(choices[0]) if choices else []

    async def _take_choice(self, choice: dict[str, Any]) -> list[Event]:
        """Return the events for a choice: a chunk, or all of it from a server without streams."""
        events: list[Event] = []
        delta = choice.get("delta") or choice.get("message") or {}
        for item in delta_pictures(delta, "partial_images"):
            events += await self._grow(_index(item, len(self.finished)), item, item)
        for part in ordered_parts(delta):
            if isinstance(part, str):
                events.append(TextDelta(part))
            else:
                events += await self._finish(_index(part, len(self.finished)), part)
        reason = choice.get("finish_reason")
        if isinstance(reason, str):
            self.end = _ENDS.get(reason, "end")
        report = choice.get("mmgen")
        if isinstance(report, dict) and isinstance(report.get("images"), list):
            for index, told in enumerate(report["images"]):
                events += self._explain(index, told)
        return events

    async def take_image_event(self, item: dict[str, Any]) -> list[Event]:
        """Return the events for an event of the image route, or for all of its answer."""
        if isinstance(item.get("data"), list):
            events: list[Event] = []
            for index, part in enumerate(item["data"]):
                events += await self._finish(index, part)
                events += self._explain(index, part.get("mmgen") or {})
            self.usage = usage_of(item.get("usage"))
            return events
        told = item.get("mmgen") if isinstance(item.get("mmgen"), dict) else {}
        assert isinstance(told, dict)
        index = _index(told, len(self.finished))
        kind = str(item.get("type", ""))
        if kind.endswith(".partial_image"):
            return await self._grow(index, item, told)
        if kind.endswith(".completed"):
            usage = usage_of(item.get("usage"))
            self.usage = replace(usage, image_ids=_sum(self.usage.image_ids, usage.image_ids))
            return [*await self._finish(index, item), *self._explain(index, told)]
        return []

    def _start(self, index: int) -> list[Event]:
        """Return the event that opens a picture, unless it is open."""
        if index in self.pictures:
            return []
        # Nothing is there yet, of a number of codes that is not known.
        drawing = Drawing(prompt=self.prompt, model=self.model, num_done=0)
        self.pictures[index] = Picture(drawing=drawing)
        return [ImageStarted(index=index, picture=self.pictures[index])]

    async def _grow(self, index: int, item: dict[str, Any], told: dict[str, Any]) -> list[Event]:
        """Return the events for a preview."""
        events = self._start(index)
        preview = await asyncio.to_thread(picture_in, item)
        progress = ImageProgress(
            index=index,
            num_done=told.get("num_done"),
            num_codes=told.get("num_codes"),
            codes=None,
            preview=preview,
        )
        return [*events, progress]

    async def _finish(self, index: int, item: dict[str, Any]) -> list[Event]:
        """Return the events for a whole picture."""
        events = self._start(index)
        rendering = await asyncio.to_thread(picture_in, item)
        picture = self.pictures[index]
        assert picture.drawing is not None
        seconds = time.perf_counter() - self.started
        picture = replace(picture, drawing=replace(picture.drawing, num_done=None, seconds=seconds))
        self.pictures[index] = await asyncio.to_thread(with_file, picture, rendering)
        self.finished.add(index)
        return [*events, ImageFinished(index=index, picture=self.pictures[index])]

    def _explain(self, index: int, told: dict[str, Any]) -> list[Event]:
        """Return the event for what the server tells of how a picture was drawn."""
        picture = self.pictures.get(index)
        if picture is None or picture.drawing is None or "seed" not in told:
            return []
        drawing = told_drawing(picture.drawing, told)
        self.guidance_scale = drawing.guidance_scale
        self.pictures[index] = replace(picture, drawing=drawing, tokenizer=told.get("tokenizer"))
        return [ImageFinished(index=index, picture=self.pictures[index])]

    @property
    def last(self) -> TurnFinished:
        """The last event of an answer that is complete."""
        return TurnFinished(
            end=self.end or "end",
            usage=self.usage,
            applied=Applied(model=self.model, seed=self.seed, guidance_scale=self.guidance_scale),
            seconds=time.perf_counter() - self.started,
        )


def _index(item: dict[str, Any], default: int) -> int:
    index = item.get("index")
    return index if isinstance(index, int) else default


def _sum(first: int | None, second: int | None) -> int | None:
    return second if first is None else first + (second or 0)
