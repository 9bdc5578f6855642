"""The body of a request for a response as a request to a session."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from PIL import Image as Pillow

from mmgen.checkpoint import GenerationDefaults
from mmgen.document import Document, Image, Segment, Turn
from mmgen.generate.requests import ChatRequest
from mmgen.grammar import Role
from mmgen.serve.chat_input import DEFAULT_TOKENS, checked_text
from mmgen.serve.choices import (
    at_most,
    check_image_guidance,
    first_seed,
    merged_sampling,
    turn_size,
)
from mmgen.serve.fields import ImageSampling, check_neutral
from mmgen.serve.image_input import checked_format
from mmgen.serve.refusals import Refusal
from mmgen.serve.rendering import PictureFormat
from mmgen.serve.response_fields import (
    ImageCallItem,
    ImageTool,
    InputTextPart,
    MessageItem,
    ResponsesBody,
)
from mmgen.serve.settings import Limits

__all__ = ["image_tool", "item_urls", "response_request", "tool_format"]


def item_urls(body: ResponsesBody) -> dict[str, str]:
    """Return where the pictures of the items are, by the field that names each."""
    if isinstance(body.input, str):
        return {}
    urls: dict[str, str] = {}
    for index, item in enumerate(body.input):
        place = f"input[{index}]"
        if isinstance(item, ImageCallItem):
            urls[f"{place}.result"] = f"data:image/png;base64,{item.result}"
        elif not isinstance(item.content, str):
            for number, part in enumerate(item.content):
                if not isinstance(part, InputTextPart):
                    check_neutral(part)
                    urls[f"{place}.content[{number}].image_url"] = part.image_url
    return urls


def image_tool(body: ResponsesBody) -> ImageTool | None:
    """Return the tool that draws, if the request has it and allows its use."""
    tools = body.tools or []
    if len(tools) > 1:
        raise Refusal("tools has image_generation more than once", param="tools")
    if tools:
        check_neutral(tools[0])
    if body.tool_choice not in (None, "none", "auto") and not tools:
        raise Refusal(
            "tool_choice asks for a tool, and tools has none; add {'type': 'image_generation'}",
            param="tool_choice",
        )
    return tools[0] if tools and body.tool_choice != "none" else None


def tool_format(tool: ImageTool | None) -> PictureFormat:
    """Return the kind of file that is asked for."""
    if tool is None:
        return PictureFormat()
    return checked_format(tool.output_format, tool.output_compression)


def response_request(
    body: ResponsesBody,
    pictures: Mapping[str, Pillow.Image],
    defaults: GenerationDefaults,
    sizes: Collection[tuple[int, int]],
    limits: Limits,
) -> ChatRequest:
    """Return the turn that is asked for.

    Args:
        pictures: by the fields of `item_urls`.
        defaults: how the checkpoint is used.
        sizes: of the pictures that the model draws.
    """
    check_neutral(body)
    tool = image_tool(body)
    must_draw = tool is not None and body.tool_choice not in (None, "auto")
    image = body.image_sampling or ImageSampling()
    document = _document(body, pictures, defaults.tokenizer)
    check_image_guidance(body.image_guidance_scale, document)
    return ChatRequest(
        document=document,
        seed=first_seed(body.seed, 1),
        guidance_scale=body.guidance_scale,
        image_guidance_scale=body.image_guidance_scale,
        text_sampling=merged_sampling(
            defaults.text, temperature=body.temperature, top_k=body.top_k, top_p=body.top_p
        ),
        image_sampling=merged_sampling(
            defaults.image, temperature=image.temperature, top_k=image.top_k, top_p=image.top_p
        ),
        max_text_ids=at_most(
            body.max_output_tokens, limits.max_tokens, DEFAULT_TOKENS, "max_output_tokens"
        ),
        max_images=0 if tool is None else 1,
        must_draw=must_draw,
        size=turn_size(
            None if tool is None else tool.size, sizes, must_draw=must_draw, how="tool_choice"
        ),
    )


def _document(
    body: ResponsesBody, pictures: Mapping[str, Pillow.Image], tokenizer: str
) -> Document:
    if isinstance(body.input, str):
        turns = [Turn("user", (checked_text(body.input, "input"),))]
    else:
        turns = []
        for index, item in enumerate(body.input):
            turn = _turn(item, f"input[{index}]", pictures, tokenizer)
            # The items of one answer are one turn.
            if turns and turn.role == turns[-1].role == "assistant":
                turns[-1] = Turn("assistant", (*turns[-1].segments, *turn.segments))
            else:
                turns.append(turn)
    if not turns or not all(turn.segments for turn in turns):
        raise Refusal("input is empty, or a message in it is; say something", param="input")
    if turns[-1].role != "user":
        raise Refusal(
            "the last item of input is the assistant's; end with what the user says", param="input"
        )
    return Document(turns=tuple(turns))


def _turn(
    item: MessageItem | ImageCallItem,
    place: str,
    pictures: Mapping[str, Pillow.Image],
    tokenizer: str,
) -> Turn:
    if isinstance(item, ImageCallItem):
        image = Image(picture=pictures[f"{place}.result"], tokenizer=tokenizer)
        return Turn("assistant", (image,))
    if item.role not in ("user", "assistant"):
        raise Refusal(
            f"{place} has the role {item.role!r}; dialogues of this model have turns of 'user' "
            "and 'assistant' only, so say it in a user message",
            param=f"{place}.role",
            code="unsupported_role",
        )
    role: Role = "user" if item.role == "user" else "assistant"
    if isinstance(item.content, str):
        return Turn(role, (checked_text(item.content, f"{place}.content"),))
    segments: list[Segment] = []
    for number, part in enumerate(item.content):
        name = f"{place}.content[{number}]"
        if isinstance(part, InputTextPart):
            segments.append(checked_text(part.text, name))
        else:
            segments.append(Image(picture=pictures[f"{name}.image_url"], tokenizer=tokenizer))
    return Turn(role, tuple(segments))
