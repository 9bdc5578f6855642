"""Turns as the JSON that servers read, and the JSON that they send as words and pictures."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image as PilImage

from mmgen.generate.engine import SamplingParams
from mmgen.pictures import open_picture, png_bytes
from mmgen_chat.backend import CaptionRequest, ChatRequest, DrawRequest, TurnSettings
from mmgen_chat.conversation import Drawing, Picture, Turn, Usage, Words
from mmgen_chat.errors import BackendError, EndpointReplyError

__all__ = [
    "caption_body",
    "chat_body",
    "delta_pictures",
    "delta_text",
    "drawing_body",
    "ordered_parts",
    "picture_in",
    "told_drawing",
    "usage_of",
    "with_file",
]

QUESTION = "Describe this picture in one short sentence."
"""What is asked of models that were not made by mmgen."""

NUM_PREVIEWS = 8
"""Previews of a picture that are asked of mmgen's server; others give at most a few."""
NUM_PREVIEWS_ELSEWHERE = 2


def chat_body(request: ChatRequest, turns: Sequence[Turn], model: str, *, is_ours: bool) -> Any:
    """Return the body of a request for the next turn.

    Args:
        turns: those that are sent.
        is_ours: whether the server is mmgen's, which understands more and is stricter.
    """
    body = {**_body(request.settings, model, is_ours), "messages": _messages(turns, is_ours)}
    if request.must_draw:
        body["modalities"] = ["image"] if is_ours else ["image", "text"]
    if is_ours:
        settings = request.settings
        body |= {"partial_images": NUM_PREVIEWS, "max_images": settings.max_images}
        shown = (turn.segments for turn in turns if turn.role == "user")
        if any(isinstance(item, Picture) for segments in shown for item in segments):
            body |= _given(image_guidance_scale=settings.image_guidance_scale)
        if request.must_draw:
            body["max_images"] = 1
            body |= _size(settings)
    return body


def caption_body(request: CaptionRequest, model: str, *, is_ours: bool) -> Any:
    """Return the body of a question about a picture."""
    prompt = request.prompt
    if prompt is None:
        prompt = "what is this?" if is_ours else QUESTION
    turn = Turn(role="user", segments=(request.picture, Words(prompt)))
    body = {**_body(request.settings, model, is_ours), "messages": _messages([turn], is_ours)}
    if is_ours:
        body |= {"modalities": ["text"]}
    return body


def drawing_body(request: DrawRequest, model: str, *, is_ours: bool) -> Any:
    """Return the body of a request for pictures."""
    settings = request.settings
    body: dict[str, Any] = {"prompt": request.prompt, "n": request.number, "stream": True}
    body |= {"model": model, **_size(settings)}
    if not is_ours:
        return body | {"partial_images": NUM_PREVIEWS_ELSEWHERE}
    body |= {"partial_images": NUM_PREVIEWS, "seed": settings.seed}
    body |= _given(guidance_scale=settings.guidance_scale, tokenizer=settings.tokenizer)
    return body | _sampling(settings.image_sampling)


def delta_text(delta: Mapping[str, Any]) -> str:
    """Return the words of a chunk or message, whose content may be a list of parts."""
    content = delta.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(
        part["text"]
        for part in parts
        if isinstance(part, dict) and isinstance(part.get("text"), str)
    )


def delta_pictures(delta: Mapping[str, Any], name: str = "images") -> list[dict[str, Any]]:
    """Return the pictures of a chunk, whole or partial ones."""
    found = delta.get(name)
    return [item for item in found if isinstance(item, dict)] if isinstance(found, list) else []


def ordered_parts(delta: Mapping[str, Any]) -> list[str | dict[str, Any]]:
    """Return the words and whole pictures of a chunk or message, in order where it is told.

    mmgen's server tells it in `content_parts`; of other answers the words come first.
    """
    parts = delta_pictures(delta, "content_parts")
    if not parts:
        text = delta_text(delta)
        return [*([text] if text else []), *delta_pictures(delta)]
    found: list[str | dict[str, Any]] = []
    for part in parts:
        if part.get("type") == "image_url":
            found.append(part)
        elif isinstance(part.get("text"), str) and part["text"]:
            found.append(part["text"])
    return found


