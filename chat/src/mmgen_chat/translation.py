"""The library's events in the chat's words: pictures rendered, previews at a watchable pace.

Decoding takes a while, so it happens in threads, and a preview that would come late is not made.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mmgen.generate import events as library
from mmgen.generate.provenance import Provenance
from mmgen.pictures import png_bytes, to_picture
from mmgen_chat.backend import Event, ImageFinished, ImageProgress, ImageStarted, TextDelta
from mmgen_chat.conversation import Drawing, Picture

if TYPE_CHECKING:
    from PIL import Image as PilImage

    from mmgen.checkpoint import Checkpoint

__all__ = ["Translator"]

MIN_SECONDS_BETWEEN_REPORTS = 0.03
"""Progress without a preview is told no more often than this, for each picture."""


@dataclass(slots=True, eq=False)
class _Growing:
    """A picture that is being drawn."""

    index: int
    picture: Picture
    started: float
    reported: float = 0.0
    rendered: float = 0.0
    rendering: asyncio.Task[PilImage.Image] | None = field(default=None)


class Translator:
    """Translates the events of one of the library's requests."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        model: str,
        prompt: str,
        first_index: int,
        is_repeatable: bool,
        previews_per_second: float,
    ) -> None:
        """Begin a request.

        Args:
            model: as the user named it.
            prompt: what the user asked for.
            first_index: index of the request's first picture in the answer.
            is_repeatable: whether the prompt alone decides the picture, so that its file may say
                how to draw it again.
            previews_per_second: at most, for each picture; 0 for none.
        """
        self._checkpoint = checkpoint
        self._model = model
        self._prompt = prompt
        self._next_index = first_index
        self._is_repeatable = is_repeatable
        self._pause = 1 / previews_per_second if previews_per_second > 0 else None
        self._growing: _Growing | None = None

    async def take(self, event: library.Event) -> Event | None:
        """Return what to tell, if anything."""
        match event:
            case library.TextDelta():
                return TextDelta(event.text)
            case library.ImageStarted():
                return self._start(event)
            case library.ImageProgress():
                return self._progress(event)
            case library.ImageFinished():
                return await self._finish(event)
        return None

    def close(self) -> None:
        """Let go of a preview that nobody will see."""
        if self._growing is not None and self._growing.rendering is not None:
            self._growing.rendering.cancel()

    def _start(self, event: library.ImageStarted) -> ImageStarted:
        picture = Picture(
            tokenizer=event.tokenizer,
            fingerprint=self._checkpoint.visual_tokenizers[event.tokenizer].fingerprint,
            drawing=Drawing(
                prompt=self._prompt,
                model=self._model,
                num_done=0,
                num_codes=event.num_codes,
            ),
        )
        self._growing = _Growing(self._next_index, picture, time.perf_counter())
        self._next_index += 1
        return ImageStarted(index=self._growing.index, picture=picture)

    def _progress(self, event: library.ImageProgress) -> ImageProgress | None:
        growing = self._growing
        assert growing is not None, "a picture starts before it grows"
        now = time.perf_counter()
        preview = None
        if growing.rendering is not None and growing.rendering.done():
            preview, growing.rendering = growing.rendering.result(), None
        is_last = event.num_done == event.num_codes
        is_due = now - growing.reported >= MIN_SECONDS_BETWEEN_REPORTS
        if self._pause is not None and growing.rendering is None and not is_last:
            if now - growing.rendered >= self._pause:
                growing.rendered = now
                growing.rendering = asyncio.create_task(asyncio.to_thread(_preview, event))
        if preview is None and not is_due and not is_last:
            return None
        growing.reported = now
        return ImageProgress(
            index=growing.index,
            num_done=event.num_done,
            num_codes=event.num_codes,
            codes=event.codes,
            preview=preview,
        )

    async def _finish(self, event: library.ImageFinished) -> ImageFinished:
        growing = self._growing
        assert growing is not None, "a picture starts before it ends"
        self.close()
        self._growing = None
        png = await asyncio.to_thread(self._file, event)
        height, width = event.picture.shape[:2]
        picture = Picture(
            id=growing.picture.id,
            png=png,
            size=(height, width),
            codes=event.codes,
            tokenizer=event.tokenizer,
            fingerprint=growing.picture.fingerprint,
            drawing=Drawing(
                prompt=self._prompt,
                model=self._model,
                seed=event.seed,
                guidance_scale=event.guidance_scale,
                image_guidance_scale=event.image_guidance_scale,
                temperature=event.sampling.temperature,
                top_k=event.sampling.top_k,
                top_p=event.sampling.top_p,
                num_done=event.codes.array.size,
                num_codes=event.codes.array.size,
                seconds=event.seconds,
            ),
        )
        return ImageFinished(index=growing.index, picture=picture)

    def _file(self, event: library.ImageFinished) -> bytes:
        """Return the PNG file of a picture, with all that is needed to draw it again."""
        made = Provenance.of(event, self._prompt, self._model, self._checkpoint).metadata()
        if not self._is_repeatable:
            # In a dialogue, more than the prompt decides: `mmgen generate --from` would mislead.
            made = {key: made[key] for key in ("mmgen", "prompt", "seed", "model")}
        return png_bytes(to_picture(event.picture), made)


def _preview(event: library.ImageProgress) -> PilImage.Image:
    return to_picture(event.preview())
