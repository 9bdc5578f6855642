"""A model in this process: the library's session in a thread, opened when it is first needed.

Importing this module loads no torch. Loading, encoding and decoding happen in threads, so that
typing and painting go on meanwhile; closing an answer's events cancels it in the engine.
"""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from mmgen.errors import EngineError, MmgenError, TransientError
from mmgen.generate import requests as library_requests
from mmgen.generate.engine import SamplingParams
from mmgen.plugins import MODELS, installed
from mmgen_chat.backend import (
    Ability,
    AbstractBackend,
    BackendInfo,
    Event,
    ImageFinished,
    ModelInfo,
    TokenizerInfo,
    TurnFailed,
    TurnFinished,
    TurnRequest,
)
from mmgen_chat.conversation import Applied, Picture, Usage
from mmgen_chat.errors import BackendError
from mmgen_chat.planning import Plan, make_plan

if TYPE_CHECKING:
    from mmgen.generate import events as library_events
    from mmgen.generate.scoring import Scorer
    from mmgen.generate.service import Service
    from mmgen.generate.session import Session
    from mmgen_chat.encoding import Encoder

__all__ = ["EmbeddedBackend"]

NUM_ROWS = 16
"""Rows of the engine's batch: eight guided pictures at once."""

_Ending: TypeAlias = "library_events.TurnFinished | library_events.TurnFailed | MmgenError"


@dataclass(frozen=True, slots=True, eq=False)
class _Loaded:
    """All that is there once the model is loaded."""

    session: Session
    service: Service
    encoder: Encoder
    scorer: Scorer
    info: BackendInfo


class EmbeddedBackend(AbstractBackend):
    """Runs a checkpoint on the torch engine."""

    def __init__(
        self,
        model: Path | str | None = None,
        *,
        device: str = "cpu",
        previews_per_second: float = 12.0,
    ) -> None:
        """Take note of what to open; nothing is loaded yet.

        Args:
            model: a checkpoint directory or the name of an installed model; the default without.
            device: where the decoder runs.
            previews_per_second: at most, for each picture; 0 for none.
        """
        self._model = model
        self._device = device
        self._previews_per_second = previews_per_second
        self._opening: asyncio.Task[_Loaded] | None = None

    async def open(self) -> BackendInfo:
        return (await self._loaded()).info

    async def events(self, request: TurnRequest) -> AsyncGenerator[Event]:
        started = time.perf_counter()
        try:
            loaded = await self._loaded()
            plan = await asyncio.to_thread(make_plan, loaded.encoder, loaded.info.model, request)
        except MmgenError as error:
            yield _failure(error)
            return
        for event in plan.opening:
            yield event
        endings: list[_Ending] = []
        guidance: float | None = None
        streams = [
            self._stream(loaded, plan, index, endings) for index in range(len(plan.requests))
        ]
        async with aclosing(_merged(streams)) as merged:
            async for event in merged:
                if isinstance(event, ImageFinished) and event.picture.drawing is not None:
                    guidance = event.picture.drawing.guidance_scale
                yield event
        yield _last(loaded, request, endings, guidance, time.perf_counter() - started)

    async def models(self) -> tuple[ModelInfo, ...]:
        found = await asyncio.to_thread(installed, MODELS)
        return tuple(
            ModelInfo(name=name, detail=f"{info.distribution} {info.version}")
            for name, info in found.items()
        )

    async def likelihood(self, picture: Picture, prompt: str) -> float:
        loaded = await self._loaded()
        return await asyncio.to_thread(_likelihood, loaded, picture, prompt)

    async def render(self, picture: Picture) -> Picture:
        loaded = await self._loaded()
        return await asyncio.to_thread(_render, loaded, picture)

    async def close(self) -> None:
        opening, self._opening = self._opening, None
        if opening is None:
            return
        try:
            loaded = await opening
        except MmgenError:
            return
        await asyncio.to_thread(loaded.service.close)

    async def _loaded(self) -> _Loaded:
        """Return the loaded model, loading it once for all who ask; a failure may be repeated."""
        if self._opening is not None and self._opening.done():
            is_usable = (
                self._opening.exception() is None and self._opening.result().service.fault is None
            )
            if not is_usable:
                self._opening = None
        if self._opening is None:
            self._opening = asyncio.create_task(asyncio.to_thread(_load, self._model, self._device))
        # Who stops waiting does not stop the loading, which others may be waiting for.
        return await asyncio.shield(self._opening)

    async def _stream(
        self, loaded: _Loaded, plan: Plan, index: int, endings: list[_Ending]
    ) -> AsyncGenerator[Event]:
        """Yield the events of one of a plan's requests; put its ending beside the others'."""
        from mmgen.generate import events as library_events
        from mmgen_chat.translation import Translator

        translator = Translator(
            loaded.session.checkpoint,
            model=loaded.info.model,
            prompt=plan.prompt,
            first_index=index,
            is_repeatable=plan.is_repeatable,
            previews_per_second=self._previews_per_second,
        )
        try:
            async with aclosing(_closable(loaded.service, plan.requests[index])) as events:
                async for event in events:
                    if isinstance(event, library_events.TurnFinished | library_events.TurnFailed):
                        endings.append(event)
                    elif (told := await translator.take(event)) is not None:
                        yield told
        except MmgenError as error:
            endings.append(error)
        finally:
            translator.close()


