"""The server on a real vLLM: what it draws, how it is left, with OpenAI's library."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed; .ci/run tests this with it")

from openai import AsyncOpenAI, OpenAI

from mmgen.checkpoint import Checkpoint
from mmgen.generate.events import ImageFinished
from mmgen.generate.session import Session
from mmgen.generate.vllm_config import VllmEngineConfig
from mmgen.generate.vllm_start import start_vllm
from mmgen.pictures import to_picture
from mmgen.serve.settings import ServerConfig
from tests.serve.conftest import RunningServer, decoded, wait_until

# What vLLM does at work is not ours to mend.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def server(checkpoint: Checkpoint) -> Iterator[RunningServer]:
    engine = start_vllm(checkpoint, VllmEngineConfig(compilation="off", num_rows=32))
    server = RunningServer(Session(checkpoint, engine), ServerConfig(model_name="tiny"))
    yield server
    server.close()


@pytest.fixture
def client(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.address}/v1", api_key="-", max_retries=0) as client:
        yield client


def test_what_is_drawn_is_what_the_torch_engine_draws(
    server: RunningServer, client: OpenAI, session: Session
) -> None:
    answer = client.images.generate(model="tiny", prompt="a fox", n=4, extra_body={"seed": 3})
    expected = {
        event.index: to_picture(event.picture).tobytes()
        for event in session.draw("a fox", n=4, seed=3)
        if isinstance(event, ImageFinished)
    }
    assert answer.data is not None
    drawn = [decoded(item.b64_json or "").tobytes() for item in answer.data]
    assert drawn == [expected[index] for index in range(4)]
    assert "mmgen_engine_pairs_total 4.0" in server.client.get("/metrics").text


def test_streams_have_previews_and_words(client: OpenAI) -> None:
    with client.images.generate(
        model="tiny", prompt="a fox", stream=True, partial_images=2
    ) as stream:
        kinds = [event.type for event in stream]
    assert kinds[-1] == "image_generation.completed"
    assert "image_generation.partial_image" in kinds
    said = client.responses.create(model="tiny", input="hello", max_output_tokens=5)
    assert said.usage is not None and said.usage.output_tokens <= 5


def test_leaving_frees_both_halves_of_every_pair(server: RunningServer) -> None:
    async def give_up() -> None:
        async with AsyncOpenAI(base_url=f"{server.address}/v1", api_key="-") as client:
            task = asyncio.create_task(client.images.generate(model="tiny", prompt="a fox", n=8))
            while server.desk.metrics.value("mmgen_turns_running") < 8:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(give_up())
    wait_until(lambda: server.is_idle)
    counters = server.session.engine.counters
    assert (counters["num_waiting"], counters["num_running"]) == (0, 0)
    assert server.draw(seed=1).status_code == 200
