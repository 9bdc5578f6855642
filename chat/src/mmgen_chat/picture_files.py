"""Pictures out of the chat: into a file, into the clipboard, into the system's viewer."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from mmgen.errors import OutputError
from mmgen_chat.conversation import Picture

__all__ = ["carry_out", "copy_picture", "file_name", "open_in_viewer", "save_picture"]

_COPIERS = (
    ("wl-copy", ("wl-copy", "--type", "image/png")),
    ("xclip", ("xclip", "-selection", "clipboard", "-target", "image/png", "-in")),
)
_VIEWERS = {"darwin": "open", "win32": "explorer"}


async def carry_out(picture: Picture, what: str, target: Path | None = None) -> str:
    """Save, copy or open a picture; return what came of it in words.

    Args:
        target: the file or folder to save into.

    Raises:
        OutputError: it cannot be done.
    """
    match what:
        case "save":
            return f"saved as {await asyncio.to_thread(save_picture, picture, target)}"
        case "copy":
            await copy_picture(picture)
            return "copied"
        case _:
            assert what == "open", what
            return f"opened {await asyncio.to_thread(open_in_viewer, picture)}"


def file_name(picture: Picture) -> str:
    """Return a name for a picture's file, made from what was asked for."""
    words = picture.drawing.prompt if picture.drawing else Path(picture.source or "").stem
    slug = re.sub(r"[\W_]+", "-", words.lower()).strip("-")[:40].rstrip("-")
    return f"{slug or 'picture'}.png"


def save_picture(picture: Picture, target: Path | None = None) -> Path:
    """Write a picture; return its path.

    Args:
        target: a file to be written, or a folder; the current folder without. In a folder no
            file is overwritten.

    Raises:
        OutputError: there is nothing to write, or it cannot be written.
    """
    data = _data(picture)
    place = target or Path()
    if target is not None and not target.is_dir() and target.suffix:
        if target.suffix.lower() != ".png":
            raise OutputError(f"pictures are written as PNG, got {target}; end it in .png")
        path = target
    else:
        path = place / file_name(picture)
        number = 1
        while path.exists():
            number += 1
            path = place / f"{Path(file_name(picture)).stem}-{number}.png"
    partial = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}") from error
    return path


async def copy_picture(picture: Picture) -> None:
    """Put a picture into the clipboard of the desktop.

    Raises:
        OutputError: there is no program for it here, or it failed.
    """
    data = _data(picture)
    for program, command in _COPIERS:
        if shutil.which(program) is None:
            continue
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await process.communicate(data)
        if process.returncode == 0:
            return
    raise OutputError(
        "no program here can put a picture into the clipboard (wl-copy or xclip with a running "
        "desktop); save it instead"
    )


def open_in_viewer(picture: Picture) -> Path:
    """Show a picture with the system's viewer; return the file that it shows.

    Raises:
        OutputError: there is no viewer here.
    """
    program = _VIEWERS.get(sys.platform, "xdg-open")
    path = Path(tempfile.mkdtemp(prefix="mmgen-")) / file_name(picture)
    save_picture(picture, path)
    if shutil.which(program) is None:
        raise OutputError(f"there is no {program} here to open it with; it was saved as {path}")
    subprocess.Popen(
        [program, str(path)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    return path


def _data(picture: Picture) -> bytes:
    if picture.png is None:
        raise OutputError("this picture is not drawn yet; wait for it, or draw it again")
    return picture.png
