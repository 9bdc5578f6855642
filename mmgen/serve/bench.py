"""What serving costs: a server in a process of its own beside the same session in this one.

Both draw the same pictures with the same settings, in turns, so that whatever else the machine does
falls on both. The server tells how long its engine took for a picture; what a client waits beyond
that is the server's own.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import httpx

from mmgen.errors import EngineError, SettingsError
from mmgen.generate.engines import EngineName, open_engine_session
from mmgen.generate.events import TurnFailed
from mmgen.generate.requests import DrawRequest
from mmgen.generate.session import Session

__all__ = ["LoadSpeed", "ServeBench", "ServeBenchConfig", "measure_serving"]

WAIT_SECONDS = 600.0
"""Longest wait for one answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeBenchConfig:
    """What is measured."""

    repeats: int = 10
    """Single pictures, after one that is not counted."""
    clients: tuple[int, ...] = (16,)
    """Clients at once."""
    rounds: int = 3
    """Pictures that each of them asks for, one after another."""
    prompt: str = "a red circle"
    """What is drawn."""
    engine: EngineName = "torch"
    """What runs the decoder, here and there."""

    def __post_init__(self) -> None:
        if self.repeats < 1 or self.rounds < 1 or not self.clients or min(self.clients) < 1:
            raise SettingsError(
                f"repeats, rounds and clients must be 1 or more, got {self.repeats}, "
                f"{self.rounds} and {self.clients}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpeed:
    """Pictures per second with some clients at once."""

    num_clients: int
    num_pictures: int
    images_per_second: float
    session_images_per_second: float
    """Of the session in this process, given as many pictures at once."""
    ratio: float
    """How many times the session's speed the server reached."""
    slowest_seconds: float
    """The longest wait for a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeBench:
    """The result of `measure_serving`; times are medians."""

    engine: EngineName
    seconds: float
    """A client's wait for one picture."""
    session_seconds: float
    """The same picture by the session in this process."""
    overhead_seconds: float
    """What a client waits beyond the time of the engine."""
    overhead_share: float
    """That, as a share of the engine's time."""
    first_preview_seconds: float
    """A client's wait for the first of three previews."""
    loads: tuple[LoadSpeed, ...]


def measure_serving(model: str | None = None, config: ServeBenchConfig | None = None) -> ServeBench:
    """Measure a server on this machine.

    Args:
        model: a checkpoint directory or the name of an installed model; without it, the default.

    Raises:
        EngineError: the server does not start or does not answer.
    """
    config = config or ServeBenchConfig()
    session = open_engine_session(config.engine, model)
    with _serving(model, config) as address:
        try:
            return _measure(session, address, config)
        except httpx.HTTPError as error:
            raise EngineError(f"the server does not answer: {error!r}") from error


def _measure(session: Session, address: str, config: ServeBenchConfig) -> ServeBench:
    with httpx.Client(base_url=address, timeout=WAIT_SECONDS) as client:
        alone, waits, overheads = [], [], []
        for repeat in range(config.repeats + 1):
            alone.append(_draw_here(session, config.prompt, [repeat]))
            wait, engine_seconds = _draw_there(client, config.prompt, repeat)
            waits.append(wait)
            overheads.append((wait - engine_seconds, (wait - engine_seconds) / engine_seconds))
        previews = [
            _first_preview(client, config.prompt, repeat) for repeat in range(config.repeats)
        ]
    loads = tuple(_load(session, address, number, config) for number in config.clients)
    return ServeBench(
        engine=config.engine,
        seconds=median(waits[1:]),
        session_seconds=median(alone[1:]),
        overhead_seconds=median(seconds for seconds, _ in overheads[1:]),
        overhead_share=median(share for _, share in overheads[1:]),
        first_preview_seconds=median(previews),
        loads=loads,
    )


def _load(session: Session, address: str, num_clients: int, config: ServeBenchConfig) -> LoadSpeed:
    """Let clients draw at once, round by round beside the session."""
    here, there, slowest, ratios = 0.0, 0.0, 0.0, []
    for number in range(config.rounds):
        seeds = range(number * num_clients, (number + 1) * num_clients)
        here_now = _draw_here(session, config.prompt, seeds)
        there_now, slowest_now = asyncio.run(_draw_at_once(address, config.prompt, seeds))
        here, there, slowest = here + here_now, there + there_now, max(slowest, slowest_now)
        ratios.append(here_now / there_now)
    num_pictures = num_clients * config.rounds
    return LoadSpeed(
        num_clients=num_clients,
        num_pictures=num_pictures,
        images_per_second=num_pictures / there,
        session_images_per_second=num_pictures / here,
        ratio=median(ratios),
        slowest_seconds=slowest,
    )


def _draw_here(session: Session, prompt: str, seeds: range | list[int]) -> float:
    started = time.perf_counter()
    for event in session.draw_many([DrawRequest(prompt=prompt, seed=seed) for seed in seeds]):
        if isinstance(event, TurnFailed):
            raise event.error
    return time.perf_counter() - started


def _draw_there(client: httpx.Client, prompt: str, seed: int) -> tuple[float, float]:
    """Return the wait for a picture, and how long the engine took for it."""
    started = time.perf_counter()
    answer = client.post("/v1/images/generations", json={"prompt": prompt, "seed": seed})
    seconds = time.perf_counter() - started
    return seconds, float(_checked(answer)["data"][0]["mmgen"]["seconds"])


def _first_preview(client: httpx.Client, prompt: str, seed: int) -> float:
    body = {"prompt": prompt, "seed": seed, "stream": True, "partial_images": 3}
    started = time.perf_counter()
    with client.stream("POST", "/v1/images/generations", json=body) as answer:
        for line in answer.iter_lines():
            if line.startswith("event:"):
                break
        seconds = time.perf_counter() - started
        if line != "event: image_generation.partial_image":
            raise EngineError(f"the server sent no preview but {line!r}")
    return seconds


async def _draw_at_once(address: str, prompt: str, seeds: range) -> tuple[float, float]:
    """Return the time until all have their pictures, and the longest wait of one."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=address, timeout=WAIT_SECONDS, limits=limits) as client:

        async def draw(seed: int) -> float:
            body = {"prompt": prompt, "seed": seed}
            begun = time.perf_counter()
            _checked(await client.post("/v1/images/generations", json=body))
            return time.perf_counter() - begun

        started = time.perf_counter()
        waits = await asyncio.gather(*(draw(seed) for seed in seeds))
        return time.perf_counter() - started, max(waits)


def _checked(answer: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(answer.content)
    if answer.status_code != 200:
        raise EngineError(f"the server answered {answer.status_code}: {found['error']['message']}")
    return found


@contextmanager
def _serving(model: str | None, config: ServeBenchConfig) -> Iterator[str]:
    """Give the address of a server that runs meanwhile."""
    most = str(max(*config.clients, 10))
    words = [sys.executable, "-m", "mmgen", "serve", *([model] if model else [])]
    words += ["--port", "0", "--engine", config.engine, "--max-turns", most]
    # A key that is meant for another server would keep this client out.
    variables = {name: value for name, value in os.environ.items() if name != "MMGEN_API_KEY"}
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=variables)
    try:
        yield _address(process)
    finally:
        process.terminate()
        process.communicate()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    line = ""
    for line in process.stderr:
        found = re.search(r" at (http://\S+)/v1", line)
        if found:
            return found[1]
    raise EngineError(f"the server did not start: {line.strip() or 'it said nothing'}")
