"""Previews of pictures that are being drawn, decoded beside the engine and never in its way.

One thread decodes for all requests. It takes a few frames at most; those that come while it is
behind are dropped, so a slow visual tokenizer costs frames and not tokens.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from mmgen.generate.events import ImageProgress
from mmgen.serve.metrics import Metrics
from mmgen.serve.rendering import PictureFormat, size_text

__all__ = ["Frames", "Preview", "PreviewDecoder"]


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture as far as it is drawn."""

    index: int
    """Which of the request's turns it belongs to."""
    number: int
    """Its place among the previews that were asked for, from 0; dropped ones leave gaps."""
    num_done: int
    """Codes that it shows."""
    num_codes: int
    """Codes that the picture will have."""
    encoded: str
    """The file in base64."""
    size: str
    """As `640x480`."""


class PreviewDecoder:
    """The thread that decodes frames."""

    def __init__(self, metrics: Metrics, *, max_pending: int = 4) -> None:
        """Start without work.

        Args:
            max_pending: frames that may wait or be decoded at once; more are dropped.
        """
        self.metrics = metrics
        self._max_pending = max_pending
        self._pending: set[Future[Preview]] = set()
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="mmgen-previews")

    def decode(
        self, index: int, number: int, progress: ImageProgress, format_: PictureFormat
    ) -> Future[Preview] | None:
        """Have a frame decoded; None if there is too much to do already."""
        self._pending = {future for future in self._pending if not future.done()}
        if len(self._pending) >= self._max_pending:
            return None
        future = self._pool.submit(_decode, index, number, progress, format_)
        self._pending.add(future)
        return future

    def close(self) -> None:
        """End the thread; frames that wait are dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)


class Frames:
    """The previews of one turn's pictures, evenly spread over the codes of each."""

    def __init__(
        self, index: int, num_frames: int, format_: PictureFormat, decoder: PreviewDecoder
    ) -> None:
        """Want some frames of every picture.

        Args:
            index: which of the request's turns this is.
        """
        self._index = index
        self._num_frames = num_frames
        self._format = format_
        self._decoder = decoder
        self._number = 0
        self._future: Future[Preview] | None = None

    def take(self, progress: ImageProgress) -> Preview | None:
        """Take notice of a code; return a frame that has become ready since the last."""
        ready = None
        if self._future is not None and self._future.done():
            ready, self._future = self._future.result(), None
            self._decoder.metrics.preview("sent")
        number = progress.num_done * (self._num_frames + 1) // progress.num_codes - 1
        is_due = self._number <= number < self._num_frames
        if is_due and progress.num_done < progress.num_codes:
            self._number = number + 1
            future = None
            if self._future is None:
                future = self._decoder.decode(self._index, number, progress, self._format)
            if future is None:
                self._decoder.metrics.preview("dropped")
            else:
                self._future = future
        return ready

    def finish(self) -> None:
        """Forget a frame that comes after the picture itself."""
        if self._future is not None:
            self._future.cancel()
            self._decoder.metrics.preview("dropped")
        self._future = None
        self._number = 0


def _decode(index: int, number: int, progress: ImageProgress, format_: PictureFormat) -> Preview:
    picture = progress.preview()
    return Preview(
        index=index,
        number=number,
        num_done=progress.num_done,
        num_codes=progress.num_codes,
        encoded=format_.encode(picture),
        size=size_text(picture),
    )
