"""A model as evaluation asks it: many prompts or pictures at a time, through a session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

from PIL import Image

from mmgen.generate.engine import SamplingParams
from mmgen.generate.events import Event, ImageFinished, TurnFailed, TurnFinished
from mmgen.generate.requests import DrawRequest
from mmgen.generate.session import Session, open_session
from mmgen.pictures import to_picture
from mmgen.visual_tokenizer import AbstractVisualTokenizer

__all__ = ["SessionSubject"]


class SessionSubject:
    """Asks a session; answers are the likeliest ones, drawings follow the model's own settings."""

    def __init__(self, session: Session) -> None:
        self._session = session
        defaults = session.checkpoint.generation
        self.guidance_scale = defaults.guidance_scale
        self.tokenizer_name = defaults.tokenizer

    @classmethod
    def open(cls, model: str | None) -> Self:
        """Open a model by name or path, or the default one."""
        return cls(open_session(model))

    @property
    def tokenizer(self) -> AbstractVisualTokenizer:
        """The visual tokenizer that the model draws with."""
        return self._session.codec.visual_tokenizers[self.tokenizer_name]

    def draw(
        self, prompts: Sequence[str], *, seeds: Sequence[int], guidance_scale: float
    ) -> list[Image.Image]:
        """Return one picture per prompt."""
        requests = [
            DrawRequest(prompt=prompt, seed=seed, guidance_scale=guidance_scale)
            for prompt, seed in zip(prompts, seeds, strict=True)
        ]
        pictures: dict[int, Image.Image] = {}
        for event in _without_failures(self._session.draw_many(requests)):
            if isinstance(event, ImageFinished):
                pictures[event.index] = to_picture(event.picture)
        return [pictures[index] for index in range(len(prompts))]

    def ask(self, pictures: Sequence[Image.Image], question: str) -> list[str]:
        """Return the likeliest answer about each picture."""
        answers: dict[int, str] = {}
        events = self._session.caption_many(
            pictures, question, sampling=SamplingParams(temperature=0.0)
        )
        for event in _without_failures(events):
            if isinstance(event, TurnFinished):
                answers[event.index] = event.text
        return [answers[index] for index in range(len(pictures))]


def _without_failures(events: Iterable[Event]) -> Iterable[Event]:
    for event in events:
        if isinstance(event, TurnFailed):
            raise event.error
        yield event
