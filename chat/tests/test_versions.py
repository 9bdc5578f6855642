"""Versions of an answer: drawn again, edited, compared, chosen by the model."""

from __future__ import annotations

from screens import run_async, staged
from scripted import ScriptedBackend

from mmgen_chat.backend import ChatRequest, DrawRequest
from mmgen_chat.widgets.turn_view import TurnView


def test_again_gives_a_version_with_another_seed_and_versions_are_walked() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.say("/draw a cat")
            await stage.say("/again")
            first, second = (
                item for item in stage.backend.requests if isinstance(item, DrawRequest)
            )
            assert first.prompt == second.prompt and first.settings.seed != second.settings.seed
            assert "‹ 2/2 ›" in stage.text()
            await stage.pilot.press("alt+left")
            await stage.pilot.pause()
            assert "‹ 1/2 ›" in stage.text() and f"seed {first.settings.seed}" in stage.text()

    run_async(test)


def test_an_edited_turn_begins_a_branch_and_the_old_one_stays() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.say("hello")
            await stage.say("and now?")
            await stage.type("/edit")
            stage.chat.composer.send()
            await stage.pilot.pause()
            assert stage.chat.composer.text == "and now?"
            await stage.say("and then?")
            texts = [turn.text for turn in stage.chat.conversation.path() if turn.role == "user"]
            assert texts == ["hello", "and then?"]
            assert len(stage.chat.conversation.turns) == 6
            last = stage.backend.requests[-1]
            assert isinstance(last, ChatRequest) and last.turns[-1].text == "and then?"

    run_async(test)


def test_escape_leaves_an_edited_turn_as_it_was() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.say("hello")
            view = stage.app.screen.query(TurnView).first()
            view.focus()
            await stage.pilot.press("e")
            assert stage.chat.composer.text == "hello"
            await stage.pilot.press("escape")
            assert stage.chat.composer.text == "" and stage.chat.editing is None

    run_async(test)


def test_the_best_of_several_is_kept_and_the_others_are_versions() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.say("/seed 10")
            await stage.say("/best 4 a cat")
            turn = stage.chat.conversation.path()[-1]
            drawing = turn.pictures[0].drawing
            assert drawing is not None and drawing.seed == 12
            text = stage.text()
            assert "‹ 3/4 ›" in text
            assert (
                "best of 4 by likelihood of the words: -1.00, the others -1.10, -1.10, -1.20"
                in text
            )

    run_async(test)


def test_a_model_that_only_looks_chooses_by_naming() -> None:
    async def test() -> None:
        backend = ScriptedBackend(abilities=frozenset({"draw", "look"}))
        async with staged(backend) as stage:
            await stage.say("/best 2 a coloured square")
            assert "by words of the prompt that it names: 1.00" in stage.text()

    run_async(test)


def test_two_seeds_models_or_tokenizers_are_drawn_side_by_side() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.say("/compare 1 2 a cat")
            assert "seed 1" in stage.text() and "seed 2" in stage.text()
            await stage.say("/compare scripted ./other a dog")
            text = stage.text()
            assert "scripted" in text and "./other" in text
            shown = stage.chat.conversation.siblings(stage.chat.conversation.path()[-1].id)
            models = [turn.applied.model for turn in shown if turn.applied]
            assert models == ["scripted", "./other"]
            await stage.say("/compare scripted other a dog")
            shown = stage.chat.conversation.siblings(stage.chat.conversation.path()[-1].id)
            assert [turn.applied.model for turn in shown if turn.applied] == ["scripted", "other"]
            await stage.say("/compare tiles a dog")
            drawn = [item for item in stage.backend.requests if isinstance(item, DrawRequest)]
            assert [item.settings.tokenizer for item in drawn[-2:]] == ["tiles", "tiles"]
            await stage.say("/compare tiles 4 a dog")
            assert "two models, two tokenizers or two seeds" in stage.text()

    run_async(test)