async def _closable(
    service: Service, request: library_requests.TurnRequest
) -> AsyncGenerator[library_events.Event]:
    """Yield the events of a request in a form whose closing cancels it at once."""
    events = service.async_events(request)
    assert isinstance(events, AsyncGenerator)
    async with aclosing(events) as closable:
        async for event in closable:
            yield event


async def _merged(streams: Sequence[AsyncGenerator[Event]]) -> AsyncGenerator[Event]:
    """Yield the events of several streams as they come."""
    inbox: asyncio.Queue[Event | None] = asyncio.Queue()

    async def drain(stream: AsyncGenerator[Event]) -> None:
        try:
            async with aclosing(stream) as events:
                async for event in events:
                    inbox.put_nowait(event)
        finally:
            inbox.put_nowait(None)

    tasks = [asyncio.create_task(drain(stream)) for stream in streams]
    try:
        num_open = len(tasks)
        while num_open:
            event = await inbox.get()
            if event is None:
                num_open -= 1
            else:
                yield event
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _load(model: Path | str | None, device: str) -> _Loaded:
    from mmgen.checkpoint import DEFAULT_MODEL
    from mmgen.generate.scoring import Scorer
    from mmgen.generate.service import Service
    from mmgen.generate.session import open_session
    from mmgen.generate.torch_engine import TorchEngine
    from mmgen_chat.encoding import Encoder

    service = Service.open(lambda: open_session(model, num_rows=NUM_ROWS, device=device))
    session = service.session
    assert isinstance(session.engine, TorchEngine)
    encoder = Encoder(session.checkpoint, session.codec)
    info = BackendInfo(
        engine=f"torch ({device})",
        model=str(model or DEFAULT_MODEL),
        abilities=_abilities(session),
        context_length=encoder.context_length,
        tokenizers=_tokenizers(session),
        guidance_scale=session.checkpoint.generation.guidance_scale,
        text_sampling=SamplingParams(**asdict(session.checkpoint.generation.text)),
        image_sampling=SamplingParams(**asdict(session.checkpoint.generation.image)),
    )
    scorer = Scorer(session.checkpoint, session.codec, session.engine.decoder)
    # A full collection visits all that torch and the screen keep for good, a tenth of a second or
    # two in which no key is answered: what is there by now stays, and is visited no more.
    gc.freeze()
    return _Loaded(session, service, encoder, scorer, info)


