"""Guidance by the user's pictures in the chat: set, sent where there are any, and told."""

from __future__ import annotations

from chat_objects import drawn, png
from screens import run_async, staged

from mmgen.checkpoint import open_checkpoint
from mmgen_chat.backend import ChatRequest, TurnSettings
from mmgen_chat.controls import Controls
from mmgen_chat.conversation import Drawing, Picture, Turn, Words
from mmgen_chat.encoding import Encoder
from mmgen_chat.endpoint_wire import chat_body, told_drawing
from mmgen_chat.planning import make_plan

SETTINGS = TurnSettings(seed=1, image_guidance_scale=1.5)
ASKED = Turn(role="user", segments=(Words("draw a fox"),))
SHOWN = Turn(role="user", segments=(Picture(png=png()), Words("draw a fox")))
DRAWN = Turn(role="assistant", segments=(drawn(),))


def test_a_command_sets_it_beside_guidance_by_words() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.say("/guidance image 1.5")
            assert "image_guidance is 1.5" in stage.text()
            await stage.say("/guidance 4")
            settings = stage.app.controls.turn_settings(None)
            assert (settings.guidance_scale, settings.image_guidance_scale) == (4.0, 1.5)
            await stage.say("/guidance image auto")
            assert stage.app.controls.image_guidance is None
            await stage.say("/guidance image -1")
            assert "image_guidance is a number of 0 or more" in stage.text()

    run_async(test)


def test_the_settings_file_has_it_by_the_same_name() -> None:
    assert Controls().changed("image_guidance", "2").image_guidance == 2.0


def test_it_is_asked_for_only_where_a_user_shows_a_picture() -> None:
    checkpoint = open_checkpoint(None)
    encoder = Encoder(checkpoint, checkpoint.codec())
    for turns, wanted in (((ASKED,), None), ((SHOWN,), 1.5)):
        request = ChatRequest(turns=turns, settings=SETTINGS, must_draw=True)
        (asked,) = make_plan(encoder, "mini", request).requests
        assert getattr(asked, "image_guidance_scale", 0) == wanted
        for is_ours in (True, False):
            body = chat_body(request, turns, "mini", is_ours=is_ours)
            assert body.get("image_guidance_scale") == (wanted if is_ours else None)
    body = chat_body(
        ChatRequest(turns=(ASKED, DRAWN, ASKED), settings=SETTINGS),
        (ASKED, DRAWN, ASKED),
        "mini",
        is_ours=True,
    )
    assert "image_guidance_scale" not in body, "only the model has drawn one"


def test_the_line_under_a_picture_says_what_was_applied() -> None:
    drawing = Drawing(prompt="a fox", model="mini")
    assert drawing.guidance is None
    told = {"guidance_scale": 3.0, "image_guidance_scale": None}
    assert told_drawing(drawing, told).guidance == "guidance 3"
    told["image_guidance_scale"] = 1.5
    assert told_drawing(drawing, told).guidance == "guidance 3, by pictures 1.5"
