"""What the main screens look like, compared with committed pictures of them.

`MMGEN_UPDATE_SNAPSHOTS=1 pytest chat/tests/test_snapshots.py` writes them anew after a wanted
change; look at them before committing.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from screens import Stage, run_async, staged
from scripted import ScriptedBackend, colored
from textual.widgets import Input

from mmgen_chat.settings import Settings
from mmgen_chat.store import Store

GOLDEN = Path(__file__).parent / "golden"


def normal(svg: str) -> str:
    """Return an SVG without what differs from run to run: Rich numbers its classes."""
    numbered = re.findall(r"terminal-\d+-", svg)
    for name in dict.fromkeys(numbered):
        svg = svg.replace(name, "terminal-")
    return svg


async def nothing(stage: Stage) -> None:
    pass


async def conversation(stage: Stage) -> None:
    await stage.say("/seed 3")
    await stage.say("draw a cat")


async def growing(stage: Stage) -> None:
    stage.backend.gate, stage.backend.free = asyncio.Event(), 9
    await stage.type("/seed 3")
    stage.chat.composer.send()
    await stage.pilot.pause()
    await stage.type("/draw a cat")
    stage.chat.composer.send()
    await stage.until(lambda: "9 of 16" in stage.text())
    stage.chat.status.rate = 20.0


async def panel(stage: Stage) -> None:
    await conversation(stage)
    await stage.say("/guidance 2.5")
    await stage.pilot.press("f2")


async def commands(stage: Stage) -> None:
    await stage.settle()
    await stage.type("/te")


async def attachment(stage: Stage) -> None:
    colored([1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]).save(stage.app.folder / "tiles.png")
    await stage.settle()
    await stage.type("look at @til")
    await stage.until(lambda: "tiles.png" in stage.text())
    await stage.pilot.press("enter")
    await stage.until(lambda: len(stage.chat.prompt.attached) == 1)


async def compare(stage: Stage) -> None:
    await stage.say("/compare 1 2 a cat")


async def gallery(stage: Stage) -> None:
    await conversation(stage)
    await stage.say("/compare 1 2 a dog")
    await stage.app.keeper.flush()
    await stage.pilot.press("f4")
    await stage.until(lambda: "a dog" in stage.text() and "g its conversation" in stage.text())


async def helping(stage: Stage) -> None:
    await stage.pilot.press("question_mark")


SCENES: dict[str, tuple[Callable[[Stage], Awaitable[None]], tuple[int, int], str | None]] = {
    "greeting": (nothing, (80, 24), None),
    "conversation": (conversation, (80, 24), None),
    "growing": (growing, (80, 24), None),
    "light": (conversation, (80, 24), "mmgen-light"),
    "contrast": (conversation, (80, 24), "mmgen-contrast"),
    "panel": (panel, (80, 24), None),
    "commands": (commands, (80, 24), None),
    "attachment": (attachment, (80, 24), None),
    "compare": (compare, (100, 30), None),
    "gallery": (gallery, (80, 24), None),
    "help": (helping, (80, 24), None),
}


@pytest.mark.parametrize("name", SCENES)
def test_a_screen_looks_as_it_did(name: str, tmp_path: Path) -> None:
    scene, size, theme = SCENES[name]

    async def test() -> None:
        settings = Settings(theme=theme)
        with Store(tmp_path / "chats.db") as store:
            async with staged(
                ScriptedBackend(), size=size, settings=settings, store=store, folder=tmp_path
            ) as stage:
                stage.chat.composer.cursor_blink = False
                await stage.settle()
                await scene(stage)
                for field in stage.app.screen.query(Input):
                    field.cursor_blink = False
                # It was told not to blink perhaps before it had the focus, and then hides: a cursor
                # that stops blinking now shows exactly where the focus is.
                stage.chat.composer.cursor_blink = True
                stage.chat.composer.cursor_blink = False
                if name != "growing":
                    stage.chat.status.rate = 20.0
                await stage.pilot.pause(0.3)
                compare_with_golden(name, normal(stage.app.export_screenshot()))
                if name == "growing":
                    await stage.pilot.press("escape")

    run_async(test)


def compare_with_golden(name: str, svg: str) -> None:
    """Fail when a screen is not as committed; leave the new one beside it to be looked at."""
    golden = GOLDEN / f"{name}.svg"
    if os.environ.get("MMGEN_UPDATE_SNAPSHOTS"):
        GOLDEN.mkdir(exist_ok=True)
        golden.write_text(svg, encoding="utf-8")
    if golden.read_text(encoding="utf-8") != svg:
        seen = GOLDEN / f"{name}.seen.svg"
        seen.write_text(svg, encoding="utf-8")
        pytest.fail(f"the screen is not as {golden} has it; look at {seen}")
