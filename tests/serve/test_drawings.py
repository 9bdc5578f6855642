"""Drawings and edits as a client sees them, over a socket: whole, streamed, in every format."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmgen.checkpoint import open_checkpoint
from mmgen.generate.events import ImageFinished
from mmgen.generate.provenance import Provenance
from mmgen.generate.session import Session
from mmgen.generate.torch_engine import TorchEngine
from mmgen.pictures import to_picture
from tests.serve.conftest import (
    RunningServer,
    decoded,
    error_of,
    events_of,
    pixels,
    png,
)


def test_a_drawing_is_the_sessions(server: RunningServer) -> None:
    """The server draws what the library draws, bit for bit."""
    answer = server.draw("a red circle", seed=3, n=2).json()
    checkpoint = open_checkpoint(server.service.session.checkpoint.path)
    session = Session(checkpoint, TorchEngine(checkpoint.load_decoder()))
    drawn = {
        event.index: to_picture(event.picture).tobytes()
        for event in session.draw("a red circle", seed=3, n=2)
        if isinstance(event, ImageFinished)
    }
    assert [pixels(item["b64_json"]) for item in answer["data"]] == [drawn[0], drawn[1]]


def test_a_drawing_says_what_was_applied(server: RunningServer) -> None:
    answer = server.draw(
        "a red circle", seed=3, n=2, guidance_scale=1.5, temperature=0.7, top_k=9, size="32x32"
    ).json()
    assert [item["mmgen"]["seed"] for item in answer["data"]] == [3, 4]
    applied = answer["data"][0]["mmgen"]
    assert applied["guidance_scale"] == 1.5
    assert applied["sampling"] == {"temperature": 0.7, "top_k": 9, "top_p": None}
    assert (applied["size"], applied["tokens"], applied["tokenizer"]) == ("32x32", 16, "palette")
    assert applied["restarts"] == 0
    assert decoded(answer["data"][0]["b64_json"]).size == (32, 32)
    assert (answer["size"], answer["output_format"]) == ("32x32", "png")
    usage = answer["usage"]
    assert usage["output_tokens"] == usage["output_tokens_details"]["image_tokens"] == 32
    assert usage["total_tokens"] == usage["input_tokens"] + 32


def test_a_negative_prompt_has_an_effect_and_is_told(server: RunningServer) -> None:
    plain = server.draw(seed=3).json()["data"][0]
    (drawn,) = server.draw(seed=3, negative_prompt="a circle").json()["data"]
    assert plain["mmgen"]["negative_prompt"] is None
    assert drawn["mmgen"]["negative_prompt"] == "a circle"
    assert drawn["b64_json"] != plain["b64_json"]
    assert (
        server.draw(seed=3, negative_prompt="").json()["data"][0]["b64_json"] == plain["b64_json"]
    )


def test_a_random_seed_is_told_and_repeats(server: RunningServer) -> None:
    first = server.draw().json()["data"][0]
    again = server.draw(seed=first["mmgen"]["seed"]).json()["data"][0]
    assert first["b64_json"] == again["b64_json"]


def test_a_drawing_carries_its_story(server: RunningServer, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(base64.b64decode(server.draw("a fox", seed=5).json()["data"][0]["b64_json"]))
    story = Provenance.read(path)
    assert (story.prompt, story.seed, story.model) == ("a fox", 5, "tiny")
    story.check(server.service.session.checkpoint, path)


@pytest.mark.parametrize("name", ["jpeg", "webp"])
def test_other_formats(server: RunningServer, name: str) -> None:
    small = server.draw(seed=1, output_format=name, output_compression=10).json()
    large = server.draw(seed=1, output_format=name, output_compression=95).json()
    assert decoded(small["data"][0]["b64_json"]).format == name.upper()
    assert len(small["data"][0]["b64_json"]) < len(large["data"][0]["b64_json"])
    assert small["output_format"] == name


def test_a_streamed_drawing_grows(server: RunningServer) -> None:
    server.engine.seconds = 0.01
    answer = server.draw(seed=3, stream=True, partial_images=3)
    server.engine.seconds = 0
    assert answer.headers["content-type"].startswith("text/event-stream")
    events = events_of(answer.text)
    names = [name for name, _ in events]
    assert names == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    data = [json.loads(text) for _, text in events]
    assert [item["partial_image_index"] for item in data[:-1]] == [0, 1, 2]
    assert all(item["type"] == name for item, name in zip(data, names, strict=True))
    done = [item["mmgen"]["num_done"] for item in data[:-1]]
    assert done == [16, 32, 48]
    final = np.asarray(decoded(data[-1]["b64_json"]), dtype=int)
    for item, rows in zip(data[:-1], (16, 32, 48), strict=True):
        partial = np.asarray(decoded(item["b64_json"]), dtype=int)
        assert np.array_equal(partial[:rows], final[:rows]), "what is drawn stays"
        assert not np.array_equal(partial[rows:], final[rows:])
    whole = server.draw(seed=3).json()["data"][0]["b64_json"]
    assert data[-1]["b64_json"] == whole
    assert data[-1]["usage"]["output_tokens"] == 64
    assert data[-1]["mmgen"]["seed"] == 3


def test_several_streamed_drawings_are_told_apart(server: RunningServer) -> None:
    events = events_of(server.draw(seed=3, n=3, stream=True).text)
    data = [json.loads(text) for _, text in events]
    assert sorted(item["mmgen"]["index"] for item in data) == [0, 1, 2]
    for item in data:
        assert item["mmgen"]["seed"] == 3 + item["mmgen"]["index"]


def test_an_edit_reads_its_pictures(server: RunningServer) -> None:
    def edit(colour: tuple[int, int, int], **fields: str) -> dict[str, Any]:
        answer = server.client.post(
            "/v1/images/edits",
            data={"prompt": "a fox", "seed": "2", **fields},
            files=[("image[]", ("a.png", png(colour))), ("image[]", ("b.png", png()))],
        )
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    red, green = edit((255, 0, 0)), edit((0, 255, 0))
    assert red["data"][0]["b64_json"] != green["data"][0]["b64_json"]
    assert red["data"][0]["b64_json"] == edit((255, 0, 0))["data"][0]["b64_json"]
    assert red["usage"]["input_tokens_details"]["image_tokens"] == 128
    assert edit((255, 0, 0), n="2", size="32x32")["data"][1]["mmgen"]["size"] == "32x32"


def test_a_streamed_edit_has_its_own_events(server: RunningServer) -> None:
    answer = server.client.post(
        "/v1/images/edits",
        data={"prompt": "a fox", "stream": "true", "partial_images": "1"},
        files={"image": ("a.png", png())},
    )
    names = [name for name, _ in events_of(answer.text)]
    assert names[-1] == "image_edit.completed"
    assert set(names) <= {"image_edit.partial_image", "image_edit.completed"}


def test_an_edit_refuses_a_mask(server: RunningServer) -> None:
    answer = server.client.post(
        "/v1/images/edits",
        data={"prompt": "a fox"},
        files={"image": ("a.png", png()), "mask": ("m.png", png())},
    )
    error = error_of(answer)
    assert error["param"] == "mask"
    assert "masks are not supported" in error["message"]
