"""Events of chat turns in the shape of chat completions, whole or as a stream of chunks.

OpenAI defines no pictures in chat answers. What others do is followed: `message.images` and
`delta.images` hold them as data URIs, and `content` is the words, or null. How words and pictures
follow each other in a whole answer is told in a field of our own, `content_parts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from mmgen.generate.events import ImageStarted, TextDelta, TurnEnd, TurnFinished, Usage
from mmgen.generate.requests import ChatRequest
from mmgen.serve.previews import Preview
from mmgen.serve.rendering import PictureFormat, data_uri
from mmgen.serve.running import Drawing, Told

__all__ = ["ChatAnswer", "ChatChunks", "usage_of_turns"]

_FINISH: dict[TurnEnd, str] = {"end": "stop", "image": "stop", "length": "length"}


@dataclass(slots=True)
class _Choice:
    """One answer as it grows."""

    seed: int
    parts: list[dict[str, Any]] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)
    applied: list[dict[str, Any]] = field(default_factory=list)
    finished: TurnFinished | None = None

    def take(self, told: Told) -> None:
        match told:
            case TextDelta():
                if not self.parts or self.parts[-1]["type"] != "text":
                    self.parts.append({"type": "text", "text": ""})
                self.parts[-1]["text"] += told.text
            case Drawing():
                self.parts.append({"type": "image_url", "image_url": {"url": told.url}})
                self.images.append(_image(len(self.images), told.url))
                self.applied.append(told.applied)
            case TurnFinished():
                self.finished = told

    @property
    def turn(self) -> TurnFinished:
        assert self.finished is not None, "an answer is shown when its turn is over"
        return self.finished

    def report(self) -> dict[str, Any]:
        """Return what was applied."""
        timings = {name: round(value, 4) for name, value in asdict(self.turn.timings).items()}
        return {"seed": self.seed, "images": self.applied, "timings": timings}


class ChatAnswer:
    """A whole answer: take everything that is told, then ask for the body."""

    def __init__(self, head: dict[str, Any], requests: Sequence[ChatRequest]) -> None:
        """Begin.

        Args:
            head: `id`, `created` and `model`.
            requests: one per choice.
        """
        self._head = head
        self._choices = [_Choice(request.seed) for request in requests]

    def take(self, told: Told) -> None:
        """Take what is told of a turn."""
        self._choices[told.index].take(told)

    def body(self) -> dict[str, Any]:
        """Return the completion."""
        choices = [
            {
                "index": index,
                "message": self._message(choice),
                "logprobs": None,
                "finish_reason": _FINISH[choice.turn.end],
                "mmgen": choice.report(),
            }
            for index, choice in enumerate(self._choices)
        ]
        usage = usage_of_turns([choice.turn.usage for choice in self._choices])
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": usage}

    def _message(self, choice: _Choice) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": None, "refusal": None}
        if not choice.images:
            return message | {"content": choice.turn.text}
        return message | {
            "content": choice.turn.text or None,
            "images": choice.images,
            "content_parts": choice.parts,
        }


class ChatChunks:
    """A streamed answer: each thing that is told gives some chunks."""

    def __init__(
        self,
        head: dict[str, Any],
        requests: Sequence[ChatRequest],
        format_: PictureFormat,
        *,
        has_usage: bool,
    ) -> None:
        """Begin.

        Args:
            head: `id`, `created` and `model`.
            requests: one per choice.
            format_: of the pictures.
            has_usage: whether a chunk with the usage ends the stream.
        """
        self._head = head | {"object": "chat.completion.chunk"}
        self._format = format_
        self._choices = [_Choice(request.seed) for request in requests]
        self._has_usage = has_usage

    def opening(self) -> list[dict[str, Any]]:
        """Return the chunks before anything is told."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._chunk(index, delta) for index in range(len(self._choices))]

    def take(self, told: Told) -> list[dict[str, Any]]:
        """Return the chunks for what is told of a turn."""
        choice = self._choices[told.index]
        number = len(choice.images)
        choice.take(told)
        match told:
            case TextDelta():
                return [self._chunk(told.index, {"content": told.text})]
            case Preview():
                partial = _image(number, data_uri(told.encoded, self._format))
                partial |= {"num_done": told.num_done, "num_codes": told.num_codes}
                return [self._chunk(told.index, {"partial_images": [partial]})]
            case Drawing():
                return [self._chunk(told.index, {"images": [choice.images[-1]]})]
            case TurnFinished():
                chunk = self._chunk(told.index, {}, _FINISH[told.end])
                chunk["choices"][0]["mmgen"] = choice.report()
                return [chunk]
            case ImageStarted():
                return []

    def closing(self) -> list[dict[str, Any]]:
        """Return the chunks after everything was told."""
        if not self._has_usage:
            return []
        usage = usage_of_turns([choice.turn.usage for choice in self._choices])
        return [{**self._head, "choices": [], "usage": usage}]

    def _chunk(
        self, index: int, delta: dict[str, Any], finish_reason: str | None = None
    ) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        chunk = {**self._head, "choices": [choice]}
        return chunk | {"usage": None} if self._has_usage else chunk


def usage_of_turns(usages: Sequence[Usage]) -> dict[str, Any]:
    """Return the usage of answers to one prompt, which is counted once."""
    num_text = sum(usage.text_ids for usage in usages)
    num_image = sum(usage.image_ids for usage in usages)
    num_prompt, num_read = usages[0].prompt_ids, usages[0].prompt_image_ids
    return {
        "prompt_tokens": num_prompt,
        "completion_tokens": num_text + num_image,
        "total_tokens": num_prompt + num_text + num_image,
        "prompt_tokens_details": {
            "cached_tokens": usages[0].cached_ids or 0,
            "text_tokens": num_prompt - num_read,
            "image_tokens": num_read,
        },
        "completion_tokens_details": {"text_tokens": num_text, "image_tokens": num_image},
    }


def _image(number: int, url: str) -> dict[str, Any]:
    return {"type": "image_url", "index": number, "image_url": {"url": url}}
