"""Sessions and services on vLLM, as users open them, with the model that mmgen ships."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("vllm", reason="vLLM is not installed; .ci/run tests this with it")

from mmgen.checkpoint import Checkpoint
from mmgen.errors import EngineError
from mmgen.generate.engine import SamplingParams
from mmgen.generate.engine_check import check_engine
from mmgen.generate.events import ImageFinished, TurnFinished
from mmgen.generate.requests import CaptionRequest, DrawRequest, TurnRequest
from mmgen.generate.service import Service
from mmgen.generate.session import Session, open_session
from mmgen.generate.vllm_config import VllmEngineConfig
from mmgen.generate.vllm_engine import VllmEngine
from mmgen.generate.vllm_start import installed_vllm, open_vllm_session, start_vllm

pytestmark = pytest.mark.filterwarnings("ignore")

COLOURS = ("red", "green", "blue", "orange")
THINGS = ("circle", "apple", "square", "house")
PROMPTS = [f"a {colour} {thing}" for colour in COLOURS for thing in THINGS]


@pytest.fixture(scope="module")
def mini() -> Iterator[Session]:
    session = open_vllm_session("mini", VllmEngineConfig(compilation="off"))
    yield session
    session.close()


def drawn(session: Session, requests: list[DrawRequest]) -> list[list[int]]:
    """Return the codes of pictures in the order of their requests."""
    codes = {
        event.index: event.codes.array.ravel().tolist()
        for event in session.run(requests)
        if isinstance(event, ImageFinished)
    }
    return [codes[index] for index in range(len(requests))]


def test_the_shipped_model_draws_sixteen_pictures_as_torch_does(mini: Session) -> None:
    for sampling in (SamplingParams(temperature=0), None):
        requests = [
            DrawRequest(prompt=prompt, seed=seed, guidance_scale=3.0, sampling=sampling)
            for seed, prompt in enumerate(PROMPTS)
        ]
        expected = drawn(open_session("mini"), requests)
        assert drawn(mini, requests) == expected
        assert drawn(mini, requests[3:4]) == expected[3:4]


def test_a_turn_says_what_was_applied(mini: Session) -> None:
    request = DrawRequest(prompt=PROMPTS[0] + " beside another" * 9, seed=5, guidance_scale=3.0)
    for _ in range(2):
        events = list(mini.run([request]))
    image = next(event for event in events if isinstance(event, ImageFinished))
    turn = next(event for event in events if isinstance(event, TurnFinished))
    assert (image.guidance_scale, image.seed, image.num_restarts) == (3.0, 5, 0)
    cached = turn.usage.cached_ids
    assert cached is not None and 0 < cached < turn.usage.prompt_ids


def test_threads_share_a_service_on_vllm(mini: Session, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.fromarray(np.full((64, 64, 3), 200, np.uint8)).save(path)
    requests: list[TurnRequest] = [
        DrawRequest(prompt=prompt, seed=seed) for seed, prompt in enumerate(PROMPTS[:3])
    ]
    requests += [CaptionRequest(picture=path), DrawRequest(prompt="x", seed=1, guidance_scale=1.0)]
    torch_session = open_session("mini")

    def result(session: Session | Service, request: TurnRequest) -> str:
        events = session.events(request) if isinstance(session, Service) else session.run([request])
        return next(repr(event.turn) for event in events if isinstance(event, TurnFinished))

    # The service closes the session, so this is the last test that has it.
    with Service(mini) as service, ThreadPoolExecutor(5) as threads:
        found = list(threads.map(lambda request: result(service, request), requests))
    assert found == [result(torch_session, request) for request in requests]


def test_an_engine_with_other_weights_refuses_to_serve(
    checkpoint: Checkpoint, session: Session
) -> None:
    engine = start_vllm(checkpoint, VllmEngineConfig(compilation="off", num_rows=4))
    other = checkpoint.load_decoder()
    other.embedding.weight.data[5:90] *= 1.1
    with pytest.raises(EngineError, match="failed its self-test"):
        check_engine(engine, other)
    engine.close()


def test_what_vllm_cannot_do_is_one_line(checkpoint: Checkpoint) -> None:
    with pytest.raises(EngineError, match="vLLM does not start: ") as caught:
        VllmEngine(checkpoint, VllmEngineConfig(compilation="off", cache_bytes=2**50))
    assert "\n" not in str(caught.value)


def test_the_command_line_draws_the_same_file(checkpoint: Checkpoint, tmp_path: Path) -> None:
    # With no compiler in reach vLLM is started as it is; it asks `lscpu` for the processors.
    tools = tmp_path / "tools"
    tools.mkdir()
    found = shutil.which("lscpu")
    assert found is not None, "vLLM needs lscpu on a CPU"
    (tools / "lscpu").symlink_to(found)
    environment = os.environ | {"PATH": str(tools)}
    files = []
    for engine in ("torch", "vllm"):
        path = tmp_path / f"{engine}.png"
        command = ["generate", "a red fox", "--seed", "4", "--engine", engine, "-o", str(path)]
        done = subprocess.run(
            [sys.executable, "-m", "mmgen", *command, "--model", str(checkpoint.path)],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
        )
        assert done.stdout == f"{path}\n"
        files.append(path.read_bytes())
    assert files[0] == files[1]


def test_the_installed_version_is_known() -> None:
    assert installed_vllm().startswith(("0.31", "0.32", "0.33"))
