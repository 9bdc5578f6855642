"""Sessions: a request in, a stream of typed events out, whatever the engine.

Drawing, captioning and chatting are the same loop over turns; they differ in the prompt and in
what may follow. Many requests share the engine's batch, each with its own settings and fate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from mmgen.checkpoint import Checkpoint, open_checkpoint
from mmgen.document import Document
from mmgen.errors import EngineError, MmgenError, SettingsError
from mmgen.generate.engine import AbstractEngine, SamplingParams
from mmgen.generate.events import Event, TurnFailed
from mmgen.generate.preparation import TurnPreparer
from mmgen.generate.requests import (
    CaptionRequest,
    ChatRequest,
    DrawRequest,
    TurnRequest,
)
from mmgen.generate.torch_engine import TorchEngine
from mmgen.generate.turn import TurnInProgress
from mmgen.pictures import PictureSource
from mmgen.visual_tokenizer import Layout, Parts

__all__ = ["Session", "open_session"]

MAX_OPEN_TURNS = 128
"""Turns handed to the engine at once; more are prepared as these finish."""


class Session:
    """Serves requests with one checkpoint and one engine."""

    def __init__(
        self, checkpoint: Checkpoint, engine: AbstractEngine, *, parts: Parts = "both"
    ) -> None:
        """Load the checkpoint's visual tokenizers.

        Args:
            engine: runs the checkpoint's decoder.
            parts: halves of the visual tokenizers to load; "decoder" suffices to draw and
                "encoder" to caption.
        """
        self.checkpoint = checkpoint
        self.engine = engine
        self.codec = checkpoint.codec(parts=parts)
        self._preparer = TurnPreparer(checkpoint, self.codec, engine)
        self._turns: dict[int, TurnInProgress] = {}
        self._openings: list[Event] = []
        self._num_begun = 0

    def draw(
        self,
        prompt: str,
        *,
        n: int = 1,
        seed: int = 0,
        guidance: float | None = None,
        sampling: SamplingParams | None = None,
        size: tuple[int, int] | None = None,
    ) -> Iterator[Event]:
        """Draw pictures of one prompt; picture `i` has index `i` and seed `seed + i`."""
        if n < 1:
            raise SettingsError(f"the number of pictures must be 1 or more, got {n}")
        return self._run_strictly(
            [
                DrawRequest(
                    prompt=prompt,
                    seed=seed + index,
                    guidance_scale=guidance,
                    sampling=sampling,
                    size=size,
                )
                for index in range(n)
            ]
        )

    def draw_many(self, requests: Sequence[DrawRequest]) -> Iterator[Event]:
        """Draw pictures together; a request that cannot be served gives `TurnFailed`."""
        return self.run(requests)

    def caption(
        self,
        picture: PictureSource,
        prompt: str | None = None,
        *,
        sampling: SamplingParams | None = None,
        seed: int = 0,
    ) -> Iterator[Event]:
        """Say something about a picture."""
        return self._run_strictly(
            [CaptionRequest(picture=picture, prompt=prompt, sampling=sampling, seed=seed)]
        )

    def caption_many(
        self,
        pictures: Sequence[PictureSource],
        prompt: str | None = None,
        *,
        sampling: SamplingParams | None = None,
        seed: int = 0,
    ) -> Iterator[Event]:
        """Ask the same about many pictures; one that cannot be read gives `TurnFailed`."""
        return self.run(
            [
                CaptionRequest(picture=picture, prompt=prompt, sampling=sampling, seed=seed)
                for picture in pictures
            ]
        )

    def chat(
        self,
        document: Document,
        *,
        seed: int = 0,
        guidance: float | None = None,
        text_sampling: SamplingParams | None = None,
        image_sampling: SamplingParams | None = None,
    ) -> Iterator[Event]:
        """Give the next turn of a dialogue; the model decides whether it draws."""
        return self._run_strictly(
            [
                ChatRequest(
                    document=document,
                    seed=seed,
                    guidance_scale=guidance,
                    text_sampling=text_sampling,
                    image_sampling=image_sampling,
                )
            ]
        )

    def run(self, requests: Iterable[TurnRequest]) -> Iterator[Event]:
        """Serve requests of any kind together and yield their events as they come.

        Requests are taken as earlier ones finish, so an endless iterable is served too. Events
        carry the place of their request in it. Closing the iterator cancels what is unfinished.
        """
        return self._serve(self._begun(requests))

    def submit(self, request: TurnRequest) -> int:
        """Take a request at any time; return the index that its events will carry.

        Raises:
            MmgenError: the request cannot be served; no other is affected.
        """
        return self.start(self.begin(self.new_index(), request))

    def new_index(self) -> int:
        """Return an index that no request has had."""
        self._num_begun += 1
        return self._num_begun - 1

    def start(self, turn: TurnInProgress) -> int:
        """Hand a turn that `begin` prepared to the engine; return its index."""
        self._turns[self.engine.submit(turn.span)] = turn
        self._openings.extend(turn.opening())
        return turn.index

    def step(self) -> list[Event]:
        """Advance everything that was submitted and return what came of it."""
        events = self._take_openings()
        if not self._turns:
            return events
        for step in self.engine.step():
            turn = self._turns[step.request_index]
            try:
                events += turn.take(step)
                if step.is_finished and turn.end is None:
                    self.start(turn)
            except MmgenError as error:
                self.engine.cancel(step.request_index)
                del self._turns[step.request_index]
                events.append(TurnFailed(turn.index, error))
                continue
            if step.is_finished:
                del self._turns[step.request_index]
        return events + self._take_openings()

    def cancel(self, index: int) -> None:
        """Forget a submitted request; no event of it follows. A finished one is let be."""
        for engine_index, turn in self._turns.items():
            if turn.index == index:
                self.engine.cancel(engine_index)
                del self._turns[engine_index]
                break
        self._openings = [event for event in self._openings if event.index != index]

    def close(self) -> None:
        """Close the engine; nothing may be asked of the session any more."""
        self._turns.clear()
        self._openings.clear()
        self.engine.close()

    def _take_openings(self) -> list[Event]:
        openings, self._openings = self._openings, []
        return openings

    @property
    def num_unfinished(self) -> int:
        """Submitted requests that are not finished."""
        return len(self._turns)

    def _begun(self, requests: Iterable[TurnRequest]) -> Iterator[TurnInProgress | TurnFailed]:
        """Prepare requests one by one, as they are taken."""
        for index, request in enumerate(requests):
            try:
                yield self.begin(index, request)
            except MmgenError as error:
                yield TurnFailed(index, error)

    def _serve(self, begun: Iterable[TurnInProgress | TurnFailed]) -> Iterator[Event]:
        """Keep turns going, some at a time, until all are over."""
        if self._turns:
            raise EngineError(
                f"the session has {len(self._turns)} unfinished requests whose events would be "
                "lost; finish or cancel them, or use submit and step"
            )
        waiting = iter(begun)
        is_exhausted = False
        try:
            while self._turns or not is_exhausted:
                while len(self._turns) < MAX_OPEN_TURNS and not is_exhausted:
                    turn = next(waiting, None)
                    if turn is None:
                        is_exhausted = True
                    elif isinstance(turn, TurnFailed):
                        yield turn
                    else:
                        try:
                            self.start(turn)
                        except MmgenError as error:
                            yield TurnFailed(turn.index, error)
                yield from self.step()
        finally:
            for turn in list(self._turns.values()):
                self.cancel(turn.index)

    def begin(self, index: int, request: TurnRequest) -> TurnInProgress:
        """Check a request and prepare its turn.

        Raises:
            MmgenError: the request cannot be served; no other is affected.
        """
        prompt_ids, settings = self._preparer.prepare(request)
        return TurnInProgress(index, prompt_ids, self.codec, settings, self.engine.context_length)

    def layout(
        self, size: tuple[int, int] | None, tokenizer: str | None = None, length: int | None = None
    ) -> Layout:
        """Return the layout of pictures of a size `(height, width)` and a number of positions."""
        return self._preparer.layout(size, tokenizer, length)

    def _run_strictly(self, requests: Sequence[TurnRequest]) -> Iterator[Event]:
        """Check requests at once, then serve them; the first failure is raised."""
        return self._serve([self.begin(index, item) for index, item in enumerate(requests)])


def open_session(
    model: Path | str | None = None,
    *,
    parts: Parts = "both",
    num_rows: int = 64,
    device: str = "cpu",
) -> Session:
    """Open a session on the embedded engine.

    Args:
        model: a checkpoint directory or the name of an installed model; without it, the default.
        parts: see `Session`.
        num_rows: most rows of the engine's batch; a guided picture takes two, or three.
        device: where the decoder runs.
    """
    checkpoint = open_checkpoint(model)
    engine = TorchEngine(checkpoint.load_decoder(device=device), num_rows=num_rows)
    return Session(checkpoint, engine, parts=parts)
