"""One answer without a screen: words to standard output, pictures to files, for people and pipes.

What is printed is safe for a terminal. What has been said and drawn is printed and saved as it
comes, so an answer that breaks off, or is interrupted, leaves what there is.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeAlias

import click

from mmgen.cli.lines import AbstractBar, progress_bar
from mmgen.errors import MmgenError, OutputError, SettingsError
from mmgen.generate.requests import check_prompt
from mmgen.pictures import half_blocks, open_picture
from mmgen_chat.answer import Answer
from mmgen_chat.attachments import attach, attach_bytes
from mmgen_chat.backend import (
    AbstractBackend,
    CaptionRequest,
    ChatRequest,
    DrawRequest,
    Event,
    ImageFinished,
    ImageProgress,
    ImageStarted,
    TextDelta,
    TurnFailed,
    TurnFinished,
    TurnRequest,
    TurnSettings,
    TurnsLeftOut,
    TurnStarted,
)
from mmgen_chat.conversation import Picture, Turn, Words
from mmgen_chat.picture_files import file_name
from mmgen_chat.safe_text import one_line, printable

__all__ = [
    "Forced",
    "answer_once",
    "attach_all",
    "make_request",
    "read_words",
    "save_new",
    "tell_failure",
]

Forced: TypeAlias = Literal["draw", "describe"]
"""What is done whatever the model would rather do."""


def read_words(words: Sequence[str]) -> str:
    """Return the words of the command line, or standard input in the place of none or of `-`.

    Raises:
        SettingsError: standard input is a terminal, or holds no text.
    """
    if words and list(words) != ["-"]:
        return " ".join(words)
    if sys.stdin.isatty():
        raise SettingsError("give a prompt after the command, or on standard input")
    data = sys.stdin.buffer.read()
    try:
        return data.decode("utf-8").strip()
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"standard input is not UTF-8 (byte {error.start + 1}); a picture is given with "
            "--attach -, beside a prompt"
        ) from None


async def attach_all(words: Sequence[str], allowed_hosts: frozenset[str]) -> list[Picture]:
    """Return the pictures that paths and addresses name; `-` is standard input.

    Raises:
        MmgenError: one of them gives no picture.
    """
    pictures = []
    for word in words:
        if word == "-":
            data = await asyncio.to_thread(sys.stdin.buffer.read)
            attached = attach_bytes(data, "standard input")
        else:
            attached = await attach(word, allowed_hosts=allowed_hosts)
        if attached.notice:
            click.echo(f"mmgen: note: {one_line(attached.notice)}", err=True)
        pictures.append(attached.picture)
    return pictures


def make_request(
    text: str,
    pictures: Sequence[Picture],
    settings: TurnSettings,
    *,
    forced: Forced | None,
    number: int,
) -> TurnRequest:
    """Return what is asked of the model.

    A picture without words is described; without a wish, the model decides whether it draws.

    Raises:
        SettingsError: the parts do not go together.
    """
    if forced is None and pictures and not text.strip():
        forced = "describe"
    if number != 1 and forced != "draw":
        raise SettingsError("several pictures at once (-n) need --draw")
    if forced == "draw":
        check_prompt(text)
        if not pictures:
            return DrawRequest(prompt=text, settings=settings, number=number)
        if number != 1:
            raise SettingsError("with a picture attached, one is drawn at a time; leave -n out")
    if forced == "describe":
        if len(pictures) != 1:
            raise SettingsError(
                f"one picture is described at a time, got {len(pictures)}; attach one"
            )
        if text.strip():
            check_prompt(text)
        prompt = text if text.strip() else None
        return CaptionRequest(picture=pictures[0], prompt=prompt, settings=settings)
    check_prompt(text)
    turn = Turn(role="user", segments=(*pictures, Words(text)))
    return ChatRequest(turns=(turn,), settings=settings, must_draw=forced == "draw")


async def answer_once(
    backend: AbstractBackend, request: TurnRequest, folder: Path, *, as_json: bool
) -> bool:
    """Print an answer as it comes; return whether it is complete.

    Args:
        folder: where pictures go.
        as_json: events as objects, one per line.
    """
    answer = Answer(Turn(role="assistant"))
    with progress_bar("drawing", 1) as bar:
        printer = _JsonPrinter(folder, backend) if as_json else _PlainPrinter(folder, bar)
        try:
            async with aclosing(backend.events(request)) as events:
                async for event in events:
                    answer.take(event)
                    if isinstance(event, TurnFailed):
                        printer.keep_unfinished(answer.turn)
                    await printer.take(event)
        except asyncio.CancelledError:
            printer.keep_unfinished(answer.stop())
            printer.end()
            raise
        printer.end()
    return answer.turn.state == "complete"


def save_new(picture: Picture, folder: Path, *, is_finished: bool = True) -> Path:
    """Write a picture under the next free name; no file is ever overwritten.

    Raises:
        OutputError: it cannot be written.
    """
    assert picture.png is not None, "only a picture that is there can be saved"
    name = Path(file_name(picture))
    stem = name.stem if is_finished else f"{name.stem}-unfinished"
    partial = folder / f".{stem}.{os.getpid()}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(picture.png)
        number = 1
        while True:
            path = folder / (f"{stem}.png" if number == 1 else f"{stem}-{number}.png")
            with suppress(FileExistsError):
                _take_name(partial, path)
                return path
            number += 1
    except OSError as error:
        raise OutputError(
            f"cannot write into {folder}: {error.strerror or error}; choose another place with -o"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _take_name(partial: Path, path: Path) -> None:
    """Give a whole file its name, unless there is one of that name."""
    try:
        path.hardlink_to(partial)
    except FileExistsError:
        raise
    except OSError:
        # Some file systems know no links; the name is taken first there, and then filled.
        with path.open("xb") as file:
            file.write(partial.read_bytes())


def tell_failure(error: MmgenError, *, can_retry: bool = False) -> None:
    """Print a failure as an object."""
    _print_object("failed", error=one_line(str(error)), can_retry=can_retry)


def _print_object(event: str, **values: Any) -> None:
    # ASCII only: nothing that a model says can reach a terminal as a command.
    click.echo(json.dumps({"event": event, **values}))
    sys.stdout.flush()


class _AbstractPrinter(ABC):
    """Tells of an answer as it comes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._paths: dict[str, Path] = {}

    @abstractmethod
    async def take(self, event: Event) -> None:
        """Tell of an event."""

    @abstractmethod
    def keep_unfinished(self, turn: Turn) -> None:
        """Save what is there of pictures that will not be finished."""

    @abstractmethod
    def end(self) -> None:
        """Tell that nothing follows."""

    def _save(self, picture: Picture) -> Path | None:
        """Save a picture when it comes first; it may come again with more about it."""
        if picture.id in self._paths:
            return None
        self._paths[picture.id] = save_new(picture, self.folder)
        return self._paths[picture.id]

    def _save_unfinished(self, turn: Turn) -> list[Path]:
        return [
            save_new(picture, self.folder, is_finished=False)
            for picture in turn.pictures
            if picture.png is not None and picture.id not in self._paths
        ]


