"""Pictures on the screen, replaced in place: what reaches the terminal besides Textual's cells."""

from __future__ import annotations

import asyncio
import re
from itertools import pairwise

import pytest
from screens import run_async, staged
from scripted import ScriptedBackend

from mmgen_chat.graphics import Graphics, Terminal
from mmgen_chat.widgets.picture_view import PictureView


@pytest.mark.parametrize("graphics", ["sixel", "iterm2"])
def test_pixels_are_laid_over_in_one_write_at_their_place(graphics: Graphics) -> None:
    async def test() -> None:
        backend = ScriptedBackend(gate=asyncio.Event(), free=6)
        terminal = Terminal(graphics=graphics, cell=(8, 16))
        async with staged(backend, terminal=terminal) as stage:
            writes: list[str] = []
            stage.app.surface.write = writes.append
            await stage.type("/draw a cat")
            stage.chat.composer.send()
            await stage.until(lambda: "6 of 16 tokens" in stage.text())
            view = stage.app.screen.query_one(PictureView)
            mark = "\x1bP" if graphics == "sixel" else "\x1b]1337"
            frames: list[str] = []
            for done in (7, 8, 9):
                writes.clear()
                backend.step()
                await stage.until(lambda done=done: f"{done} of 16" in stage.text())  # type: ignore[misc]
                frames += [data for data in writes if mark in data]
            assert len(set(frames)) == 3
            place = f"\x1b7\x1b[{view.region.y + 1};{view.region.x + 1}H{mark}"
            assert frames[-1].startswith(f"\x1b[?2026h{place}")
            assert frames[-1].endswith("\x1b8\x1b[?2026l")

    run_async(test)


def test_a_view_out_of_sight_writes_nothing_and_one_half_seen_its_visible_part() -> None:
    async def test() -> None:
        terminal = Terminal(graphics="sixel", cell=(8, 16))
        async with staged(terminal=terminal) as stage:
            await stage.say("/draw a cat")
            await stage.say("/draw a dog")
            view = stage.app.screen.query(PictureView).first()
            writes: list[str] = []
            stage.app.surface.write = writes.append
            turns = stage.chat.turns
            turns.release_anchor()
            turns.scroll_to(y=10, animate=False, immediate=True)
            await stage.pilot.pause(0.3)
            bands = [data.count("-") for data in writes if "\x1bP" in data]
            assert bands and 0 < min(bands) < -(-view.size.height * 16 // 6)
            stage.app.action_help()
            await stage.pilot.pause(0.2)
            writes.clear()
            view.lay_over()
            assert writes == []

    run_async(test)


def test_kitty_shows_the_new_picture_before_it_forgets_the_old_one() -> None:
    async def test() -> None:
        backend = ScriptedBackend(gate=asyncio.Event(), free=1)
        terminal = Terminal(graphics="kitty", cell=(8, 16))
        async with staged(backend, terminal=terminal) as stage:
            writes: list[str] = []
            stage.app.surface.write = writes.append
            await stage.type("/draw a cat")
            stage.chat.composer.send()
            for done in range(1, 16):
                await stage.until(lambda done=done: f"{done} of 16" in stage.text())  # type: ignore[misc]
                backend.step()
            await stage.settle()
            await stage.pilot.pause(0.2)
            text = "".join(writes)
            sent = re.findall(r"a=T,U=1[^;\x1b]*i=(\d+)", text)
            dropped = re.findall(r"a=d,d=I[^;\x1b]*i=(\d+)", text)
            assert len(sent) > 10 and dropped == sent[:-1]
            for old, new in pairwise(sent):
                assert text.index(f"i={new},c=") < text.index(f"d=I,q=2,i={old}")

    run_async(test)


def test_the_way_of_showing_pictures_can_be_changed_while_the_chat_runs() -> None:
    async def test() -> None:
        async with staged() as stage:
            await stage.say("/draw a cat")
            assert "▀▀▀▀" in stage.text()
            await stage.say("/graphics ascii")
            assert "▀▀▀▀" not in stage.text() and "::::" in stage.text().replace("-", ":")

    run_async(test)


@pytest.mark.parametrize("size", [(40, 12), (60, 16), (200, 60)])
def test_pictures_fit_every_size_of_terminal_and_follow_it(size: tuple[int, int]) -> None:
    async def test() -> None:
        async with staged(size=(80, 24)) as stage:
            await stage.say("/draw a cat")
            await stage.pilot.resize_terminal(*size)
            await stage.pilot.pause(0.2)
            view = stage.app.screen.query_one(PictureView)
            assert 0 < view.size.width <= size[0] - 3 and 0 < view.size.height < size[1]
            assert view.render_line(0).cell_length == view.size.width

    run_async(test)
