"""`mmgen-chat` and `mmgen chat`: the options, and what is found out before the screen is taken.

Whatever can be wrong is said here in one line, while the terminal is still an ordinary one. The
application itself, and Textual with it, is imported last.
"""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from mmgen.errors import MmgenError, SettingsError

if TYPE_CHECKING:
    from mmgen_chat.backend import AbstractBackend
    from mmgen_chat.settings import Settings

__all__ = ["chat", "main", "make_backend"]

MIN_COLUMNS, MIN_ROWS = 40, 12


@click.command()
@click.argument("words", nargs=-1, metavar="[WORDS]...")
@click.option("--once", is_flag=True, help="Answer once, without a screen; - reads standard input.")
@click.option("--json", "as_json", is_flag=True, help="With --once: events, one JSON per line.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR",
    help="With --once: where pictures go.  [default: the current folder]",
)  # fmt: skip
@click.option(
    "-a", "--attach", "attached", multiple=True, metavar="PATH|URL", help="Attach a picture."
)
@click.option("--model", metavar="NAME|DIR", help="Model to use.  [default: mini]")
@click.option("--endpoint", metavar="URL", help="Server that speaks OpenAI's protocol.")
@click.option("--draw", "forced", flag_value="draw", help="With --once: draw in any case.")
@click.option("--describe", "forced", flag_value="describe",
              help="With --once: say what the attached picture shows.")  # fmt: skip
@click.option("-n", "--number", "n", metavar="N", help="Pictures for one drawing.")
@click.option("--seed", metavar="N", help="The same seed for every answer.")
@click.option("--guidance", metavar="X", help="How strongly pictures follow the words.")
@click.option("--image-guidance", metavar="X", help="How strongly they follow attached pictures.")
@click.option("--size", metavar="WxH", help="Size of pictures, among those of the model.")
@click.option("--tokenizer", metavar="NAME", help="Visual tokenizer that draws and looks.")
@click.option("--graphics", metavar="WAY", help="kitty, iterm2, sixel, half-block, ascii or auto.")
@click.option("--theme", metavar="NAME", help="Colours: mmgen-dark, mmgen-light, mmgen-contrast.")
@click.option("--resume", is_flag=True, help="Go on with the last conversation.")
@click.option("--settings", "settings_file", type=click.Path(path_type=Path), metavar="FILE",
              help="Settings file.  [default: the user's own]")  # fmt: skip
@click.option("--database", type=click.Path(path_type=Path), metavar="FILE",
              help="File of all conversations.")  # fmt: skip
def chat(
    words: tuple[str, ...],
    once: bool,
    as_json: bool,
    output: Path | None,
    attached: tuple[str, ...],
    model: str | None,
    endpoint: str | None,
    forced: str | None,
    n: str | None,
    seed: str | None,
    guidance: str | None,
    image_guidance: str | None,
    size: str | None,
    tokenizer: str | None,
    graphics: str | None,
    theme: str | None,
    resume: bool,
    settings_file: Path | None,
    database: Path | None,
) -> None:
    """Chat with a model that writes and draws; pictures appear as they are drawn.

    WORDS, if given, are said first.
    """
    from mmgen_chat.settings import read_settings

    actions = None if once else _actions()
    settings = _with_options(
        read_settings(settings_file, actions=actions),
        {"model": model, "endpoint": endpoint, "graphics": graphics, "theme": theme,
         "database": database},
        {"n": n, "seed": seed, "guidance": guidance, "image_guidance": image_guidance,
         "size": size, "tokenizer": tokenizer},
    )  # fmt: skip
    if once:
        _answer_once(settings, words, attached, forced, output=output, as_json=as_json)
        return
    belonging = {"--json": as_json, "-o": output, "--draw or --describe": forced}
    for name, value in belonging.items():
        if value:
            raise SettingsError(f"{name} belongs to --once; add it")
    _open_screen(settings, " ".join(words), attached, resume=resume)


def _actions() -> tuple[str, ...]:
    """Return what keys can be set for. The application is imported, which takes a moment."""
    from mmgen_chat.app import ACTIONS

    return ACTIONS


