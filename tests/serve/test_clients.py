"""Real clients against the server: OpenAI's library, curl, and the `llm` command."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import AsyncOpenAI, AuthenticationError, BadRequestError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from mmgen.pictures import open_picture
from tests.serve.conftest import RunningServer, StartServer, decoded, png, png_uri, wait_until


@pytest.fixture
def openai(server: RunningServer) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{server.address}/v1", api_key="-", max_retries=0) as client:
        yield client


def test_images(openai: OpenAI) -> None:
    answer = openai.images.generate(
        model="tiny", prompt="a fox", n=2, size="auto", extra_body={"seed": 4}
    )
    assert answer.data is not None and answer.usage is not None
    assert [decoded(item.b64_json or "").size for item in answer.data] == [(64, 64)] * 2
    assert answer.usage.output_tokens == 128
    assert answer.data[0].model_extra is not None
    assert answer.data[0].model_extra["mmgen"]["seed"] == 4


def test_streamed_images(openai: OpenAI, server: RunningServer) -> None:
    server.engine.seconds = 0.005
    with openai.images.generate(
        model="tiny", prompt="a fox", stream=True, partial_images=2
    ) as stream:
        events = list(stream)
    server.engine.seconds = 0
    partial = [event for event in events if event.type == "image_generation.partial_image"]
    (completed,) = [event for event in events if event.type == "image_generation.completed"]
    assert [event.partial_image_index for event in partial] == [0, 1]
    assert decoded(completed.b64_json).size == (64, 64)
    assert completed.usage.total_tokens > 64


def test_edits(openai: OpenAI) -> None:
    answer = openai.images.edit(
        model="tiny", image=[io.BytesIO(png()), io.BytesIO(png())], prompt="a fox", n=2
    )
    assert answer.data is not None and len(answer.data) == 2
    with openai.images.edit(
        model="tiny", image=io.BytesIO(png()), prompt="a fox", stream=True
    ) as stream:
        assert [event.type for event in stream] == ["image_edit.completed"]


def test_chat_and_its_stream(openai: OpenAI) -> None:
    dialogue: list[ChatCompletionMessageParam] = [{"role": "user", "content": "hello"}]
    whole = openai.chat.completions.create(
        model="tiny",
        messages=dialogue,
        seed=2,
        max_tokens=9,
        extra_body={"modalities": ["text"]},
    )
    with openai.chat.completions.create(
        model="tiny",
        messages=dialogue,
        seed=2,
        max_tokens=9,
        extra_body={"modalities": ["text"]},
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == whole.choices[0].message.content
    assert chunks[-1].usage == whole.usage


def test_chat_reads_and_draws(openai: OpenAI) -> None:
    answer = openai.chat.completions.create(
        model="tiny",
        messages=[
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": png_uri()}},
                    {"type": "text", "text": "draw a fox like this"},
                ],
            }
        ],
        extra_body={"modalities": ["image"], "guidance_scale": 1.0},
    )
    extra = answer.choices[0].message.model_extra
    assert extra is not None
    assert decoded(extra["images"][0]["image_url"]["url"]).size == (64, 64)
    assert answer.choices[0].model_extra is not None
    assert answer.choices[0].model_extra["mmgen"]["images"][0]["guidance_scale"] == 1.0


def test_responses(openai: OpenAI) -> None:
    answer = openai.responses.create(
        model="tiny",
        input="draw a fox",
        tools=[{"type": "image_generation", "size": "32x32"}],
        tool_choice={"type": "image_generation"},
        max_output_tokens=2,
    )
    calls = [item for item in answer.output if item.type == "image_generation_call"]
    assert [decoded(item.result or "").size for item in calls] == [(32, 32)]
    said = openai.responses.create(
        model="tiny", input="hello", max_output_tokens=6, extra_body={"seed": 4}
    )
    assert said.usage is not None
    assert said.output_text and said.usage.output_tokens <= 6


def test_streamed_responses(openai: OpenAI, server: RunningServer) -> None:
    server.engine.seconds = 0.005
    with openai.responses.create(
        model="tiny",
        input="draw a fox",
        tools=[{"type": "image_generation", "partial_images": 2}],
        tool_choice="required",
        max_output_tokens=2,
        stream=True,
    ) as stream:
        events = list(stream)
    server.engine.seconds = 0
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[:6] == [
        "created",
        "in_progress",
        "output_item.added",
        "image_generation_call.in_progress",
        "image_generation_call.generating",
        "image_generation_call.partial_image",
    ]
    assert kinds[-1] in ("completed", "incomplete")
    assert kinds.count("image_generation_call.partial_image") == 2


def test_async_clients_share_the_engine(server: RunningServer) -> None:
    async def draw_all() -> list[str]:
        async with AsyncOpenAI(base_url=f"{server.address}/v1", api_key="-") as client:

            async def draw(seed: int) -> str:
                last = ""
                stream = await client.images.generate(
                    model="tiny",
                    prompt="a fox",
                    stream=True,
                    partial_images=1,
                    extra_body={"seed": seed},
                )
                async for event in stream:
                    last = event.b64_json
                return last

            return await asyncio.gather(*(draw(seed) for seed in range(6)))

    together = asyncio.run(draw_all())
    alone = [server.draw(seed=seed).json()["data"][0]["b64_json"] for seed in range(6)]
    assert together == alone


def test_an_async_client_that_gives_up_frees_the_engine(start_server: StartServer) -> None:
    server = start_server(seconds=0.05)

    async def give_up() -> None:
        async with AsyncOpenAI(base_url=f"{server.address}/v1", api_key="-") as client:
            task = asyncio.create_task(client.images.generate(model="tiny", prompt="a fox"))
            while not server.engine.num_unfinished:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(give_up())
    wait_until(lambda: server.is_idle, seconds=1)


def test_errors_are_the_librarys_own(openai: OpenAI, start_server: StartServer) -> None:
    with pytest.raises(BadRequestError) as refused:
        openai.images.generate(model="tiny", prompt="a fox", size="1x1")
    assert "choose one of 64x64, 32x32" in refused.value.message
    guarded = start_server(api_key="open sesame")
    with (
        OpenAI(base_url=f"{guarded.address}/v1", api_key="wrong") as stranger,
        pytest.raises(AuthenticationError) as stopped,
    ):
        stranger.models.list()
    assert stopped.value.code == "invalid_api_key"
    with OpenAI(base_url=f"{guarded.address}/v1", api_key="open sesame") as friend:
        assert [model.id for model in friend.models.list()] == ["tiny"]


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curl_draws_edits_and_streams(server: RunningServer, tmp_path: Path) -> None:
    def curl(path: str, *words: str) -> str:
        done = subprocess.run(
            ["curl", "--silent", "--show-error", "--no-buffer", server.address + path, *words],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        )
        return done.stdout

    body = json.dumps({"prompt": "a fox", "seed": 1})
    drawn = curl("/v1/images/generations", "--json", body)
    picture = tmp_path / "fox.png"
    picture.write_bytes(base64.b64decode(json.loads(drawn)["data"][0]["b64_json"]))
    assert open_picture(picture).size == (64, 64)
    edited = curl("/v1/images/edits", "-F", f"image=@{picture}", "-F", "prompt=a dog")
    assert json.loads(edited)["usage"]["input_tokens_details"]["image_tokens"] == 64
    body = json.dumps({"prompt": "a fox", "stream": True})
    assert curl("/v1/images/generations", "--json", body).startswith(
        "event: image_generation.completed\ndata: {"
    )
    assert json.loads(curl("/health")) == {"status": "ok"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("llm") is None, reason="needs the command llm")
def test_the_llm_command_talks_and_looks(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: tiny\n  model_name: tiny\n  api_base: {server.address}/v1\n  vision: true\n"
    )
    picture = tmp_path / "a.png"
    picture.write_bytes(png())
    environment = os.environ | {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "-"}

    def llm(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llm", "-m", "tiny", "-o", "max_tokens", "5", *words],
            capture_output=True,
            text=True,
            env=environment,
            timeout=120,
            stdin=subprocess.DEVNULL,
        )

    for words in (["hello"], ["--no-stream", "hello"], ["what is this?", "-a", str(picture)]):
        done = llm(*words)
        assert done.returncode == 0, done.stderr
    assert server.desk.metrics.value("mmgen_tokens_total", modality="text") > 0
    # The model decides whether it draws, and sooner or later it does.
    for _ in range(20):
        done = llm("--no-stream", "draw a fox")
        assert done.returncode == 0, done.stderr
        if server.desk.metrics.value("mmgen_images_total"):
            break
    assert server.desk.metrics.value("mmgen_images_total")
