"""`image_guidance_scale` over HTTP: where it works, where it is refused, and what is told."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.serve.conftest import RunningServer, decoded, events_of, png, png_uri

EDITS = "/v1/images/edits"


def edit(server: RunningServer, **fields: str) -> httpx.Response:
    return server.client.post(
        EDITS,
        data={"prompt": "a fox", "seed": "2", "size": "32x32", **fields},
        files={"image": ("a.png", png())},
    )


def picture_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    (picture,) = answer.json()["data"]
    assert isinstance(picture, dict)
    return picture


def error_of(answer: httpx.Response) -> dict[str, Any]:
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["type"] == "invalid_request_error" and "\n" not in error["message"]
    return dict(error)


def test_an_edit_guides_by_pictures_and_words_apart(server: RunningServer) -> None:
    together = picture_of(edit(server, guidance_scale="4"))
    apart = picture_of(edit(server, guidance_scale="4", image_guidance_scale="1.5"))
    same = picture_of(edit(server, guidance_scale="4", image_guidance_scale="4"))
    assert together["mmgen"]["image_guidance_scale"] is None
    assert (apart["mmgen"]["guidance_scale"], apart["mmgen"]["image_guidance_scale"]) == (4.0, 1.5)
    assert same["mmgen"]["image_guidance_scale"] == 4.0
    assert same["b64_json"] == together["b64_json"] != apart["b64_json"]
    assert decoded(apart["b64_json"]).size == (32, 32)


def test_a_streamed_edit_tells_it_too(server: RunningServer) -> None:
    answer = edit(server, image_guidance_scale="1.5", stream="true")
    (name, data) = events_of(answer.text)[-1]
    assert name == "image_edit.completed" and '"image_guidance_scale":1.5' in data.replace(" ", "")


def test_a_dialogue_guides_by_the_pictures_shown(server: RunningServer) -> None:
    content = [
        {"type": "image_url", "image_url": {"url": png_uri()}},
        {"type": "text", "text": "draw a fox"},
    ]
    answer = server.chat(
        *content, modalities=["image"], size="32x32", seed=2, image_guidance_scale=1.5
    )
    assert answer.status_code == 200, answer.text
    (applied,) = answer.json()["choices"][0]["mmgen"]["images"]
    assert applied["image_guidance_scale"] == 1.5
    items = [
        {"type": "input_image", "image_url": png_uri()},
        {"type": "input_text", "text": "draw a fox"},
    ]
    responded = server.post(
        "/v1/responses",
        input=[{"role": "user", "content": items}],
        tools=[{"type": "image_generation", "size": "32x32"}],
        tool_choice="required",
        image_guidance_scale=0.5,
        max_output_tokens=1,
    )
    assert responded.status_code == 200, responded.text
    found = [item for item in responded.json()["output"] if "call" in item["type"]]
    assert found[0]["mmgen"]["image_guidance_scale"] == 0.5


def test_negative_words_lead_an_edit_away(server: RunningServer) -> None:
    plain = picture_of(edit(server, guidance_scale="4", image_guidance_scale="1.5"))
    away = picture_of(
        edit(server, guidance_scale="4", image_guidance_scale="1.5", negative_prompt="a circle")
    )
    assert away["mmgen"]["negative_prompt"] == "a circle"
    assert away["b64_json"] != plain["b64_json"]
    whole = picture_of(edit(server, guidance_scale="4", negative_prompt="a circle"))
    part = picture_of(
        edit(server, guidance_scale="4", image_guidance_scale="1", negative_prompt="a circle")
    )
    assert whole["b64_json"] == part["b64_json"]


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"image_guidance_scale": "-1"}, "image_guidance_scale", "must be 0 or more, got -1"),
        ({"image_guidance_scale": "nan"}, "image_guidance_scale", "finite"),
        ({"image_guidance_scale": "much"}, "image_guidance_scale", "number"),
        ({"negative_prompt": "a\x01b"}, "negative_prompt", "control character"),
        (
            {"negative_prompt": "b", "guidance_scale": "3", "image_guidance_scale": "3"},
            None,
            "guided by the same scale, 3",
        ),
    ],
)
def test_edits_refuse_what_has_no_meaning(
    server: RunningServer, fields: dict[str, str], param: str | None, message: str
) -> None:
    error = error_of(edit(server, **fields))
    assert error["param"] == param and message in error["message"]


def test_without_a_picture_it_is_refused(server: RunningServer) -> None:
    error = error_of(server.draw(image_guidance_scale=1.5))
    assert error["param"] == "image_guidance_scale" and EDITS in error["message"]
    assert error["code"] == "unsupported_parameter"
    for answer in (
        server.chat("draw a fox", modalities=["image"], image_guidance_scale=1.5),
        server.post("/v1/responses", input="draw a fox", image_guidance_scale=1.5),
    ):
        error = error_of(answer)
        assert error["param"] == "image_guidance_scale"
        assert "no user shows any here" in error["message"]
    error = error_of(server.chat("a", image_guidance_scale="1.5"))
    assert error["param"] == "image_guidance_scale"


def test_the_description_has_it(server: RunningServer) -> None:
    described = server.client.get("/openapi.json").json()
    form = described["paths"][EDITS]["post"]["requestBody"]["content"]["multipart/form-data"]
    schemas = described["components"]["schemas"]
    for schema in (form["schema"], schemas["ChatBody"], schemas["ResponsesBody"]):
        assert "image_guidance_scale" in schema["properties"]
