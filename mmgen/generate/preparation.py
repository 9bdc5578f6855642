"""From a request to the ids that its turn begins with, and its settings with nothing left open."""

from __future__ import annotations

from dataclasses import replace

from mmgen.checkpoint import Checkpoint, SamplingDefaults
from mmgen.document import Document, DocumentCodec, Image, Text, Turn
from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engine import AbstractEngine, AbstractRule, SamplingParams
from mmgen.generate.requests import (
    CaptionRequest,
    ChatRequest,
    DrawRequest,
    TurnRequest,
    check_prompt,
)
from mmgen.generate.shapes import begun_ids, has_open_length, wanted_layout
from mmgen.generate.turn import TurnSettings, check_room
from mmgen.visual_tokenizer import Layout

__all__ = ["TurnPreparer"]


class TurnPreparer:
    """Prepares turns for one checkpoint and one engine."""

    def __init__(
        self, checkpoint: Checkpoint, codec: DocumentCodec, engine: AbstractEngine
    ) -> None:
        self._checkpoint = checkpoint
        self._codec = codec
        self._engine = engine

    def prepare(self, request: TurnRequest) -> tuple[list[int], TurnSettings]:
        """Return what a turn continues, and how it is generated.

        Raises:
            MmgenError: the request cannot be served.
        """
        match request:
            case DrawRequest():
                return self._begin_drawing(request)
            case CaptionRequest():
                return self._begin_caption(request)
            case ChatRequest():
                return self._begin_answer(request)

    def layout(
        self, size: tuple[int, int] | None, tokenizer: str | None = None, length: int | None = None
    ) -> Layout:
        """Return the layout of pictures of a size `(height, width)` and a number of positions."""
        return wanted_layout(self._codec, self._tokenizer(tokenizer), size, length)

    def _begin_drawing(self, request: DrawRequest) -> tuple[list[int], TurnSettings]:
        prompt_ids = self._drawing_ids(request, request.prompt)
        settings = self._settings(
            seed=request.seed,
            guidance_scale=request.guidance_scale,
            image_sampling=request.sampling,
            max_text_ids=0,
            max_images=1,
        )
        if request.negative_prompt is None:
            return prompt_ids, settings
        _check_negative_prompt(settings)
        negative_ids = tuple(self._drawing_ids(request, request.negative_prompt))
        return prompt_ids, replace(
            settings, negative_prompt=request.negative_prompt, negative_ids=negative_ids
        )

    def _drawing_ids(self, request: DrawRequest, prompt: str) -> list[int]:
        """Return the ids that ask for a prompt's picture and open it."""
        check_prompt(prompt)
        text = self._checkpoint.generation.draw_template.replace("{prompt}", prompt)
        document = Document(turns=(Turn("user", (Text(text),)),))
        prompt_ids = self._codec.encode_prompt(document)
        name = self._tokenizer(request.tokenizer)
        layout = self.layout(request.size, name, request.length)
        begun = begun_ids(self._codec, name, layout, request.begun)
        length = layout.num_positions if begun else request.length
        return prompt_ids + self._opened_image(prompt_ids, request.size, name, length) + begun

    def _begin_caption(self, request: CaptionRequest) -> tuple[list[int], TurnSettings]:
        prompt = request.prompt
        if prompt is None:
            prompt = self._checkpoint.generation.caption_prompt
        check_prompt(prompt)
        image = Image(picture=request.picture, tokenizer=self._tokenizer(request.tokenizer))
        turns = [Turn("user", (image, Text(prompt)))]
        if request.prefix:
            turns.append(Turn("assistant", (Text(request.prefix),)))
        settings = self._settings(
            seed=request.seed,
            text_sampling=request.sampling,
            max_text_ids=request.max_text_ids,
            max_images=0,
            rule=request.rule,
        )
        return self._codec.encode_prompt(Document(turns=tuple(turns))), settings

    def _begin_answer(self, request: ChatRequest) -> tuple[list[int], TurnSettings]:
        prompt_ids = self._answer_ids(request, request.document)
        settings = self._settings(
            seed=request.seed,
            guidance_scale=request.guidance_scale,
            image_guidance_scale=request.image_guidance_scale,
            text_sampling=request.text_sampling,
            image_sampling=request.image_sampling,
            max_text_ids=request.max_text_ids,
            max_images=request.max_images,
            rule=request.rule,
        )
        if request.negative_document is None:
            return prompt_ids, settings
        _check_negative_prompt(settings)
        negative_ids = tuple(self._answer_ids(request, request.negative_document))
        return prompt_ids, replace(
            settings, negative_prompt=request.negative_prompt, negative_ids=negative_ids
        )

    def _answer_ids(self, request: ChatRequest, document: Document) -> list[int]:
        """Return the ids after a dialogue, which open a picture where one must come."""
        prompt_ids = self._codec.encode_prompt(document)
        if not request.must_draw:
            return prompt_ids
        return prompt_ids + self._opened_image(prompt_ids, request.size, request.tokenizer)

    def _opened_image(
        self,
        prompt_ids: list[int],
        size: tuple[int, int] | None,
        tokenizer: str | None,
        length: int | None = None,
    ) -> list[int]:
        """Return the ids that open a picture after a prompt, if it fits."""
        name = self._tokenizer(tokenizer)
        layout = self.layout(size, name, length)
        header = self._codec.grammar.image_header(name, layout)
        num_codes = layout.num_positions * self._codec.vocabulary.tokenizer(name).num_codebooks
        check_room(len(prompt_ids) + len(header), num_codes, self._engine.context_length)
        return header[:1] if length is None and has_open_length(self._codec, name) else header

    def _tokenizer(self, name: str | None) -> str:
        return name or self._checkpoint.generation.tokenizer

    def _settings(
        self,
        *,
        seed: int,
        max_text_ids: int,
        max_images: int,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        text_sampling: SamplingParams | None = None,
        image_sampling: SamplingParams | None = None,
        rule: AbstractRule | None = None,
    ) -> TurnSettings:
        if rule is not None and not self._engine.takes_rules:
            raise EngineError(
                "this engine cannot hold answers to a form; use the torch engine, or leave the "
                "form out"
            )
        defaults = self._checkpoint.generation
        return TurnSettings(
            seed=seed,
            guidance_scale=defaults.guidance_scale if guidance_scale is None else guidance_scale,
            image_guidance_scale=image_guidance_scale,
            text_sampling=text_sampling or _sampling(defaults.text),
            image_sampling=image_sampling or _sampling(defaults.image),
            max_text_ids=max_text_ids,
            max_images=max_images,
            rule=rule,
        )


def _check_negative_prompt(settings: TurnSettings) -> None:
    """Refuse a negative prompt that nothing would lead away from."""
    if settings.image_guidance_scale is None:
        if settings.guidance_scale == 1.0:
            raise SettingsError(
                "a negative prompt takes effect through guidance, which is off at 1; raise it, or "
                "leave the negative prompt out"
            )
    elif settings.image_guidance_scale == settings.guidance_scale:
        raise SettingsError(
            f"a negative prompt has no effect where pictures and words are guided by the same "
            f"scale, {settings.guidance_scale:g}; change one of the two, or leave the negative "
            "prompt out"
        )


def _sampling(defaults: SamplingDefaults) -> SamplingParams:
    return SamplingParams(
        temperature=defaults.temperature, top_k=defaults.top_k, top_p=defaults.top_p
    )
