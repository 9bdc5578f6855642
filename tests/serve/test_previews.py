"""Previews: evenly spread, decoded beside the engine, dropped when there are too many."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmgen.generate.events import ImageProgress
from mmgen.generate.session import Session, open_session
from mmgen.serve.metrics import Metrics
from mmgen.serve.previews import Frames, Preview, PreviewDecoder
from mmgen.serve.rendering import PictureFormat
from tests.serve.conftest import StartServer, decoded, events_of, wait_until

PNG = PictureFormat()


@pytest.fixture(scope="module")
def session(tiny_checkpoint: Path) -> Session:
    return open_session(tiny_checkpoint)


@pytest.fixture(scope="module")
def progress(session: Session) -> list[ImageProgress]:
    """The 64 codes of one picture as they come."""
    return [event for event in session.draw("a fox", seed=1) if isinstance(event, ImageProgress)]


@pytest.fixture
def decoder(session: Session) -> Iterator[PreviewDecoder]:
    decoder = PreviewDecoder(Metrics(session.engine), max_pending=2)
    yield decoder
    decoder.close()


def outcomes(decoder: PreviewDecoder) -> tuple[float, float]:
    value = decoder.metrics.value
    return (
        value("mmgen_previews_total", outcome="sent"),
        value("mmgen_previews_total", outcome="dropped"),
    )


def take_slowly(frames: Frames, progress: list[ImageProgress]) -> list[Preview]:
    """Take codes as from an engine that is slower than the decoder."""
    found = []
    for item in progress:
        preview = frames.take(item)
        if preview is not None:
            found.append(preview)
        if frames._future is not None:
            frames._future.exception(timeout=20)
    return found


@pytest.mark.parametrize(
    ("number", "places"),
    [(1, [32]), (2, [22, 43]), (3, [16, 32, 48]), (7, [8, 16, 24, 32, 40, 48, 56])],
)
def test_previews_are_evenly_spread(
    decoder: PreviewDecoder, progress: list[ImageProgress], number: int, places: list[int]
) -> None:
    previews = take_slowly(Frames(5, number, PNG, decoder), progress)
    assert [preview.num_done for preview in previews] == places
    assert [preview.number for preview in previews] == list(range(number))
    assert {preview.index for preview in previews} == {5}
    assert outcomes(decoder) == (number, 0)


def test_a_preview_is_the_picture_so_far(
    decoder: PreviewDecoder, progress: list[ImageProgress]
) -> None:
    (preview,) = take_slowly(Frames(0, 1, PNG, decoder), progress)
    assert preview.size == "64x64"
    expected = PNG.encode(progress[31].preview())
    assert preview.encoded == expected
    assert decoded(preview.encoded).size == (64, 64)


def test_every_picture_of_a_turn_has_its_previews(
    decoder: PreviewDecoder, progress: list[ImageProgress]
) -> None:
    frames = Frames(0, 2, PNG, decoder)
    first = take_slowly(frames, progress)
    frames.finish()
    second = take_slowly(frames, progress)
    assert [preview.num_done for preview in first + second] == [22, 43, 22, 43]


def test_frames_are_dropped_while_the_decoder_is_behind(
    decoder: PreviewDecoder, progress: list[ImageProgress]
) -> None:
    may_go_on = threading.Event()
    decoder._pool.submit(may_go_on.wait, 20)
    frames = Frames(0, 7, PNG, decoder)
    assert [frames.take(item) for item in progress[:40]] == [None] * 40
    assert outcomes(decoder) == (0, 4), "one of five waits for the decoder"
    may_go_on.set()
    assert frames._future is not None
    frames._future.exception(timeout=20)
    (preview,) = [found for item in progress[40:45] if (found := frames.take(item))]
    assert preview.num_done == 8
    assert outcomes(decoder) == (1, 4)


def test_all_turns_together_have_a_few_frames_pending(
    decoder: PreviewDecoder, progress: list[ImageProgress]
) -> None:
    may_go_on = threading.Event()
    decoder._pool.submit(may_go_on.wait, 20)
    turns = [Frames(index, 1, PNG, decoder) for index in range(5)]
    for frames in turns:
        for item in progress[:32]:
            frames.take(item)
    assert outcomes(decoder) == (0, 3)
    may_go_on.set()


def test_a_frame_that_comes_too_late_is_dropped(
    decoder: PreviewDecoder, progress: list[ImageProgress]
) -> None:
    may_go_on = threading.Event()
    decoder._pool.submit(may_go_on.wait, 20)
    frames = Frames(0, 1, PNG, decoder)
    for item in progress:
        assert frames.take(item) is None
    frames.finish()
    may_go_on.set()
    assert outcomes(decoder) == (0, 1)


def test_a_slow_decoder_costs_frames_and_no_tokens(
    start_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine finishes while the first preview is still being decoded."""
    server = start_server()
    alone = server.draw(seed=3).json()["data"][0]["b64_json"]
    may_go_on, preview = threading.Event(), ImageProgress.preview

    def slow_preview(progress: ImageProgress) -> object:
        assert may_go_on.wait(20)
        return preview(progress)

    monkeypatch.setattr(ImageProgress, "preview", slow_preview)
    events = events_of(server.draw(seed=3, stream=True, partial_images=8).text)
    assert [name for name, _ in events] == ["image_generation.completed"]
    assert alone in events[0][1]
    may_go_on.set()
    dropped = server.desk.metrics.value("mmgen_previews_total", outcome="dropped")
    assert dropped == 8
    wait_until(lambda: server.is_idle)
