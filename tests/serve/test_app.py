"""The routes as a client sees them, over a real socket."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from PIL import Image

from mmgen.serve.settings import Limits
from tests.serve.conftest import (
    RunningServer,
    StartServer,
    decoded,
    error_of,
    events_of,
    picture_part,
    png,
    png_uri,
    wait_until,
)


def test_chat_draws_when_told_to(server: RunningServer) -> None:
    answer = server.chat("draw a fox", seed=3, modalities=["image"], size="32x32").json()
    (choice,) = answer["choices"]
    message = choice["message"]
    assert message["content"] is None
    (part,), (image,) = message["content_parts"], message["images"]
    assert part["image_url"] == image["image_url"]
    assert decoded(image["image_url"]["url"]).size == (32, 32)
    assert choice["finish_reason"] == "stop"
    assert choice["mmgen"]["images"][0]["guidance_scale"] == 2.0
    assert answer["usage"]["completion_tokens_details"] == {"text_tokens": 0, "image_tokens": 16}


def test_chat_speaks_when_told_to(server: RunningServer) -> None:
    answer = server.chat("hello", seed=3, modalities=["text"], max_tokens=5, temperature=0.0)
    (choice,) = answer.json()["choices"]
    assert isinstance(choice["message"]["content"], str)
    assert "images" not in choice["message"]
    assert choice["finish_reason"] == "length"
    assert answer.json()["usage"]["completion_tokens"] == 5


def test_chat_sees_pictures(server: RunningServer) -> None:
    def look(colour: tuple[int, int, int]) -> dict[str, Any]:
        answer = server.chat(
            picture_part(png_uri(colour=colour)),
            {"type": "text", "text": "what is this?"},
            modalities=["image"],
            seed=1,
        )
        found: dict[str, Any] = answer.json()
        return found

    red, blue = look((255, 0, 0)), look((0, 0, 255))
    assert red["usage"]["prompt_tokens_details"]["image_tokens"] == 64
    url = red["choices"][0]["message"]["images"][0]["image_url"]["url"]
    assert url != blue["choices"][0]["message"]["images"][0]["image_url"]["url"]


def test_an_answer_can_be_given_back(server: RunningServer) -> None:
    first = {"role": "user", "content": "draw a fox"}
    drawn = server.chat("draw a fox", modalities=["image"]).json()["choices"][0]["message"]
    again = {"role": "user", "content": "another"}
    answer = server.post(
        "/v1/chat/completions", messages=[first, drawn, again], max_tokens=3, modalities=["text"]
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["usage"]["prompt_tokens_details"]["image_tokens"] == 64


def test_an_answer_that_contradicts_itself_is_refused(server: RunningServer) -> None:
    parts = [{"type": "text", "text": "Here"}, picture_part(png_uri())]
    message: dict[str, Any] = {"role": "assistant", "content": "Here", "content_parts": parts}
    messages = [{"role": "user", "content": "draw"}, message, {"role": "user", "content": "more"}]
    answer = server.post("/v1/chat/completions", messages=messages, max_tokens=1)
    assert answer.status_code == 200, answer.text
    message["content"] = "There"
    error = server.post("/v1/chat/completions", messages=messages).json()["error"]
    assert error["param"] == "messages[1].content"
    assert "other words in content than in content_parts" in error["message"]
    message |= {"content": None, "images": [picture_part(png_uri(colour=(1, 2, 3)))]}
    error = server.post("/v1/chat/completions", messages=messages).json()["error"]
    assert error["param"] == "messages[1].images"


def test_a_streamed_chat_is_the_whole_one(server: RunningServer) -> None:
    asked: dict[str, Any] = {"seed": 3, "n": 2, "max_tokens": 12, "modalities": ["text"]}
    whole = server.chat("hello", **asked).json()
    text = server.chat("hello", **asked, stream=True, stream_options={"include_usage": True}).text
    *events, (_, last) = events_of(text)
    assert last == "[DONE]"
    chunks = [json.loads(data) for _, data in events]
    said = {0: "", 1: ""}
    ends: dict[int, str] = {}
    for chunk in chunks[:-1]:
        (choice,) = chunk["choices"]
        said[choice["index"]] += choice["delta"].get("content", "")
        if choice["finish_reason"]:
            ends[choice["index"]] = choice["finish_reason"]
    for choice in whole["choices"]:
        assert said[choice["index"]] == choice["message"]["content"]
        assert ends[choice["index"]] == choice["finish_reason"]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == whole["usage"]


def test_a_streamed_chat_draws(server: RunningServer) -> None:
    server.engine.seconds = 0.005
    text = server.chat(
        "draw a fox", seed=3, modalities=["image"], stream=True, partial_images=2
    ).text
    server.engine.seconds = 0
    deltas = [
        json.loads(data)["choices"][0]["delta"] for _, data in events_of(text) if data != "[DONE]"
    ]
    partial = [delta["partial_images"][0] for delta in deltas if "partial_images" in delta]
    (image,) = [delta["images"][0] for delta in deltas if "images" in delta]
    assert [item["num_done"] for item in partial] == [21 + 1, 42 + 1]
    whole = server.chat("draw a fox", seed=3, modalities=["image"]).json()
    assert image == whole["choices"][0]["message"]["images"][0]


def test_a_response_with_the_tool(server: RunningServer) -> None:
    answer = server.post(
        "/v1/responses",
        input="draw a fox",
        tools=[{"type": "image_generation", "size": "32x32"}],
        tool_choice={"type": "image_generation"},
        max_output_tokens=3,
        seed=4,
    ).json()
    call, *messages = answer["output"]
    assert (call["type"], call["status"], call["size"]) == (
        "image_generation_call",
        "completed",
        "32x32",
    )
    assert decoded(call["result"]).size == (32, 32)
    assert call["mmgen"]["seed"] == answer["mmgen"]["seed"] == 4
    assert answer["status"] in ("completed", "incomplete")
    assert all(item["type"] == "message" for item in messages)


def test_a_streamed_response_ends_as_the_whole_one(server: RunningServer) -> None:
    asked: dict[str, Any] = {
        "input": "draw a fox",
        "tools": [{"type": "image_generation"}],
        "tool_choice": "required",
        "max_output_tokens": 4,
        "seed": 4,
    }
    whole = server.post("/v1/responses", **asked).json()
    events = events_of(server.post("/v1/responses", **asked, stream=True).text)
    data = [json.loads(text) for _, text in events]
    assert [name for name, _ in events] == [item["type"] for item in data]
    assert [item["sequence_number"] for item in data] == list(range(len(data)))
    assert data[0]["response"]["status"] == "in_progress"
    last = data[-1]["response"]
    assert [item["type"] for item in last["output"]] == [item["type"] for item in whole["output"]]
    assert last["output"][0]["result"] == whole["output"][0]["result"]
    assert last["usage"] == whole["usage"]
    said = [item["text"] for item in data if item["type"] == "response.output_text.done"]
    parts = [item["content"][0]["text"] for item in whole["output"] if item["type"] == "message"]
    assert said == parts


def test_models_and_health(server: RunningServer) -> None:
    (model,) = server.client.get("/v1/models").json()["data"]
    assert (model["id"], model["object"]) == ("tiny", "model")
    assert model["mmgen"]["sizes"] == ["64x64", "32x32"]
    assert (model["mmgen"]["context_length"], model["mmgen"]["trained_length"]) == (256, None)
    assert server.client.get("/v1/models/tiny").json() == model
    assert error_of(server.client.get("/v1/models/huge"), 404)["code"] == "model_not_found"
    assert server.client.get("/health").json() == {"status": "ok"}


def test_metrics_count(start_server: StartServer) -> None:
    server = start_server()
    server.draw(n=2, stream=True, partial_images=1)
    server.chat("hello", max_tokens=3, modalities=["text"])
    server.draw("")
    wait_until(lambda: server.is_idle)
    text = server.client.get("/metrics").text
    found = dict(
        line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#")
    )
    assert float(found["mmgen_images_total"]) == 2
    assert float(found['mmgen_tokens_total{modality="image"}']) == 128
    assert float(found['mmgen_tokens_total{modality="text"}']) <= 3
    assert float(found["mmgen_time_to_first_token_seconds_count"]) == 3
    route = 'route="/v1/images/generations"'
    assert float(found[f'mmgen_requests_total{{{route},status="200"}}']) == 1
    assert float(found[f'mmgen_requests_total{{{route},status="400"}}']) == 1
    previews = sum(float(value) for name, value in found.items() if "mmgen_previews_total" in name)
    assert previews == 2
    assert float(found["mmgen_engine_waiting"]) == float(found["mmgen_engine_running"]) == 0


@pytest.mark.parametrize(
    ("path", "body", "param", "said"),
    [
        ("images/generations", {"prompt": ""}, "prompt", "empty"),
        ("images/generations", {"prompt": "a\x07"}, "prompt", "control character"),
        ("images/generations", {"prompt": "a\ud800"}, "prompt", "UTF-8"),
        ("images/generations", {}, "prompt", "missing"),
        ("images/generations", {"prompt": "a", "size": "1x1"}, None, "choose one of 64x64, 32x32"),
        ("images/generations", {"prompt": "a", "size": "big"}, "size", "WIDTHxHEIGHT"),
        ("images/generations", {"prompt": "a", "n": 11}, "n", "at most 10"),
        ("images/generations", {"prompt": "a", "n": 0}, "n", "greater than or equal to 1"),
        ("images/generations", {"prompt": "a", "n": True}, "n", "integer"),
        ("images/generations", {"prompt": "a", "seed": -1}, "seed", "greater than"),
        ("images/generations", {"prompt": "a", "seed": 2**63}, "seed", "less than"),
        ("images/generations", {"prompt": "a", "seed": 2**63 - 1, "n": 2}, "seed", "too large"),
        ("images/generations", {"prompt": "a", "guidance_scale": -1}, None, "guidance must be"),
        ("images/generations", {"prompt": "a", "temperature": -1}, None, "temperature must be"),
        ("images/generations", {"prompt": "a", "quality": "high"}, "quality", "not supported"),
        (
            "images/generations",
            {"prompt": "a", "negative_prompt": "b", "guidance_scale": 1},
            None,
            "takes effect through guidance",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "negative_prompt": "b"},
            "negative_prompt",
            "/v1/images/generations",
        ),
        ("images/generations", {"prompt": "a", "stil": "b"}, "stil", "not a field"),
        ("images/generations", {"prompt": "a", "response_format": "url"}, "response_format", "b64"),
        ("images/generations", {"prompt": "a", "partial_images": 1}, "partial_images", "stream"),
        ("images/generations", {"prompt": "a", "output_compression": 5}, "output_compression", ""),
        ("images/generations", {"prompt": "a", "tokenizer": "none"}, None, "none"),
        ("images/generations", {"prompt": "a " * 300}, None, "shorten the prompt"),
        ("chat/completions", {"messages": []}, "messages", "empty"),
        ("chat/completions", {"messages": [{"role": "user"}]}, "messages[0]", "empty"),
        (
            "chat/completions",
            {"messages": [{"role": "system", "content": "a"}]},
            "messages[0].role",
            "user message",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "assistant", "content": "a"}]},
            "messages",
            "end with what the user says",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "modalities": ["audio"]},
            "modalities",
            "'text' and 'image'",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "stop": ["x"]},
            "stop",
            "not supported",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "size": "32x32"},
            "size",
            "modalities",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": "a"}], "max_tokens": 99999},
            "max_tokens",
            "at most",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [picture_part("file:///etc/passwd")]}]},
            "messages[0].content[0].image_url",
            "data URI",
        ),
        (
            "chat/completions",
            {"messages": [{"role": "user", "content": [picture_part("https://a.org/a.png")]}]},
            "messages[0].content[0].image_url",
            "fetches nothing",
        ),
        ("responses", {"input": "a", "previous_response_id": "r"}, "previous_response_id", "not"),
        ("responses", {"input": "a", "tool_choice": "required"}, "tool_choice", "has none"),
        ("responses", {"input": []}, "input", "empty"),
    ],
)
def test_bad_requests_get_one_clear_line(
    server: RunningServer, path: str, body: dict[str, Any], param: str | None, said: str
) -> None:
    error = error_of(server.client.post(f"/v1/{path}", content=json.dumps(body).encode(),
                                        headers={"content-type": "application/json"}))  # fmt: skip
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert said in error["message"]
    assert "\n" not in error["message"]


def test_bad_streams_are_refused_with_a_status(server: RunningServer) -> None:
    assert "choose one of" in error_of(server.draw(size="1x1", stream=True))["message"]
    long = server.chat("a " * 400, stream=True)
    assert "shorten it" in error_of(long)["message"]


def test_what_is_no_json_is_refused(server: RunningServer) -> None:
    post = server.client.post
    kind = {"content-type": "application/json"}
    path = "/v1/images/generations"
    assert error_of(post(path, content=b"{", headers=kind))["message"] == "the body is not JSON"
    assert "object" in error_of(post(path, content=b"[]", headers=kind))["message"]
    assert "Content-Type" in error_of(post(path, content=b'{"prompt":"a"}'))["message"]
    deep = b"[" * 100_000
    assert error_of(post(path, content=deep, headers=kind))


def test_unknown_routes_and_methods(server: RunningServer) -> None:
    assert "/openapi.json" in error_of(server.client.get("/v2"), 404)["message"]
    assert "takes no GET" in error_of(server.client.get("/v1/images/edits"), 405)["message"]
    assert error_of(server.post("/v1/images/generations", prompt="a", model="x"), 404)


def test_edits_refuse_what_they_cannot_use(server: RunningServer) -> None:
    def edit(data: dict[str, str], files: dict[str, Any] | None = None) -> dict[str, Any]:
        chosen = {"image": ("a.png", png())} if files is None else files
        return error_of(server.client.post("/v1/images/edits", data=data, files=chosen))

    assert edit({})["param"] == "prompt"
    assert edit({"prompt": "a", "negative_prompt": " "})["param"] == "negative_prompt"
    assert edit({"prompt": "a", "n": "many"})["param"] == "n"
    assert edit({"prompt": "a", "stil": "b"})["param"] == "stil"
    assert edit({"prompt": "a"}, {"picture": ("a.png", png())})["param"] == "picture"
    assert edit({"prompt": "a", "image": "a.png"}, {})["param"] == "image"
    many = [("image[]", ("a.png", png(size=(8, 8)))) for _ in range(17)]
    answer = server.client.post("/v1/images/edits", data={"prompt": "a"}, files=many)
    assert "at most 16" in error_of(answer)["message"]


def test_a_picture_with_too_many_pixels_is_refused(server: RunningServer) -> None:
    buffer = io.BytesIO()
    Image.new("1", (5000, 4000)).save(buffer, format="PNG")
    answer = server.client.post(
        "/v1/images/edits", data={"prompt": "a"}, files={"image": ("a.png", buffer.getvalue())}
    )
    assert "at most 16,000,000" in error_of(answer)["message"]


def test_pictures_with_too_many_pixels_together_are_refused(start_server: StartServer) -> None:
    server = start_server(limits=Limits(max_pixels=10_000))
    part = picture_part(png_uri(size=(64, 64)))
    question = {"type": "text", "text": "what is this?"}
    assert server.chat(part, part, question, max_tokens=1).status_code == 200
    error = error_of(server.chat(part, part, part, question))
    assert "more than 10,000 pixels together" in error["message"]
    assert error["param"] == "messages[0].content[2].image_url"


def test_the_description_is_served(server: RunningServer) -> None:
    described = server.client.get("/openapi.json").json()
    assert set(described["paths"]) == {
        "/v1/chat/completions",
        "/v1/responses",
        "/v1/images/generations",
        "/v1/images/edits",
        "/v1/models",
        "/v1/models/{name}",
        "/health",
        "/metrics",
    }
    assert "422" not in json.dumps(described)
