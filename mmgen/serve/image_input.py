"""The bodies of image requests as requests to a session."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image as Pillow

from mmgen.checkpoint import GenerationDefaults
from mmgen.document import Document, Image, Text, Turn
from mmgen.errors import SettingsError
from mmgen.generate.requests import ChatRequest, DrawRequest, check_prompt
from mmgen.serve.choices import (
    at_most,
    check_image_guidance,
    first_seed,
    merged_sampling,
    wanted_size,
)
from mmgen.serve.fields import DrawingBody, ImageFormat, check_neutral
from mmgen.serve.refusals import Refusal
from mmgen.serve.rendering import PictureFormat
from mmgen.serve.settings import Limits

__all__ = ["checked_format", "draw_requests", "edit_requests", "num_previews"]


def draw_requests(
    body: DrawingBody, defaults: GenerationDefaults, limits: Limits
) -> list[DrawRequest]:
    """Return one request per picture, drawn from words."""
    n, seed = _checked(body, limits)
    if body.image_guidance_scale is not None:
        raise Refusal(
            "image_guidance_scale is for pictures that follow those that a user shows; leave it "
            "out here or use /v1/images/edits",
            param="image_guidance_scale",
            code="unsupported_parameter",
        )
    sampling = merged_sampling(
        defaults.image, temperature=body.temperature, top_k=body.top_k, top_p=body.top_p
    )
    return [
        DrawRequest(
            prompt=body.prompt,
            # Forms of clients send an empty one for none.
            negative_prompt=body.negative_prompt or None,
            seed=seed + number,
            guidance_scale=body.guidance_scale,
            sampling=sampling,
            size=wanted_size(body.size),
            tokenizer=body.tokenizer,
        )
        for number in range(n)
    ]


def edit_requests(
    body: DrawingBody,
    pictures: Sequence[Pillow.Image],
    defaults: GenerationDefaults,
    limits: Limits,
) -> list[ChatRequest]:
    """Return one request per picture, drawn after pictures and words that follow them."""
    n, seed = _checked(body, limits)
    name = body.tokenizer or defaults.tokenizer
    images = [Image(picture=picture, tokenizer=name) for picture in pictures]

    def asking(prompt: str) -> Document:
        text = Text(defaults.draw_template.replace("{prompt}", prompt))
        return Document(turns=(Turn("user", (*images, text)),))

    document = asking(body.prompt)
    check_image_guidance(body.image_guidance_scale, document)
    # Forms of clients send an empty one for none.
    negative_prompt = body.negative_prompt or None
    if negative_prompt is not None:
        _check_words(negative_prompt, "negative_prompt")
    sampling = merged_sampling(
        defaults.image, temperature=body.temperature, top_k=body.top_k, top_p=body.top_p
    )
    return [
        ChatRequest(
            document=document,
            seed=seed + number,
            guidance_scale=body.guidance_scale,
            image_guidance_scale=body.image_guidance_scale,
            negative_document=None if negative_prompt is None else asking(negative_prompt),
            negative_prompt=negative_prompt,
            image_sampling=sampling,
            max_text_ids=0,
            must_draw=True,
            size=wanted_size(body.size),
            tokenizer=name,
        )
        for number in range(n)
    ]


def checked_format(name: ImageFormat | None, compression: int | None) -> PictureFormat:
    """Return the kind of file that is asked for."""
    name = name or "png"
    if name == "png" and compression not in (None, 100):
        raise Refusal(
            "output_compression is for jpeg and webp; PNG files lose nothing",
            param="output_compression",
        )
    return PictureFormat(name=name, compression=None if name == "png" else compression)


def num_previews(partial_images: int | None, stream: bool | None, limits: Limits) -> int:
    """Return how many previews are asked for; only a stream can have any."""
    number = at_most(partial_images, limits.max_partial_images, 0, "partial_images")
    if number and not stream:
        raise Refusal("partial_images needs stream=true", param="partial_images")
    return number


def _checked(body: DrawingBody, limits: Limits) -> tuple[int, int]:
    """Refuse what cannot be done; return the number of pictures and the first seed."""
    check_neutral(body)
    _check_words(body.prompt, "prompt")
    n = at_most(body.n, limits.max_n, 1, "n")
    return n, first_seed(body.seed, n)


def _check_words(prompt: str, param: str) -> None:
    try:
        check_prompt(prompt)
    except SettingsError as error:
        raise Refusal(str(error), param=param) from error
