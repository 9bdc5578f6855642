"""The application around the screens."""

from __future__ import annotations

from screens import run_async, staged

from mmgen_chat.backend import ImageProgress
from mmgen_chat.conversation import Picture
from mmgen_chat.widgets.picture_block import PictureBlock


def test_what_is_typed_before_the_prompt_has_the_focus_is_not_lost() -> None:
    async def test() -> None:
        async with staged() as stage:
            stage.chat.set_focus(None)
            await stage.pilot.press("h", "i")
            assert stage.chat.composer.text == "hi"
            stage.chat.composer.focus()
            await stage.pilot.press("!")
            assert stage.chat.composer.text == "hi!"

    run_async(test)


def test_progress_moves_nothing_on_the_screen_once_it_is_there() -> None:
    async def test() -> None:
        async with staged() as stage:
            block = PictureBlock(stage.app.surface, Picture(size=(64, 64)))
            await stage.chat.turns.mount(block)
            widths = []
            for done in (1, 9, 10, 64):
                block.grow(
                    ImageProgress(index=0, num_done=done, num_codes=64, codes=None, preview=None)
                )
                widths.append(len(str(block.query_one(".facts").render())))
            assert len(set(widths)) == 1 and widths[0] > 20

    run_async(test)
