"""Events of drawings in the shape of OpenAI's image routes, whole or as a stream of events."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from mmgen.generate.events import TurnFinished, Usage
from mmgen.serve.previews import Preview
from mmgen.serve.rendering import PictureFormat
from mmgen.serve.running import Drawing, Told

__all__ = ["ImageEvents", "ImagesAnswer", "image_usage"]

EventPrefix: TypeAlias = Literal["image_generation", "image_edit"]


class ImagesAnswer:
    """All pictures of a request: take everything that is told, then ask for the body."""

    def __init__(self, created: int) -> None:
        self._created = created
        self._drawings: dict[int, Drawing] = {}
        self._usages: dict[int, Usage] = {}

    def take(self, told: Told) -> None:
        """Take what is told of a turn."""
        if isinstance(told, Drawing):
            self._drawings[told.index] = told
        elif isinstance(told, TurnFinished):
            self._usages[told.index] = told.usage

    def body(self) -> dict[str, Any]:
        """Return the pictures in the order of their seeds."""
        drawings = [drawing for _, drawing in sorted(self._drawings.items())]
        return {
            "created": self._created,
            "data": [{"b64_json": item.encoded, "mmgen": item.applied} for item in drawings],
            "background": "opaque",
            "output_format": drawings[0].format.name,
            "quality": "auto",
            "size": drawings[0].size,
            "usage": image_usage(list(self._usages.values())),
        }


class ImageEvents:
    """Pictures as events: previews while one is drawn, then the picture."""

    def __init__(self, prefix: EventPrefix, created: int, format_: PictureFormat) -> None:
        self._prefix = prefix
        self._created = created
        self._format = format_
        self._num_previews: dict[int, int] = {}
        self._drawings: dict[int, Drawing] = {}

    def opening(self) -> list[dict[str, Any]]:
        """Return the events before anything is told."""
        return []

    def take(self, told: Told) -> list[dict[str, Any]]:
        """Return the events for what is told of a turn."""
        match told:
            case Preview():
                number = self._num_previews.get(told.index, 0)
                self._num_previews[told.index] = number + 1
                event = self._event("partial_image", told.encoded, told.size)
                progress = {"num_done": told.num_done, "num_codes": told.num_codes}
                extra = {"index": told.index, **progress}
                return [event | {"partial_image_index": number, "mmgen": extra}]
            case Drawing():
                self._drawings[told.index] = told
            case TurnFinished():
                drawing = self._drawings[told.index]
                event = self._event("completed", drawing.encoded, drawing.size)
                extra = {"index": told.index, **drawing.applied}
                return [event | {"usage": image_usage([told.usage]), "mmgen": extra}]
        return []

    def closing(self) -> list[dict[str, Any]]:
        """Return the events after everything was told."""
        return []

    def _event(self, kind: str, encoded: str, size: str) -> dict[str, Any]:
        return {
            "type": f"{self._prefix}.{kind}",
            "b64_json": encoded,
            "created_at": self._created,
            "background": "opaque",
            "output_format": self._format.name,
            "quality": "auto",
            "size": size,
        }


def image_usage(usages: list[Usage]) -> dict[str, Any]:
    """Return the usage of pictures that were drawn from one prompt, which is counted once."""
    num_input, num_read = usages[0].prompt_ids, usages[0].prompt_image_ids
    num_images = sum(usage.image_ids for usage in usages)
    num_text = sum(usage.text_ids for usage in usages)
    return {
        "input_tokens": num_input,
        "input_tokens_details": {
            "cached_tokens": usages[0].cached_ids or 0,
            "image_tokens": num_read,
            "text_tokens": num_input - num_read,
        },
        "output_tokens": num_images + num_text,
        "total_tokens": num_input + num_images + num_text,
        "output_tokens_details": {"image_tokens": num_images, "text_tokens": num_text},
    }
