from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mmgen.errors import CheckpointError, EngineError, PictureError
from mmgen.generate.engine import Step
from mmgen.generate.events import Event, ImageFinished, ImageProgress, TurnFinished
from mmgen.generate.requests import CaptionRequest, DrawRequest, TurnRequest
from mmgen.generate.service import Service
from mmgen.generate.session import Session, open_session
from mmgen.generate.turn import TurnInProgress


@pytest.fixture
def service(model_path: Path) -> Iterator[Service]:
    with Service(open_session(model_path)) as service:
        yield service


def codes(events: Iterable[Event]) -> list[list[int]]:
    found = [event for event in events if isinstance(event, ImageFinished)]
    return [event.codes.array.ravel().tolist() for event in found]


def until_idle(session: Session) -> None:
    deadline = time.monotonic() + 20
    while session.num_unfinished or session.engine.num_unfinished:
        assert time.monotonic() < deadline, "the service goes on with what nobody waits for"
        time.sleep(0.01)


def test_threads_get_their_own_pictures(service: Service, session: Session) -> None:
    found: dict[int, list[list[int]]] = {}

    def draw(seed: int) -> None:
        found[seed] = codes(service.events(DrawRequest(prompt="a fox", seed=seed)))

    threads = [threading.Thread(target=draw, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = {seed: codes(session.draw("a fox", seed=seed)) for seed in range(6)}
    assert found == alone


def test_a_service_may_open_its_session_itself(model_path: Path) -> None:
    threads: list[threading.Thread] = []

    def opening() -> Session:
        threads.append(threading.current_thread())
        return open_session(model_path)

    with Service.open(opening) as service:
        assert codes(service.events(DrawRequest(prompt="a fox", seed=0)))
        assert threads == [service._thread]
    with pytest.raises(CheckpointError, match="no such directory"):
        Service.open(lambda: open_session(model_path / "none"))


def test_what_nobody_wants_stays_in_the_engines_thread(service: Service) -> None:
    async def kinds() -> list[str]:
        request = DrawRequest(prompt="a fox", seed=1)
        events = service.async_events(
            request, is_wanted=lambda event: not isinstance(event, ImageProgress)
        )
        return [type(event).__name__ async for event in events]

    assert asyncio.run(kinds()) == ["ImageStarted", "ImageFinished", "TurnFinished"]


def test_coroutines_share_the_service(service: Service, session: Session) -> None:
    async def draw(seed: int) -> list[list[int]]:
        request = DrawRequest(prompt="a fox", seed=seed)
        return codes([event async for event in service.async_events(request)])

    async def all_of_them() -> list[list[list[int]]]:
        return await asyncio.gather(*(draw(seed) for seed in range(4)))

    alone = [codes(session.draw("a fox", seed=seed)) for seed in range(4)]
    assert asyncio.run(all_of_them()) == alone


def test_who_stops_listening_frees_the_engine(service: Service) -> None:
    events = service.events(DrawRequest(prompt="a fox", seed=1))
    next(events)
    events.close()  # type: ignore[attr-defined]
    until_idle(service.session)
    assert service.num_unfinished == 0


def test_a_cancelled_coroutine_frees_the_engine(service: Service) -> None:
    async def give_up() -> None:
        async def listen() -> None:
            async for _ in service.async_events(DrawRequest(prompt="a fox", seed=1)):
                await asyncio.sleep(0)

        task = asyncio.create_task(listen())
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    until_idle(service.session)


def test_a_coroutine_cancelled_while_its_request_is_prepared_leaves_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, may_go_on = service.session.begin, threading.Event()

    def begin_slowly(index: int, request: TurnRequest) -> TurnInProgress:
        turn = begin(index, request)
        assert may_go_on.wait(20)
        return turn

    submit, was_submitted = service._submit, threading.Event()

    def submit_and_tell(*arguments: Any) -> int:
        index = submit(*arguments)
        was_submitted.set()
        return index

    monkeypatch.setattr(service.session, "begin", begin_slowly)
    monkeypatch.setattr(service, "_submit", submit_and_tell)

    async def give_up() -> None:
        async def listen() -> None:
            async for _ in service.async_events(DrawRequest(prompt="a fox", seed=1)):
                raise AssertionError("nobody listens any more")

        task = asyncio.create_task(listen())
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        may_go_on.set()
        deadline = time.monotonic() + 20
        while not (service.num_unfinished == 0 and was_submitted.is_set()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    asyncio.run(give_up())
    until_idle(service.session)


def test_a_bad_request_is_refused_to_its_caller_alone(service: Service, tmp_path: Path) -> None:
    with pytest.raises(PictureError):
        next(service.events(CaptionRequest(picture=tmp_path / "none.png")))
    *_, last = service.events(DrawRequest(prompt="a fox", seed=1))
    assert isinstance(last, TurnFinished)


def test_a_fault_reaches_everybody(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    events = service.events(DrawRequest(prompt="a fox", seed=1))
    next(events)

    def explode() -> list[Step]:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(service.session.engine, "step", explode)
    with pytest.raises(EngineError, match="RuntimeError: out of luck"):
        list(events)
    with pytest.raises(EngineError, match="out of luck"):
        next(service.events(DrawRequest(prompt="a fox", seed=1)))
    assert service.fault is not None


def test_closing_ends_what_is_unfinished(model_path: Path) -> None:
    session = open_session(model_path)
    service = Service(session)
    events = service.events(DrawRequest(prompt="a fox", seed=1))
    next(events)
    service.close()
    with pytest.raises(EngineError, match="closed"):
        list(events)
    assert session.engine.num_unfinished == 0
    assert service.num_unfinished == 0