class _PlainPrinter(_AbstractPrinter):
    """Words as they come, and the path of each picture on a line of its own."""

    def __init__(self, folder: Path, bar: AbstractBar) -> None:
        super().__init__(folder)
        self._bar = bar
        self._is_line_open = False
        self._done: dict[int, int] = {}
        self._shows_pictures = sys.stdout.isatty() and "NO_COLOR" not in os.environ

    async def take(self, event: Event) -> None:
        match event:
            case TextDelta(text):
                self._say(printable(text))
            case ImageProgress(num_done=int(done), num_codes=int(codes)):
                self._bar.advance((done - self._done.get(event.index, 0)) / codes)
                self._done[event.index] = done
            case ImageFinished():
                if (path := self._save(event.picture)) is not None:
                    self._show(path, event.picture)
            case TurnsLeftOut():
                self._note(f"{len(event.turn_ids)} earlier turns did not fit and were left out")
            case TurnFailed():
                self._end_line()
                raise event.error

    def keep_unfinished(self, turn: Turn) -> None:
        for path in self._save_unfinished(turn):
            self._note(f"what was drawn so far is in {click.format_filename(path)}")

    def end(self) -> None:
        self._end_line()

    def _say(self, text: str) -> None:
        if text:
            with self._bar.aside():
                click.echo(text, nl=False)
                sys.stdout.flush()
            self._is_line_open = not text.endswith("\n")

    def _show(self, path: Path, picture: Picture) -> None:
        self._end_line()
        with self._bar.aside():
            click.echo(click.format_filename(path))
            if self._shows_pictures and picture.png is not None:
                rendering = open_picture(picture.png)
                columns = min(rendering.width, os.get_terminal_size().columns - 1, 64)
                click.echo(half_blocks(rendering, max(columns, 1)))

    def _note(self, text: str) -> None:
        self._end_line()
        with self._bar.aside():
            click.echo(f"mmgen: note: {one_line(text)}", err=True)

    def _end_line(self) -> None:
        if self._is_line_open:
            click.echo()
        self._is_line_open = False


class _JsonPrinter(_AbstractPrinter):
    """One object per line for each event."""

    def __init__(self, folder: Path, backend: AbstractBackend) -> None:
        super().__init__(folder)
        self._backend = backend

    async def take(self, event: Event) -> None:
        match event:
            case TurnStarted():
                self._tell("started", model=event.model)
            case TextDelta(text):
                self._tell("text", text=text)
            case ImageStarted():
                self._tell("image_started", index=event.index)
            case ImageProgress():
                self._tell(
                    "image_progress",
                    index=event.index,
                    num_done=event.num_done,
                    num_codes=event.num_codes,
                )
            case ImageFinished():
                await self._finish(event)
            case TurnsLeftOut():
                self._tell("left_out", num_turns=len(event.turn_ids))
            case TurnFinished():
                self._tell(
                    "finished",
                    end=event.end,
                    seconds=round(event.seconds, 3),
                    usage=asdict(event.usage),
                    applied=asdict(event.applied),
                )
            case TurnFailed():
                tell_failure(event.error, can_retry=event.can_retry)

    def keep_unfinished(self, turn: Turn) -> None:
        for path in self._save_unfinished(turn):
            self._tell("image_unfinished", path=str(path))

    def end(self) -> None:
        sys.stdout.flush()

    async def _finish(self, event: ImageFinished) -> None:
        picture = event.picture
        path = self._save(picture)
        found: dict[str, Any] = {} if picture.drawing is None else asdict(picture.drawing)
        height, width = picture.size or (None, None)
        alt = None
        if path is not None:
            # A picture is worth having without words for it, too.
            with suppress(MmgenError):
                alt = await self._backend.caption(picture)
        self._tell(
            "image",
            index=event.index,
            path=str(self._paths[picture.id]),
            width=width,
            height=height,
            alt=alt,
            **found,
        )

    def _tell(self, event: str, **values: Any) -> None:
        _print_object(event, **values)
