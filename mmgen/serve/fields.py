"""The bodies of requests: every field that is understood, with its type, and nothing else.

A field that mmgen does not know is refused, since leaving it out in silence would give another
answer than was asked for. OpenAI's fields that only make sense elsewhere are accepted with the
value that changes nothing; `check_neutral` refuses any other.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from mmgen.generate.engine import MAX_SEED
from mmgen.serve.refusals import Refusal

__all__ = [
    "Body",
    "ChatBody",
    "ChatMessage",
    "EditFields",
    "GenerationBody",
    "ImageFormat",
    "ImagePart",
    "ImageSampling",
    "Seed",
    "StreamOptions",
    "TextPart",
    "check_neutral",
]

Seed: TypeAlias = Annotated[int, Field(ge=0, le=MAX_SEED)]
ImageFormat: TypeAlias = Literal["png", "jpeg", "webp"]


class Body(BaseModel):
    """An object of JSON: known fields of the right type."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {}
    """Fields of OpenAI's that mmgen has no use for, with the values that change nothing."""


def check_neutral(body: Body) -> None:
    """Refuse fields that would have to change the answer and cannot."""
    for name, values in body.NEUTRAL.items():
        value = getattr(body, name)
        # True equals 1 in Python, and False 0; here they are different answers.
        if value is not None and not any(
            value == item and type(value) is type(item) for item in values
        ):
            allowed = " or ".join(repr(item) for item in values)
            hint = f"leave it out or give {allowed}" if allowed else "leave it out"
            raise Refusal(
                f"{name} is not supported by this server; {hint}",
                param=name,
                code="unsupported_parameter",
            )


class ImageUrl(Body):
    """Where a picture is."""

    url: str
    detail: Literal["auto", "low", "high", "original"] | None = None


class TextPart(Body):
    """Some text of a message."""

    type: Literal["text"]
    text: str


class ImagePart(Body):
    """A picture of a message. `index` is as answers have it and is not read."""

    type: Literal["image_url"]
    image_url: ImageUrl
    index: int | None = None


class ChatMessage(Body):
    """One message; one that this server answered with may be given back as it came."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "refusal": (),
        "tool_calls": ([],),
        "function_call": (),
        "audio": (),
        "annotations": ([],),
        "name": (),
    }

    role: Literal["user", "assistant", "system", "developer", "tool", "function"]
    content: str | list[TextPart | ImagePart] | None = None
    images: list[ImagePart] | None = None
    content_parts: list[TextPart | ImagePart] | None = None
    refusal: Any = None
    tool_calls: Any = None
    function_call: Any = None
    audio: Any = None
    annotations: Any = None
    name: Any = None


class StreamOptions(Body):
    """What else a stream tells."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class ImageSampling(Body):
    """How the codes of pictures are chosen; what is left out is as the model has it."""

    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None


class ChatBody(Body):
    """`POST /v1/chat/completions`."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "audio": (),
        "frequency_penalty": (0, 0.0),
        "function_call": ("none",),
        "functions": ([],),
        "logit_bias": ({},),
        "logprobs": (False,),
        "parallel_tool_calls": (True, False),
        "prediction": (),
        "presence_penalty": (0, 0.0),
        "reasoning_effort": ("none",),
        "response_format": ({"type": "text"},),
        "service_tier": ("auto", "default"),
        "stop": ([],),
        "store": (False,),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "top_logprobs": (0,),
        "verbosity": ("medium",),
        "web_search_options": (),
    }

    messages: list[ChatMessage]
    model: str | None = None
    modalities: list[Literal["text", "image", "audio"]] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Seed | None = None
    temperature: float | None = None
    top_p: float | None = None
    user: str | None = None
    safety_identifier: str | None = None
    metadata: dict[str, str] | None = None
    # Not OpenAI's:
    top_k: int | None = None
    guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    image_sampling: ImageSampling | None = None
    max_images: Annotated[int, Field(ge=0)] | None = None
    size: str | None = None
    partial_images: Annotated[int, Field(ge=0)] | None = None
    negative_prompt: str | None = None
    # Neutral:
    audio: Any = None
    frequency_penalty: Any = None
    function_call: Any = None
    functions: Any = None
    logit_bias: Any = None
    logprobs: Any = None
    parallel_tool_calls: Any = None
    prediction: Any = None
    presence_penalty: Any = None
    reasoning_effort: Any = None
    response_format: Any = None
    service_tier: Any = None
    stop: Any = None
    store: Any = None
    tool_choice: Any = None
    tools: Any = None
    top_logprobs: Any = None
    verbosity: Any = None
    web_search_options: Any = None


class DrawingBody(Body):
    """What generations and edits have in common."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "background": ("auto", "opaque"),
        "input_fidelity": (),
        "moderation": ("auto", "low"),
        "quality": ("auto",),
        "response_format": ("b64_json",),
        "style": (),
    }

    prompt: str
    model: str | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    size: str | None = None
    output_format: ImageFormat | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0)] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    # Not OpenAI's:
    seed: Seed | None = None
    guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    temperature: float | None = None
    top_k: int | None = None
    top_p: float | None = None
    tokenizer: str | None = None
    negative_prompt: str | None = None
    # Neutral:
    background: Any = None
    input_fidelity: Any = None
    moderation: Any = None
    quality: Any = None
    response_format: Any = None
    style: Any = None


class GenerationBody(DrawingBody):
    """`POST /v1/images/generations`."""


class EditFields(DrawingBody):
    """The fields of `POST /v1/images/edits` that are no files; forms carry them as text."""

    model_config = ConfigDict(extra="forbid", strict=False, allow_inf_nan=False)
