"""The conversation's screen with a scripted backend: what keys do, what is shown, what is kept."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from screens import run_async, staged
from scripted import NUM_CODES, ScriptedBackend, colored
from textual import events

from mmgen.errors import CheckpointError
from mmgen_chat.backend import ChatRequest, DrawRequest
from mmgen_chat.settings import Settings
from mmgen_chat.store import Store
from mmgen_chat.widgets.attachment_tray import Thumbnail
from mmgen_chat.widgets.picture_block import PictureBlock


def test_a_prompt_gives_words_and_a_picture_with_its_facts() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.pilot.press(*"draw a cat")
            await stage.pilot.press("enter")
            await stage.settle()
            text = stage.text()
            assert "Here you are." in text
            assert "“draw a cat” · seed" in text and "16 tokens · 1.5 s" in text
            assert "shows: A coloured square." in text
            assert "scripted · script" in text and "context 26/256" in text
            assert stage.chat.composer.text == ""

    run_async(test)


def test_a_picture_is_shown_while_it_is_drawn_and_stays_when_stopped() -> None:
    async def test() -> None:
        backend = ScriptedBackend(gate=asyncio.Event(), free=5)
        async with staged(backend) as stage:
            await stage.type("/draw a cat")
            await stage.pilot.press("enter")
            await stage.until(lambda: f"5 of {NUM_CODES} tokens" in stage.text())
            assert stage.chat.status.doing == "drawing…"
            await stage.pilot.press(*"typing goes on")
            assert stage.chat.composer.text == "typing goes on"
            await stage.pilot.press("escape")
            await stage.settle()
            turn = stage.chat.conversation.path()[-1]
            assert turn.state == "stopped" and backend.num_stopped == 1
            codes = turn.pictures[0].codes
            assert codes is not None and len(codes.array) == 5
            assert "stopped" in stage.text()
            assert stage.chat.composer.text == "typing goes on"

    run_async(test)


def test_a_broken_answer_is_kept_marked_and_tried_again() -> None:
    async def test() -> None:
        backend = ScriptedBackend(breaks_at=4)
        async with staged(backend) as stage:
            await stage.say("draw a cat")
            assert "broke off: the server went away in the middle — /retry tries" in stage.text()
            turn = stage.chat.conversation.path()[-1]
            assert turn.state == "failed" and turn.text == "Here you are. "
            backend.breaks_at = None
            await stage.say("/retry")
            again = stage.chat.conversation.path()[-1]
            assert again.state == "complete" and again.parent_id == turn.parent_id
            asked = [item for item in backend.requests if isinstance(item, ChatRequest)]
            assert len(asked) == 2 and asked[0] == asked[1]
            assert "‹ 2/2 ›" in stage.text()

    run_async(test)


def test_a_model_that_cannot_be_opened_is_said_and_replaced() -> None:
    async def test() -> None:
        backend = ScriptedBackend(refuses=CheckpointError("there is no checkpoint here"))
        async with staged(backend) as stage:
            await stage.settle()
            assert "there is no checkpoint here" in stage.text()
            await stage.say("/model other")
            await stage.settle()
            assert "other · script" in stage.text() and backend.is_closed

    run_async(test)


def test_words_of_the_model_command_neither_terminal_nor_markup() -> None:
    async def test() -> None:
        backend = ScriptedBackend(words="[bold]x[/bold] \x1b[31mred\x1b]0;title\x07 [@click=quit]y")
        async with staged(backend) as stage:
            await stage.say("hello")
            text = stage.text()
            assert "[bold]x[/bold]" in text and "[@click=quit]y" in text
            assert "␛[31mred" in text and "\x1b" not in text and "\x07" not in text

    run_async(test)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("/drwa x", "no command /drwa; did you mean /draw?"),
        ("/size 3x", "size is WIDTHxHEIGHT in pixels"),
        ("/size 48x48", "tiles has no pictures of 48x48 pixels; there are 16x16, 32x32"),
        ("/tokenizer x", "scripted has no tokenizer 'x'; there are tiles"),
        ("/best many", "/best takes a number from 2 to 16"),
        ("/refine", "there is no drawn picture yet"),
        ("/save", "there is no picture yet"),
        ("/attach nothing.png", "nothing.png"),
        ("/theme pink", "no theme 'pink'; there are"),
        ("/graphics oil", "no 'oil'; there are kitty"),
        ("/temperature 0.5", "/temperature takes text or image first"),
        ("/delete", "this deletes"),
    ],
)
def test_a_wrong_command_says_why_and_is_given_back(line: str, complaint: str) -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.settle()
            await stage.say(line)
            assert complaint in " ".join(stage.text().split())
            assert stage.chat.composer.text == line

    run_async(test)


def test_controls_reach_the_next_request() -> None:
    async def test() -> None:
        async with staged() as stage:
            for line in ("/seed 7", "/guidance 2.5", "/size 32x32", "/n 2",
                         "/temperature image 0.4", "/topk text 5"):  # fmt: skip
                await stage.say(line)
            await stage.say("/draw a cat")
            request = next(item for item in stage.backend.requests if isinstance(item, DrawRequest))
            assert request.number == 2
            settings = request.settings
            assert (settings.seed, settings.guidance_scale, settings.size) == (7, 2.5, (32, 32))
            assert settings.image_sampling and settings.image_sampling.temperature == 0.4
            assert settings.text_sampling and settings.text_sampling.top_k == 5
            assert len(stage.app.screen.query(PictureBlock)) == 2

    run_async(test)


def test_everything_is_kept_and_found_again(tmp_path: Path) -> None:
    async def test() -> None:
        with Store(tmp_path / "chats.db") as store:
            async with staged(store=store) as stage:
                await stage.say("draw a cat")
                kept = stage.chat.conversation
            found = store.load(kept.id)
            assert [turn.text for turn in found.path()] == [turn.text for turn in kept.path()]
            assert found.pictures[0].alt == "A coloured square."
            async with staged(store=store, conversation=found) as stage:
                assert "shows: A coloured square." in stage.text()
                await stage.say("/delete yes")
                assert store.entries() == []
                assert "deleted" in stage.text()

    run_async(test)


def test_a_command_typed_faster_than_completions_follow_is_sent() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.settle()
            await stage.pilot.press(*"/b")
            assert stage.chat.composer.is_completing
            letters = {"space": " ", "enter": "\r"}
            for key in ("e", "s", "t", "space", "2", "space", "a", "enter"):
                stage.app.post_message(events.Key(key, letters.get(key, key)))
            await stage.until(lambda: len(stage.backend.requests) >= 2)
            await stage.settle()
            assert "best of 2" in stage.text() and stage.chat.composer.text == ""

    run_async(test)


def test_completions_are_chosen_by_keys() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.settle()
            await stage.pilot.press(*"/th", "tab")
            assert stage.chat.composer.text == "/theme "
            await stage.pilot.press(*"mmgen-l", "enter")
            await stage.pilot.pause()
            assert stage.app.theme == "mmgen-light" and stage.chat.composer.text == ""
            await stage.pilot.press(*"/gall", "escape")
            assert not stage.chat.composer.is_completing
            assert stage.chat.composer.text == "/gall"

    run_async(test)


def test_a_dropped_file_is_attached_and_taken_away(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "a picture.png"
        colored([0, 1, 2]).save(path)
        async with staged() as stage:
            await stage.settle()
            stage.app.post_message(events.Paste(f"'{path}'"))
            await stage.until(lambda: len(stage.chat.prompt.attached) == 1)
            stage.chat.composer.post_message(events.Paste("just \x1b[31mwords"))
            await stage.until(lambda: "words" in stage.chat.composer.text)
            assert "\x1b" not in stage.chat.composer.text
            stage.app.screen.query_one(Thumbnail).focus()
            await stage.pilot.press("x")
            await stage.until(lambda: stage.chat.prompt.attached == ())
            await stage.say(f"/attach '{path}'")
            await stage.say("what is it?")
            request = stage.backend.requests[0]
            assert isinstance(request, ChatRequest)
            (picture,) = request.turns[-1].pictures
            assert picture.source == "a picture.png"

    run_async(test)


def test_a_path_written_after_an_at_sign_is_attached(tmp_path: Path) -> None:
    async def test() -> None:
        colored([0, 1, 2]).save(tmp_path / "sea.png")
        (tmp_path / "notes.png").write_text("not a picture", encoding="utf-8")
        async with staged(folder=tmp_path) as stage:
            await stage.say("what is @sea.png")
            request = stage.backend.requests[0]
            assert isinstance(request, ChatRequest)
            turn = request.turns[-1]
            assert [picture.source for picture in turn.pictures] == ["sea.png"]
            assert turn.text == "what is"
            stage.chat.composer.put("and @notes.png")
            stage.chat.composer.send()
            await stage.until(lambda: "notes.png" in stage.text() and "picture" in stage.text())
            await stage.until(lambda: stage.chat.composer.text == "and @notes.png")
            assert len(stage.backend.requests) == 1 and stage.chat.prompt.attached == ()

    run_async(test)


def test_a_sketch_is_refined_with_more_tokens() -> None:
    async def test() -> None:
        backend = ScriptedBackend(
            abilities=frozenset({"draw", "look", "extend"}), lengths=(4, 8, 16)
        )
        async with staged(backend) as stage:
            await stage.settle()
            await stage.say("/tokens 4")
            await stage.say("/draw a cat")
            sketch = stage.chat.conversation.path()[-1].pictures[0]
            await stage.say("/refine 3")
            assert "this picture has 4 tokens; choose one of 8, 16" in stage.text()
            stage.chat.composer.put("")
            await stage.say("/refine")
            request = stage.backend.requests[-2]
            assert isinstance(request, DrawRequest)
            assert request.settings.length == 8 and request.extends is not None
            assert request.extends.id == sketch.id and "8 tokens" in stage.text()

    run_async(test)


def test_a_model_whose_pictures_have_one_length_cannot_refine() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.say("/draw a cat")
            await stage.say("/refine")
            assert "the pictures it draws have one length" in " ".join(stage.text().split())

    run_async(test)


def test_keys_follow_the_settings() -> None:
    async def test() -> None:
        settings = Settings(keys={"help": "ctrl+b", "panel": "ctrl+o"})
        async with staged(settings=settings) as stage:
            await stage.settle()
            await stage.pilot.press("ctrl+b")
            await stage.until(lambda: "Commands for pictures" in stage.text())
            await stage.pilot.press("escape", "ctrl+o")
            await stage.until(lambda: stage.chat.panel.display)
            assert stage.chat.panel.query_one("#control-tokenizer").has_focus

    run_async(test)


def test_the_panel_takes_values_and_refuses_others() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.settle()
            await stage.pilot.press("f2", "tab", "tab", "tab", *"2.5", "enter")
            await stage.until(lambda: stage.app.controls.guidance == 2.5)
            await stage.pilot.press("tab", "tab", *"minus", "enter")
            await stage.until(lambda: "seed is a number from 0" in stage.text())
            assert stage.app.controls.seed is None
            await stage.pilot.press("escape")
            assert stage.chat.composer.has_focus

    run_async(test)


def test_a_picture_is_saved_by_key_and_by_double_click(tmp_path: Path) -> None:
    async def test() -> None:
        async with staged(settings=Settings(pictures=tmp_path)) as stage:
            await stage.say("/draw a cat")
            stage.app.screen.query_one(PictureBlock).focus()
            await stage.pilot.press("s")
            await stage.until(lambda: (tmp_path / "a-cat.png").exists())
            await stage.pilot.click(PictureBlock, times=2, offset=(5, 5))
            await stage.until(lambda: (tmp_path / "a-cat-2.png").exists())
            await stage.pilot.press("enter")
            await stage.until(lambda: "Esc back" in stage.text())
            await stage.pilot.press("escape")

    run_async(test)


def test_a_terminal_that_becomes_tiny_and_large_again() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.say("draw a cat")
            for size in ((20, 5), (3, 2), (80, 24)):
                await stage.pilot.resize_terminal(*size)
                await stage.pilot.pause()
            assert "Say something" in stage.text()

    run_async(test)


def test_the_conversation_is_scrolled_from_the_prompt() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.say("/draw a cat")
            await stage.say("/draw a dog")
            assert "“a dog”" in stage.text() and "“a cat”" not in stage.text()
            await stage.pilot.press("pageup")
            await stage.until(lambda: "“a cat”" in stage.text())
            await stage.pilot.press("pagedown", "pagedown")
            await stage.until(lambda: "“a dog”" in stage.text())
            assert stage.chat.composer.has_focus

    run_async(test)
