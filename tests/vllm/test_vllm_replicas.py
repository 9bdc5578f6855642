"""Two engines on vLLM and two workers as one server, each in a process of its own."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; .ci/run tests this with it")

from mmgen.checkpoint import Checkpoint
from mmgen.generate.events import ImageFinished
from mmgen.generate.session import Session
from mmgen.pictures import to_picture
from tests.serve.conftest import decoded
from tests.serve.test_server import serving

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def test_replicas_share_the_work_and_draw_what_torch_draws(
    checkpoint: Checkpoint, session: Session
) -> None:
    words = ("--engine", "vllm", "--vllm", "compilation=off", "--replicas", "2", "--workers", "2")
    expected = {
        event.index: to_picture(event.picture).tobytes()
        for event in session.draw("a fox", n=8, seed=3)
        if isinstance(event, ImageFinished)
    }
    with serving(checkpoint.path, *words, "--rows", "8") as (address, _):

        def draw(seed: int) -> bytes:
            body = {"prompt": "a fox", "seed": seed}
            answer = httpx.post(f"{address}/v1/images/generations", json=body, timeout=60)
            return decoded(answer.json()["data"][0]["b64_json"]).tobytes()

        with ThreadPoolExecutor(8) as threads:
            drawn = list(threads.map(draw, range(3, 11)))
        metrics = httpx.get(f"{address}/metrics").text
    assert drawn == [expected[index] for index in range(8)]
    pairs = re.findall(r'^mmgen_engine_pairs_total\{replica="\d"\} (\S+)$', metrics, re.M)
    assert len(pairs) == 2 and sum(map(float, pairs)) == 8 and "0.0" not in pairs