def _abilities(session: Session) -> frozenset[Ability]:
    abilities: set[Ability] = {"draw", "look", "score", "render"}
    specs = (tokenizer.spec for tokenizer in session.codec.visual_tokenizers.values())
    if any(spec.prefix_decodable and len(spec.layouts) > 1 for spec in specs):
        abilities.add("extend")
    return frozenset(abilities)


def _tokenizers(session: Session) -> tuple[TokenizerInfo, ...]:
    from mmgen.visual_tokenizer import Ordered

    default = session.checkpoint.generation.tokenizer
    vocabulary = session.codec.vocabulary
    found = []
    for name in sorted(vocabulary.tokenizers, key=lambda name: name != default):
        layouts = vocabulary.tokenizer(name).layouts
        lengths = sorted(layout.length for layout in layouts if isinstance(layout, Ordered))
        found.append(
            TokenizerInfo(
                name=name,
                sizes=tuple(session.codec.sizes(name)),
                lengths=tuple(lengths) if len(lengths) > 1 else (),
            )
        )
    return tuple(found)


def _last(
    loaded: _Loaded,
    request: TurnRequest,
    endings: Sequence[_Ending],
    guidance: float | None,
    seconds: float,
) -> TurnFinished | TurnFailed:
    """Return the last event of an answer, from how its requests ended."""
    from mmgen.generate import events as library_events

    finished: list[library_events.TurnFinished] = []
    for ending in endings:
        if isinstance(ending, library_events.TurnFinished):
            finished.append(ending)
        elif isinstance(ending, library_events.TurnFailed):
            return _failure(ending.error)
        else:
            return _failure(ending)
    assert finished, "an answer ends in some way"
    settings = request.settings
    sampling = settings.text_sampling
    defaults = loaded.session.checkpoint.generation.text
    return TurnFinished(
        end=finished[0].end,
        usage=Usage(
            prompt_ids=max(item.usage.prompt_ids for item in finished),
            text_ids=sum(item.usage.text_ids for item in finished),
            image_ids=sum(item.usage.image_ids for item in finished),
        ),
        applied=Applied(
            model=loaded.info.model,
            seed=settings.seed,
            guidance_scale=guidance,
            temperature=defaults.temperature if sampling is None else sampling.temperature,
            top_k=defaults.top_k if sampling is None else sampling.top_k,
        ),
        seconds=seconds,
    )


def _failure(error: MmgenError) -> TurnFailed:
    return TurnFailed(error=error, can_retry=isinstance(error, TransientError | EngineError))


def _likelihood(loaded: _Loaded, picture: Picture, prompt: str) -> float:
    encoded = loaded.encoder.picture(picture)
    assert encoded.codes is not None
    request = loaded.scorer.caption_request(encoded.codes, prompt, tokenizer=encoded.tokenizer)
    return loaded.scorer.score([request])[0].mean


def _render(loaded: _Loaded, picture: Picture) -> Picture:
    from mmgen.pictures import png_bytes, to_picture

    codes, name = picture.codes, picture.tokenizer
    if codes is None or name is None:
        raise BackendError("this picture has no codes to render")
    entry = loaded.session.checkpoint.visual_tokenizers.get(name)
    if entry is None or entry.fingerprint != picture.fingerprint:
        raise BackendError(
            f"this picture was drawn with the visual tokenizer {name!r} "
            f"({picture.fingerprint or 'unknown'}), which {loaded.info.model} does not have; "
            "open the model that drew it"
        )
    codec = loaded.session.codec
    words = "" if picture.drawing is None else picture.drawing.prompt
    tokenizer = codec.visual_tokenizers[name]
    caption = words if "decode" in tokenizer.spec.captions_used else None
    array = (
        codec.decode_image(codes, name, caption=words)
        if codes.is_complete
        else tokenizer.preview(codes, caption=caption)
    )
    rendered = to_picture(array)
    return replace(picture, png=png_bytes(rendered), size=(rendered.height, rendered.width))