def picture_in(item: Mapping[str, Any]) -> PilImage.Image:
    """Return the picture of a part of a chunk or of an event. Slow: it decodes.

    Raises:
        EndpointReplyError: there is none, or it cannot be read.
    """
    encoded = item.get("b64_json")
    if not isinstance(encoded, str):
        place = item.get("image_url")
        url = place.get("url") if isinstance(place, dict) else place or item.get("url")
        if not isinstance(url, str) or not url.startswith("data:"):
            raise EndpointReplyError(
                "the server gave the address of a picture in place of the picture, and addresses "
                "are not followed"
            )
        encoded = url.partition(",")[2]
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EndpointReplyError(f"the server sent a damaged picture: {error}") from error
    return open_picture(data)


def with_file(picture: Picture, rendering: PilImage.Image) -> Picture:
    """Return a picture with its rendering."""
    return replace(picture, png=png_bytes(rendering), size=(rendering.height, rendering.width))


def told_drawing(drawing: Drawing, told: Mapping[str, Any]) -> Drawing:
    """Return how a picture was drawn, with what mmgen's server tells of it."""
    sampling = told.get("sampling") or {}
    return replace(
        drawing,
        seed=told.get("seed"),
        guidance_scale=told.get("guidance_scale"),
        image_guidance_scale=told.get("image_guidance_scale"),
        temperature=sampling.get("temperature"),
        top_k=sampling.get("top_k"),
        top_p=sampling.get("top_p"),
        num_done=told.get("tokens"),
        num_codes=told.get("tokens"),
        seconds=told.get("seconds"),
    )


def usage_of(found: Any) -> Usage:
    """Return what a server says of usage, in the words of either of its routes."""
    if not isinstance(found, dict):
        return Usage()
    prompt = _count(found, "prompt_tokens", "input_tokens")
    total = _count(found, "completion_tokens", "output_tokens")
    details = found.get("completion_tokens_details") or found.get("output_tokens_details") or {}
    image = _count(details, "image_tokens")
    text = _count(details, "text_tokens")
    if text is None and total is not None:
        text = total - (image or 0)
    return Usage(prompt_ids=prompt, text_ids=text, image_ids=image)


def _body(settings: TurnSettings, model: str, is_ours: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "stream": True, "seed": settings.seed}
    body["stream_options"] = {"include_usage": True}
    body |= _given(max_tokens=settings.max_text_ids)
    text = settings.text_sampling
    if not is_ours:
        return body | _given(temperature=text and text.temperature, top_p=text and text.top_p)
    body |= _sampling(text) | _given(guidance_scale=settings.guidance_scale)
    if settings.image_sampling is not None:
        body["image_sampling"] = _sampling(settings.image_sampling)
    return body


def _messages(turns: Sequence[Turn], is_ours: bool) -> list[dict[str, Any]]:
    """Return turns as messages; only mmgen's server takes pictures in the assistant's.

    Elsewhere what the assistant drew is shown again at the head of the next message.
    """
    messages: list[dict[str, Any]] = []
    drawn: list[dict[str, Any]] = []
    for turn in turns:
        is_assistant = turn.role == "assistant"
        parts: list[dict[str, Any]] = []
        for item in turn.segments:
            if isinstance(item, Words):
                parts.append({"type": "text", "text": item.text})
            elif is_assistant and not is_ours:
                drawn.append(_part(item))
            else:
                parts.append(_part(item))
        if not is_assistant and drawn:
            parts, drawn = [*drawn, *parts], []
        if is_assistant and not is_ours and not parts:
            parts = [{"type": "text", "text": "(a picture)"}]
        has_pictures = any(part["type"] != "text" for part in parts)
        content: Any = parts
        if not has_pictures:
            content = "".join(part["text"] for part in parts)
        messages.append({"role": turn.role, "content": content})
    return messages


def _part(picture: Picture) -> dict[str, Any]:
    if picture.png is None:
        raise BackendError(
            "a picture of this conversation was never rendered, so a server cannot be shown it; "
            "go on with the model that drew it"
        )
    encoded = base64.b64encode(picture.png).decode("ascii")
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}


def _size(settings: TurnSettings) -> dict[str, Any]:
    if settings.size is None:
        return {}
    height, width = settings.size
    return {"size": f"{width}x{height}"}


def _sampling(sampling: SamplingParams | None) -> dict[str, Any]:
    if sampling is None:
        return {}
    return _given(temperature=sampling.temperature, top_k=sampling.top_k, top_p=sampling.top_p)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _count(found: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        if isinstance(found.get(name), int):
            return int(found[name])
    return None
