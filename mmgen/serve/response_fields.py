"""The body of `POST /v1/responses`: items in, the tool that draws, and what is refused."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from mmgen.serve.fields import Body, ImageFormat, ImageSampling, Seed, StreamOptions

__all__ = [
    "ImageCallItem",
    "ImageTool",
    "InputImagePart",
    "InputTextPart",
    "MessageItem",
    "ResponsesBody",
    "ToolChoice",
]


class InputTextPart(Body):
    """Some text; `output_text` is how answers have it."""

    type: Literal["input_text", "output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputImagePart(Body):
    """A picture."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {"file_id": ()}

    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high", "original"] | None = None
    file_id: Any = None


class MessageItem(Body):
    """What one side said."""

    type: Literal["message"] | None = None
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputTextPart | InputImagePart]
    id: str | None = None
    status: str | None = None
    phase: Any = None


class ImageCallItem(Body):
    """A picture that was drawn before, as an answer had it."""

    type: Literal["image_generation_call"]
    result: str
    id: str | None = None
    status: str | None = None
    action: Any = None
    background: Any = None
    error: None = None
    output_format: Any = None
    quality: Any = None
    revised_prompt: Any = None
    size: Any = None
    mmgen: Any = None


class ImageTool(Body):
    """The tool that draws."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "action": ("auto",),
        "background": ("auto", "opaque"),
        "input_fidelity": (),
        "input_image_mask": (),
        "moderation": ("auto", "low"),
        "quality": ("auto",),
    }

    type: Literal["image_generation"]
    model: str | None = None
    size: str | None = None
    output_format: ImageFormat | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    partial_images: Annotated[int, Field(ge=0)] | None = None
    action: Any = None
    background: Any = None
    input_fidelity: Any = None
    input_image_mask: Any = None
    moderation: Any = None
    quality: Any = None


class ToolChoice(Body):
    """The tool that must be used."""

    type: Literal["image_generation"]


class ResponsesBody(Body):
    """`POST /v1/responses`."""

    NEUTRAL: ClassVar[dict[str, tuple[Any, ...]]] = {
        "background": (False,),
        "conversation": (),
        "include": ([],),
        "instructions": (),
        "max_tool_calls": (),
        "parallel_tool_calls": (True, False),
        "previous_response_id": (),
        "prompt": (),
        "reasoning": (),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "text": ({"format": {"type": "text"}},),
        "top_logprobs": (0,),
        "truncation": ("disabled",),
    }

    input: str | list[MessageItem | ImageCallItem]
    model: str | None = None
    tools: list[ImageTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    # Not OpenAI's:
    seed: Seed | None = None
    top_k: int | None = None
    guidance_scale: float | None = None
    image_guidance_scale: float | None = None
    image_sampling: ImageSampling | None = None
    # Neutral:
    background: Any = None
    conversation: Any = None
    include: Any = None
    instructions: Any = None
    max_tool_calls: Any = None
    parallel_tool_calls: Any = None
    previous_response_id: Any = None
    prompt: Any = None
    reasoning: Any = None
    service_tier: Any = None
    store: Any = None
    text: Any = None
    top_logprobs: Any = None
    truncation: Any = None