def _with_options(
    settings: Settings, options: dict[str, object], controlled: dict[str, str | None]
) -> Settings:
    """Return settings with what the command line says besides."""
    given = {name: value for name, value in options.items() if value is not None}
    if "model" in given and "endpoint" not in given and settings.endpoint:
        # A model that is named on the command line alone is one of this machine.
        given["endpoint"] = None
    if "endpoint" in given and "model" not in given and not settings.endpoint:
        # And the settings' model is then none of the server's.
        given["model"] = None
    controls = settings.controls
    for name, text in controlled.items():
        if text is not None:
            controls = controls.changed(name, text)
    return replace(settings, controls=controls, **given)  # type: ignore[arg-type]


def make_backend(settings: Settings, model: str | None, endpoint: str | None) -> AbstractBackend:
    """Return what answers: a server where there is an address, else a model in this process."""
    if endpoint is not None:
        from mmgen_chat.endpoint import EndpointBackend

        return EndpointBackend(endpoint, model=model, api_key=settings.api_key)
    from mmgen_chat.embedded import EmbeddedBackend

    return EmbeddedBackend(
        model, device=settings.device, previews_per_second=settings.previews_per_second
    )


def _open_screen(settings: Settings, text: str, attached: tuple[str, ...], *, resume: bool) -> None:
    from mmgen_chat.graphics import GRAPHICS
    from mmgen_chat.graphics.probe import detect

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise SettingsError(
            "the chat needs a terminal; --once answers without one, and reads standard input"
        )
    size = os.get_terminal_size()
    if size.columns < MIN_COLUMNS or size.lines < MIN_ROWS:
        raise SettingsError(
            f"the terminal has {size.columns}x{size.lines} cells, and the chat needs "
            f"{MIN_COLUMNS}x{MIN_ROWS}; enlarge it, or use --once"
        )
    wanted = next((item for item in GRAPHICS if item == settings.graphics), None)
    if wanted is None and settings.graphics != "auto":
        raise SettingsError(
            f"no way to show pictures is called {settings.graphics!r}; there are auto, "
            f"{', '.join(GRAPHICS)}"
        )
    from mmgen_chat.app import ChatApp
    from mmgen_chat.store import Store
    from mmgen_chat.themes import check_theme

    if settings.theme is not None:
        check_theme(settings.theme)
    terminal = detect(os.environ, wanted=wanted)
    # No key is answered while cyclic garbage is looked for among all that a screen keeps, some
    # 70 ms each time: look among what is young more thoroughly, among all of it less often.
    gc.set_threshold(10_000, 20, 50)
    with Store(settings.database) as store:
        last = store.entries(limit=1) if resume else []
        app = ChatApp(
            lambda model, endpoint: make_backend(settings, model, endpoint),
            terminal=terminal,
            settings=settings,
            store=store,
            conversation=store.load(last[0].id) if last else None,
            said=text,
            attached=attached,
        )
        app.run()
        if app.return_code:
            sys.exit(app.return_code)


def _answer_once(
    settings: Settings,
    words: tuple[str, ...],
    attached: tuple[str, ...],
    forced: str | None,
    *,
    output: Path | None,
    as_json: bool,
) -> None:
    from mmgen_chat.once import answer_once, attach_all, make_request, read_words, tell_failure

    # A picture alone is described; then standard input may be nobody's, or the picture.
    text = read_words(words) if words or not attached else ""
    folder = output or settings.pictures
    if folder.exists() and not folder.is_dir():
        raise SettingsError(f"-o is a folder for pictures, but {folder} is a file")

    async def answer() -> bool:
        pictures = await attach_all(attached, settings.allowed_hosts)
        quiet = replace(settings, previews_per_second=0)
        async with make_backend(quiet, settings.model, settings.endpoint) as backend:
            controls = settings.controls
            # What is set beside the model's own sampling needs to know that.
            info = await backend.open()
            controls.check(info)
            request = make_request(
                text,
                pictures,
                controls.turn_settings(info),
                forced="draw" if forced == "draw" else "describe" if forced else None,
                number=controls.n,
            )
            return await answer_once(backend, request, folder, as_json=as_json)

    try:
        is_complete = asyncio.run(answer())
    except MmgenError as error:
        if not as_json:
            raise
        is_complete = False
        tell_failure(error)
    if not is_complete:
        sys.exit(1)


def main() -> NoReturn:
    """Run the command and leave with its exit status."""
    from mmgen.cli.app import run_command

    run_command(chat, "mmgen-chat")
