"""The chat with the shipped model in its process, as a first user meets it."""

from __future__ import annotations

import pytest
from screens import Stage, run_async
from scripted import ScriptedBackend
from shipped import MINI_CODES

from mmgen.plugins import MODELS, installed
from mmgen_chat.app import ChatApp
from mmgen_chat.embedded import EmbeddedBackend
from mmgen_chat.graphics import plain_terminal
from mmgen_chat.settings import Settings

pytestmark = pytest.mark.skipif(
    "mini" not in installed(MODELS), reason="the model mini is not installed"
)


def test_the_first_suggestion_draws_a_picture_with_the_shipped_model() -> None:
    async def test() -> None:
        app = ChatApp(
            lambda model, endpoint: EmbeddedBackend(model),
            terminal=plain_terminal(),
            settings=Settings(),
        )
        async with app.run_test(size=(80, 24)) as pilot:
            stage = Stage(app, pilot, ScriptedBackend())
            # Typing works before the model is there.
            await pilot.press("up", "enter")
            await stage.until(lambda: len(app.chat.conversation.turns) == 2)
            await stage.settle()
            answer = app.chat.conversation.path()[-1]
            assert answer.state == "complete" and answer.failure is None
            assert app.info is not None and app.info.model == "mini"
            assert f"context {answer.usage.context_ids}/256" in stage.text()  # type: ignore[union-attr]
            (picture,) = answer.pictures
            assert picture.codes is not None and len(picture.codes.array) == MINI_CODES
            assert picture.alt and "shows:" in stage.text()
            assert f"{MINI_CODES} tokens" in " ".join(stage.text().split()), stage.text()

    run_async(test)


def test_the_shipped_model_judges_its_own_pictures() -> None:
    async def test() -> None:
        app = ChatApp(
            lambda model, endpoint: EmbeddedBackend(model),
            terminal=plain_terminal(),
            settings=Settings(),
        )
        async with app.run_test(size=(80, 24)) as pilot:
            stage = Stage(app, pilot, ScriptedBackend())
            await stage.settle()
            await stage.say("/best 2 a smiling face")
            assert "best of 2 by likelihood of the words" in " ".join(stage.text().split())

    run_async(test)
