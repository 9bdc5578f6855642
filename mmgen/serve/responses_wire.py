"""Events of a turn in the shape of OpenAI's responses: items in order, each with its events."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from mmgen.generate.events import ImageStarted, TextDelta, TurnFinished, Usage
from mmgen.generate.requests import ChatRequest
from mmgen.serve.previews import Preview
from mmgen.serve.rendering import PictureFormat
from mmgen.serve.response_fields import ResponsesBody, ToolChoice
from mmgen.serve.running import Drawing, Told

__all__ = ["ResponseAnswer", "ResponseEvents"]

CALL = "response.image_generation_call"


class ResponseEvents:
    """A streamed response: each thing that is told gives some events."""

    def __init__(
        self,
        head: dict[str, Any],
        body: ResponsesBody,
        request: ChatRequest,
        format_: PictureFormat,
    ) -> None:
        """Begin.

        Args:
            head: `id`, `created` and `model`.
            body: what was asked, of which a response repeats a part.
            request: what was made of it.
            format_: of the pictures.
        """
        self._head = head
        self._asked = body
        self._request = request
        self._format = format_
        self._number = 0
        self._items: list[dict[str, Any]] = []
        self._is_speaking = False
        self._num_previews = 0
        self._finished: TurnFinished | None = None

    def opening(self) -> list[dict[str, Any]]:
        """Return the events before anything is told."""
        return [
            self._event("response.created", response=self.response("in_progress")),
            self._event("response.in_progress", response=self.response("in_progress")),
        ]

    def take(self, told: Told) -> list[dict[str, Any]]:
        """Return the events for what is told."""
        match told:
            case TextDelta():
                return [*self._begin_speaking(), *self._say(told.text)]
            case ImageStarted():
                return [*self._stop_speaking(), *self._begin_image()]
            case Preview():
                return [self._preview(told)]
            case Drawing():
                return self._end_image(told)
            case TurnFinished():
                self._finished = told
                events = self._stop_speaking()
                status = "incomplete" if told.end == "length" else "completed"
                end = self._event(f"response.{status}", response=self.response(status))
                return [*events, end]

    def closing(self) -> list[dict[str, Any]]:
        """Return the events after everything was told."""
        return []

    def response(self, status: str) -> dict[str, Any]:
        """Return the response as far as it is."""
        asked, request, done = self._asked, self._request, self._finished
        assert request.text_sampling is not None
        reason = {"reason": "max_output_tokens"} if status == "incomplete" else None
        described = {
            "id": self._head["id"],
            "object": "response",
            "created_at": self._head["created"],
            "model": self._head["model"],
            "status": status,
            "error": None,
            "incomplete_details": reason,
            "instructions": None,
            "max_output_tokens": request.max_text_ids,
            "metadata": asked.metadata or {},
            "output": list(self._items) if done else [],
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "temperature": request.text_sampling.temperature,
            "text": {"format": {"type": "text"}},
            "tool_choice": _choice(asked.tool_choice),
            "tools": [tool.model_dump(exclude_none=True) for tool in asked.tools or []],
            "top_p": 1.0 if request.text_sampling.top_p is None else request.text_sampling.top_p,
            "truncation": "disabled",
            "usage": _usage(done.usage) if done else None,
            "user": asked.user,
        }
        if done:
            images = [item["mmgen"] for item in self._items if "mmgen" in item]
            timings = {name: round(value, 4) for name, value in asdict(done.timings).items()}
            described["mmgen"] = {"seed": request.seed, "images": images, "timings": timings}
        return described

    def _begin_speaking(self) -> list[dict[str, Any]]:
        if self._is_speaking:
            return []
        self._is_speaking = True
        item = {
            "id": self._item_id("msg_"),
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        self._items.append(item)
        part = {"content_index": 0, "part": _text_part("")}
        return [self._added(dict(item)), self._of_item("response.content_part.added", **part)]

    def _say(self, text: str) -> list[dict[str, Any]]:
        item = self._items[-1]
        said = item["content"][0]["text"] if item["content"] else ""
        item["content"] = [_text_part(said + text)]
        delta = {"content_index": 0, "delta": text, "logprobs": []}
        return [self._of_item("response.output_text.delta", **delta)]

    def _stop_speaking(self) -> list[dict[str, Any]]:
        if not self._is_speaking:
            return []
        self._is_speaking = False
        item = self._items[-1]
        item["status"] = "completed"
        (part,) = item["content"]
        whole = {"content_index": 0, "text": part["text"], "logprobs": []}
        return [
            self._of_item("response.output_text.done", **whole),
            self._of_item("response.content_part.done", content_index=0, part=part),
            self._done(item),
        ]

    def _begin_image(self) -> list[dict[str, Any]]:
        self._num_previews = 0
        item = {
            "id": self._item_id("ig_"),
            "type": "image_generation_call",
            "status": "in_progress",
            "result": None,
        }
        self._items.append(item)
        return [
            self._added(dict(item)),
            self._of_item(f"{CALL}.in_progress"),
            self._of_item(f"{CALL}.generating"),
        ]

    def _preview(self, preview: Preview) -> dict[str, Any]:
        number, self._num_previews = self._num_previews, self._num_previews + 1
        return self._of_item(
            f"{CALL}.partial_image",
            partial_image_b64=preview.encoded,
            partial_image_index=number,
            output_format=self._format.name,
            size=preview.size,
            background="opaque",
        )

    def _end_image(self, drawing: Drawing) -> list[dict[str, Any]]:
        item = self._items[-1]
        item |= {
            "status": "completed",
            "result": drawing.encoded,
            "background": "opaque",
            "output_format": drawing.format.name,
            "quality": "auto",
            "size": drawing.size,
            "mmgen": drawing.applied,
        }
        return [self._of_item(f"{CALL}.completed"), self._done(item)]

    def _item_id(self, prefix: str) -> str:
        return f"{prefix}{self._head['id'].removeprefix('resp_')}_{len(self._items)}"

    def _added(self, item: dict[str, Any]) -> dict[str, Any]:
        place = len(self._items) - 1
        return self._event("response.output_item.added", output_index=place, item=item)

    def _done(self, item: dict[str, Any]) -> dict[str, Any]:
        place = len(self._items) - 1
        return self._event("response.output_item.done", output_index=place, item=item)

    def _of_item(self, kind: str, **facts: Any) -> dict[str, Any]:
        """Return an event about the newest item."""
        place = len(self._items) - 1
        return self._event(kind, item_id=self._items[-1]["id"], output_index=place, **facts)

    def _event(self, kind: str, **facts: Any) -> dict[str, Any]:
        number, self._number = self._number, self._number + 1
        return {"type": kind, "sequence_number": number, **facts}


class ResponseAnswer:
    """A whole response."""

    def __init__(self, events: ResponseEvents) -> None:
        self._events = events
        self._last: dict[str, Any] = {}

    def take(self, told: Told) -> None:
        """Take what is told."""
        events = self._events.take(told)
        self._last = events[-1] if events else self._last

    def body(self) -> dict[str, Any]:
        """Return the response."""
        response: dict[str, Any] = self._last["response"]
        return response


def _text_part(text: str) -> dict[str, Any]:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _choice(choice: ToolChoice | str | None) -> dict[str, str] | str:
    return {"type": choice.type} if isinstance(choice, ToolChoice) else choice or "auto"


def _usage(usage: Usage) -> dict[str, Any]:
    num_output = usage.text_ids + usage.image_ids
    num_text = usage.prompt_ids - usage.prompt_image_ids
    return {
        "input_tokens": usage.prompt_ids,
        "input_tokens_details": {
            "cached_tokens": usage.cached_ids or 0,
            "text_tokens": num_text,
            "image_tokens": usage.prompt_image_ids,
        },
        "output_tokens": num_output,
        "output_tokens_details": {
            "reasoning_tokens": 0,
            "text_tokens": usage.text_ids,
            "image_tokens": usage.image_ids,
        },
        "total_tokens": usage.prompt_ids + num_output,
    }
