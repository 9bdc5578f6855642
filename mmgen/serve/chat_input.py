"""The body of a chat request as requests to a session."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from PIL import Image as Pillow

from mmgen.checkpoint import GenerationDefaults
from mmgen.document import Document, Image, Segment, Text, Turn
from mmgen.errors import SettingsError
from mmgen.generate.requests import ChatRequest, check_characters
from mmgen.serve.choices import (
    at_most,
    check_image_guidance,
    first_seed,
    merged_sampling,
    refuse_negative_prompt,
    turn_size,
)
from mmgen.serve.fields import (
    ChatBody,
    ChatMessage,
    ImagePart,
    ImageSampling,
    TextPart,
    check_neutral,
)
from mmgen.serve.refusals import Refusal
from mmgen.serve.settings import Limits

__all__ = ["chat_document", "chat_requests", "checked_text", "picture_urls"]

DEFAULT_TOKENS = 256
"""Text tokens of an answer unless the request says otherwise."""


def picture_urls(body: ChatBody) -> dict[str, str]:
    """Return where the pictures of a dialogue are, by the field that names each."""
    return {
        name: url
        for index, message in enumerate(body.messages)
        for name, url in _pictures_of(message, f"messages[{index}]")
    }


def chat_requests(
    body: ChatBody,
    pictures: Mapping[str, Pillow.Image],
    defaults: GenerationDefaults,
    sizes: Collection[tuple[int, int]],
    limits: Limits,
) -> list[ChatRequest]:
    """Return one request per answer that is asked for.

    Args:
        pictures: by the fields of `picture_urls`.
        defaults: how the checkpoint is used.
        sizes: of the pictures that the model draws.
    """
    check_neutral(body)
    refuse_negative_prompt(body.negative_prompt)
    n = at_most(body.n, limits.max_n, 1, "n")
    seed = first_seed(body.seed, n)
    document = chat_document(body, pictures, defaults.tokenizer)
    check_image_guidance(body.image_guidance_scale, document)
    text_sampling = merged_sampling(
        defaults.text, temperature=body.temperature, top_k=body.top_k, top_p=body.top_p
    )
    image = body.image_sampling or ImageSampling()
    image_sampling = merged_sampling(
        defaults.image, temperature=image.temperature, top_k=image.top_k, top_p=image.top_p
    )
    max_text_ids, max_images, must_draw = _extent(body, limits)
    size = turn_size(body.size, sizes, must_draw=must_draw, how="modalities=['image']")
    return [
        ChatRequest(
            document=document,
            seed=seed + number,
            guidance_scale=body.guidance_scale,
            image_guidance_scale=body.image_guidance_scale,
            text_sampling=text_sampling,
            image_sampling=image_sampling,
            max_text_ids=max_text_ids,
            max_images=max_images,
            must_draw=must_draw,
            size=size,
        )
        for number in range(n)
    ]


def chat_document(body: ChatBody, pictures: Mapping[str, Pillow.Image], tokenizer: str) -> Document:
    """Return the dialogue so far."""
    if not body.messages:
        raise Refusal("messages is empty; give at least one of the user", param="messages")
    turns = [
        _turn(message, f"messages[{index}]", pictures, tokenizer)
        for index, message in enumerate(body.messages)
    ]
    if turns[-1].role != "user":
        raise Refusal(
            "the last message is the assistant's; end with what the user says", param="messages"
        )
    return Document(turns=tuple(turns))


def checked_text(text: str, param: str) -> Text:
    """Return a text that has only characters of text."""
    try:
        check_characters(text)
    except SettingsError as error:
        raise Refusal(f"{param}: {error}", param=param) from error
    return Text(text)


def _parts(message: ChatMessage) -> tuple[str, list[TextPart | ImagePart]] | None:
    """Return the parts of a message in order and the field that has them; None if it has none."""
    if message.content_parts is not None:
        return "content_parts", message.content_parts
    return ("content", message.content) if isinstance(message.content, list) else None


def _pictures_of(message: ChatMessage, place: str) -> list[tuple[str, str]]:
    field, parts = _parts(message) or ("content", [])
    inside = [
        (f"{place}.{field}[{index}].image_url", part.image_url.url)
        for index, part in enumerate(parts)
        if not isinstance(part, TextPart)
    ]
    beside = [
        (f"{place}.images[{index}].image_url", part.image_url.url)
        for index, part in enumerate(message.images or [])
    ]
    if not inside:
        return beside
    # Answers have their pictures in both places; what is given back is read once.
    if beside and [url for _, url in beside] != [url for _, url in inside]:
        raise Refusal(
            f"{place} has other pictures in images than in {field}; give each picture once",
            param=f"{place}.images",
        )
    return inside


def _turn(
    message: ChatMessage, place: str, pictures: Mapping[str, Pillow.Image], tokenizer: str
) -> Turn:
    check_neutral(message)
    if message.role not in ("user", "assistant"):
        raise Refusal(
            f"{place} has the role {message.role!r}; dialogues of this model have turns of "
            "'user' and 'assistant' only, so say it in a user message",
            param=f"{place}.role",
            code="unsupported_role",
        )
    segments: list[Segment] = []
    found = _parts(message)
    if found is None:
        assert not isinstance(message.content, list), "a list of parts was found"
        segments.append(checked_text(message.content or "", f"{place}.content"))
    else:
        field, parts = found
        _check_words(message, parts, place)
        for index, part in enumerate(parts):
            name = f"{place}.{field}[{index}]"
            if isinstance(part, TextPart):
                segments.append(checked_text(part.text, name))
            else:
                picture = pictures[f"{name}.image_url"]
                segments.append(Image(picture=picture, tokenizer=tokenizer))
    if not any(isinstance(segment, Image) for segment in segments):
        segments += [
            Image(picture=pictures[name], tokenizer=tokenizer)
            for name, _ in _pictures_of(message, place)
        ]
    turn = Turn("user" if message.role == "user" else "assistant", tuple(segments))
    if not turn.segments:
        raise Refusal(f"{place} is empty; say something or show a picture", param=place)
    return turn


def _check_words(message: ChatMessage, parts: Sequence[TextPart | ImagePart], place: str) -> None:
    """Refuse a message that says one thing in its content and another in its parts."""
    if message.content is None or message.content is parts:
        return
    words = "".join(part.text for part in parts if isinstance(part, TextPart))
    if message.content != words:
        raise Refusal(
            f"{place} has other words in content than in content_parts; give one of them",
            param=f"{place}.content",
        )


def _extent(body: ChatBody, limits: Limits) -> tuple[int, int, bool]:
    """Return most text tokens, most pictures, and whether there must be one."""
    asked = {body.max_tokens, body.max_completion_tokens} - {None}
    if len(asked) > 1:
        raise Refusal(
            "max_tokens and max_completion_tokens disagree; give one of them", param="max_tokens"
        )
    num_tokens = at_most(
        asked.pop() if asked else None, limits.max_tokens, DEFAULT_TOKENS, "max_tokens"
    )
    num_images = at_most(body.max_images, limits.max_n, 1, "max_images")
    wanted = set(["text", "image"] if body.modalities is None else body.modalities)
    if "audio" in wanted or not wanted:
        raise Refusal("modalities are 'text' and 'image', or one of them", param="modalities")
    if "image" not in wanted:
        if body.max_images:
            raise Refusal("max_images needs 'image' among the modalities", param="max_images")
        return num_tokens, 0, False
    if "text" in wanted:
        return num_tokens, num_images, False
    if num_images != 1:
        raise Refusal(
            f"modalities ['image'] gives one picture, but max_images is {num_images}; use n for "
            "several",
            param="max_images",
        )
    return 0, 1, True
