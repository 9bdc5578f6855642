"""What a request of the chat asks of the library's session, and what it tells beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmgen.document import Image
from mmgen.generate import requests as library
from mmgen_chat.backend import (
    CaptionRequest,
    ChatRequest,
    DrawRequest,
    Event,
    PictureEncoded,
    TurnRequest,
    TurnsLeftOut,
    TurnStarted,
)

if TYPE_CHECKING:
    from mmgen_chat.encoding import Encoder

__all__ = ["Plan", "make_plan"]

LONGEST_CAPTION = 64
"""Ids of words about a picture where nothing else is wanted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked for one request of the chat, and what is told before it is answered."""

    requests: Sequence[library.TurnRequest]
    prompt: str
    is_repeatable: bool
    opening: Sequence[Event] = ()


def make_plan(encoder: Encoder, model: str, request: TurnRequest) -> Plan:
    """Return what to ask. Slow where pictures have to be looked at.

    Raises:
        MmgenError: the request cannot be served.
    """
    settings = request.settings
    match request:
        case DrawRequest():
            begun = encoder.begun(request.extends) if request.extends is not None else None
            tokenizer = settings.tokenizer
            if request.extends is not None:
                tokenizer = request.extends.tokenizer
            return Plan(
                requests=[
                    library.DrawRequest(
                        prompt=request.prompt,
                        seed=settings.seed + number,
                        guidance_scale=settings.guidance_scale,
                        sampling=settings.image_sampling,
                        size=settings.size,
                        tokenizer=tokenizer,
                        length=settings.length,
                        begun=begun,
                    )
                    for number in range(request.number)
                ],
                prompt=request.prompt,
                # Neither a length nor a beginning is among what a file can say.
                is_repeatable=begun is None and settings.length is None,
                opening=[TurnStarted(model=model)],
            )
        case CaptionRequest():
            document, picture = encoder.question(
                request.picture, request.prompt, settings.tokenizer
            )
            opening: list[Event] = [TurnStarted(model=model)]
            if not picture.is_drawn and picture.codes != request.picture.codes:
                opening.append(PictureEncoded(picture=picture))
            question = library.ChatRequest(
                document=document,
                seed=settings.seed,
                text_sampling=settings.text_sampling,
                max_text_ids=settings.max_text_ids or LONGEST_CAPTION,
                max_images=0,
            )
            return Plan(
                requests=[question],
                prompt=request.prompt or "",
                is_repeatable=False,
                opening=opening,
            )
        case ChatRequest():
            return _chat_plan(encoder, model, request)


def _chat_plan(encoder: Encoder, model: str, request: ChatRequest) -> Plan:
    settings = request.settings
    fitted = encoder.dialogue(request)
    opening: list[Event] = [TurnStarted(model=model, prompt_ids=fitted.num_ids)]
    if fitted.left_out:
        opening.append(
            TurnsLeftOut(turn_ids=fitted.left_out, context_length=encoder.context_length)
        )
    opening += [PictureEncoded(picture=picture) for picture in fitted.encoded]
    has_shown = any(
        isinstance(segment, Image)
        for turn in fitted.document.turns
        for segment in turn.segments
        if turn.role == "user"
    )
    chat = library.ChatRequest(
        document=fitted.document,
        seed=settings.seed,
        guidance_scale=settings.guidance_scale,
        image_guidance_scale=settings.image_guidance_scale if has_shown else None,
        text_sampling=settings.text_sampling,
        image_sampling=settings.image_sampling,
        max_text_ids=fitted.max_text_ids,
        max_images=settings.max_images,
        must_draw=request.must_draw,
        size=settings.size if request.must_draw else None,
        tokenizer=settings.tokenizer if request.must_draw else None,
    )
    prompt = request.turns[-1].text.strip()
    return Plan(requests=[chat], prompt=prompt, is_repeatable=False, opening=opening)
