"""Pictures that a user shows: from files, pasted or dropped paths, the clipboard, an address.

Whatever is attached becomes upright RGB in a PNG of moderate size without the metadata of the
original, so a photograph does not carry its place and time into a database or to a server.
"""

from __future__ import annotations

import asyncio
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from PIL import Image, ImageGrab

from mmgen.errors import MmgenError
from mmgen.pictures import PictureSource, open_picture, png_bytes
from mmgen_chat.conversation import Picture
from mmgen_chat.errors import AttachmentError

__all__ = [
    "Attached",
    "attach",
    "attach_bytes",
    "attach_clipboard",
    "attach_file",
    "attach_url",
    "dropped_paths",
    "is_address",
    "named_files",
    "words_in",
]

MAX_FILE_BYTES = 1 << 27
"""Largest file that is opened."""

MAX_SIDE = 2048
"""Longest side of a picture that is kept, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attached:
    """A picture that can be sent."""

    picture: Picture
    notice: str | None = None
    """What was done to it that its owner should know."""


async def attach(word: str, *, allowed_hosts: frozenset[str] = frozenset()) -> Attached:
    """Attach what a word names: a path, a file URL or an address. Call `words_in` for several.

    Raises:
        MmgenError: it gives no picture.
    """
    if is_address(word):
        return await attach_url(word, allowed_hosts=allowed_hosts)
    return await asyncio.to_thread(attach_file, _path(word))


def attach_file(path: Path) -> Attached:
    """Attach a picture file.

    Raises:
        AttachmentError: it is no file, or too large.
        PictureError: it holds no usable picture.
    """
    path = path.expanduser()
    try:
        if path.is_dir():
            raise AttachmentError(f"{path} is a folder; name the pictures in it")
        if path.exists() and not path.is_file():
            raise AttachmentError(f"{path} is a device or a pipe, not a picture file")
        size = path.stat().st_size if path.exists() else 0
    except OSError as error:
        raise AttachmentError(f"cannot read {path}: {error.strerror}") from error
    if size > MAX_FILE_BYTES:
        raise AttachmentError(
            f"{path} has {size:,} bytes; at most {MAX_FILE_BYTES:,} are read, so make it smaller"
        )
    return _attached(path, path.name)


def attach_bytes(data: bytes, source: str) -> Attached:
    """Attach the bytes of a picture file.

    Args:
        source: where they came from, in a word or two.
    """
    return _attached(data, source)


def attach_clipboard() -> list[Attached]:
    """Attach the picture, or the picture files, in the clipboard.

    Raises:
        AttachmentError: there is none, or the clipboard cannot be reached.
    """
    try:
        found = ImageGrab.grabclipboard()
    except NotImplementedError as error:
        raise AttachmentError(
            "the clipboard cannot be reached from here; install wl-clipboard (Wayland) or xclip "
            "(X11), or attach a file"
        ) from error
    except (OSError, ChildProcessError, ValueError) as error:
        # Pillow passes on what the tool said, which may be that the clipboard holds only text.
        raise AttachmentError(
            f"the clipboard gives no picture: {_first_line(error)}; copy one, or attach a file"
        ) from error
    if found is None or (isinstance(found, list) and not found):
        raise AttachmentError("there is no picture in the clipboard; copy one, or attach a file")
    if isinstance(found, list):
        return [attach_file(Path(name)) for name in found]
    return [_attached(found, "clipboard")]


async def attach_url(url: str, *, allowed_hosts: frozenset[str]) -> Attached:
    """Attach the picture at an address, by the rules that the server has for them.

    Only http and https, only hosts that the settings name, never an address that is not public.

    Raises:
        AttachmentError: it may not be fetched, or nothing usable came.
    """
    host = (urlsplit(url).hostname or "").lower()
    if host not in allowed_hosts:
        raise AttachmentError(
            f"pictures are not fetched from {host or url}; download it and attach the file, or "
            "add the host to allowed_hosts in the settings"
        )
    try:
        from mmgen.serve.fetching import Fetcher
        from mmgen.serve.settings import Limits
    except ImportError as error:
        raise AttachmentError(
            f"fetching pictures needs the package {error.name}; pip install 'mmgen[serve]'"
        ) from error
    try:
        data = await Fetcher(allowed_hosts, Limits()).fetch(url, url)
    except MmgenError as error:
        # The server's advice is for its clients.
        raise AttachmentError(
            f"{str(error).partition(';')[0]}; download it and attach the file"
        ) from error
    name = unquote(urlsplit(url).path.rpartition("/")[2])
    return await asyncio.to_thread(_attached, data, name or host)


def is_address(word: str) -> bool:
    """Return whether a word is an address on the web."""
    return re.match(r"https?://", word, re.IGNORECASE) is not None


def words_in(text: str) -> list[str]:
    """Return the paths and addresses of a line: quotes and backslashes keep blanks in a word.

    Raises:
        AttachmentError: a quote is not closed.
    """
    if _is_file(text.strip()):
        return [text.strip()]
    try:
        return shlex.split(text, comments=False)
    except ValueError:
        # An apostrophe in a name that nobody quoted.
        words = text.split()
        if all(_is_file(word) for word in words):
            return words
        raise AttachmentError(
            f"a quote is not closed in {text.strip()!r}; put the path in double quotes"
        ) from None


def dropped_paths(text: str) -> tuple[Path, ...]:
    """Return the files that pasted text names, as terminals paste files dropped on them.

    Paths may be quoted, escaped, file URLs, one per line or several on one. The result is empty
    unless all of the text is paths of files that are there, since then it is just text.
    """
    paths: list[Path] = []
    for line in text.replace("\0", "\n").splitlines():
        line = line.strip()
        if not line:
            continue
        try:
            found = [_path(word) for word in words_in(line)]
        except (AttachmentError, RuntimeError):
            return ()
        # A lone word that happens to be a file's name is a word; what is dropped has a folder.
        if not all(path.is_absolute() and _is_file(str(path)) for path in found):
            return ()
        paths += found
    return tuple(paths)


def named_files(text: str, folder: Path) -> tuple[str, tuple[Path, ...]]:
    """Return a text without its words `@FILE`, and the files that they name.

    Args:
        folder: where relative paths begin. What names no file there is a word like others.
    """
    found: list[Path] = []

    def taken(match: re.Match[str]) -> str:
        word = match["quoted"] or match["plain"]
        if not _is_file(str(folder / Path(word).expanduser())):
            return match[0]
        found.append(folder / Path(word).expanduser())
        return ""

    rest = re.sub(r"(?:^|(?<=\s))@(?:\"(?P<quoted>[^\"]+)\"|(?P<plain>\S+))[ \t]?", taken, text)
    return (rest.strip() if found else text), tuple(found)


def _path(word: str) -> Path:
    """Return the path of a word, which may be a file URL."""
    if word.lower().startswith("file:"):
        parts = urlsplit(word)
        if parts.hostname not in (None, "localhost"):
            raise AttachmentError(f"{word} is on another machine; attach a file of this one")
        return Path(unquote(parts.path))
    return Path(word).expanduser()


def _is_file(word: str) -> bool:
    try:
        return bool(word) and "\n" not in word and _path(word).is_file()
    except (OSError, ValueError, RuntimeError, AttachmentError):
        return False


def _attached(source: PictureSource, name: str) -> Attached:
    picture = open_picture(source)
    notice = None
    if max(picture.size) > MAX_SIDE:
        before = f"{picture.width}x{picture.height}"
        picture.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
        notice = f"{name} was reduced from {before} to {picture.width}x{picture.height} pixels"
    png = png_bytes(picture)
    return Attached(
        picture=Picture(png=png, size=(picture.height, picture.width), source=name),
        notice=notice,
    )


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
