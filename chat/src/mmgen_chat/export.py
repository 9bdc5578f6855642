"""A conversation as files to read and to pass on: Markdown with pictures beside it, or one page.

The branch that is being looked at is exported. Whatever was said stays text: no HTML of a model's
or a user's is alive in either form, and nothing in them is loaded from elsewhere.
"""

from __future__ import annotations

import base64
import html
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from markdown_it import MarkdownIt

from mmgen.errors import OutputError, SettingsError
from mmgen.pictures import atomic_file
from mmgen_chat.conversation import Conversation, Picture, Turn, Words
from mmgen_chat.safe_text import one_line, printable

__all__ = ["KINDS", "export", "to_html", "to_markdown"]

_WHO = {"user": "You", "assistant": "mmgen"}
_ESCAPED = re.compile(r"([\\`*_{}\[\]()#+\-.!|~<>&])")

_PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" \
content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 16px/1.5 system-ui, sans-serif; }}
body {{ max-width: 44rem; margin: 2rem auto; padding: 0 1rem; }}
article {{ margin: 1.5rem 0; padding-left: 1rem; border-left: 3px solid #8886; }}
article.user {{ border-color: #38c; }}
h2 {{ font-size: .9rem; margin: 0; opacity: .7; }}
.words {{ white-space: pre-wrap; overflow-wrap: anywhere; }}
figure {{ margin: 1rem 0; }}
img {{ min-width: min(16rem, 100%); max-width: 100%; image-rendering: pixelated; }}
figcaption, .note, footer {{ font-size: .85rem; opacity: .75; }}
pre {{ overflow-x: auto; }}
</style>
</head>
<body>
<h1>{title}</h1>
{turns}
<footer>{footer}</footer>
</body>
</html>
"""


def export(conversation: Conversation, kind: str, target: Path | None = None) -> Path:
    """Write a conversation to files; return the path of the main one.

    Args:
        kind: `md` or `html`.
        target: a file that is not there yet, or a folder; the current folder without. In a folder
            the next free name is taken.

    Raises:
        SettingsError: there is no such kind.
        OutputError: nothing can be written there, or something is there already.
    """
    if kind not in KINDS:
        raise SettingsError(f"conversations are exported as {' or '.join(KINDS)}, got {kind!r}")
    path = _path(conversation, kind, target)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot write into {path.parent}: {error.strerror}") from error
    KINDS[kind](conversation, path)
    return path


def to_markdown(conversation: Conversation, place_of: Callable[[Picture], str]) -> str:
    """Return the current branch as Markdown.

    Args:
        place_of: the address of each picture, relative to the file.
    """
    parts = [f"# {_plain(conversation.title or 'Conversation')}"]
    for turn in conversation.path():
        parts.append(f"## {_WHO[turn.role]}")
        for item in turn.segments:
            if isinstance(item, Words):
                text = printable(item.text).strip()
                parts.append(_plain(text) if turn.role == "user" else _inert(text))
            elif item.png is None:
                parts.append(f"*({_plain(_alt(item))}: not rendered)*")
            else:
                parts.append(f"![{_plain(_alt(item))}]({place_of(item)})")
                parts.append(f"*{_plain(_caption(item))}*")
        parts += [f"*{_plain(note)}*" for note in _notes(conversation, turn)]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_html(conversation: Conversation) -> str:
    """Return the current branch as one page, pictures included."""
    # Without HTML of its own; pictures of elsewhere would tell who reads the page.
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    turns = []
    for turn in conversation.path():
        parts = [f"<h2>{_WHO[turn.role]}</h2>"]
        for item in turn.segments:
            if isinstance(item, Picture):
                parts.append(_figure(item))
            elif turn.role == "user":
                text = html.escape(printable(item.text).strip())
                parts.append(f'<p class="words">{text}</p>' if text else "")
            else:
                parts.append(renderer.render(printable(item.text)).strip())
        parts += [f'<p class="note">{html.escape(note)}</p>' for note in _notes(conversation, turn)]
        body = "\n".join(part for part in parts if part)
        turns.append(f'<article class="{turn.role}">\n{body}\n</article>')
    return _PAGE.format(
        title=html.escape(one_line(conversation.title) or "Conversation"),
        turns="\n".join(turns),
        footer=f"A conversation with mmgen, begun {conversation.created:%Y-%m-%d %H:%M} UTC",
    )


def _write_markdown(conversation: Conversation, path: Path) -> None:
    folder = path.with_name(_folder_name(path))
    pictures = [
        item for turn in conversation.path() for item in turn.pictures if item.png is not None
    ]
    names: dict[str, str] = {}
    for picture in pictures:
        if picture.id not in names:
            names[picture.id] = f"{len(names) + 1:03d}-{_slug(_subject(picture), 'picture')}.png"
    if names:
        try:
            folder.mkdir()
        except OSError as error:
            raise OutputError(f"cannot make {folder}: {error.strerror}") from error
    for picture in {item.id: item for item in pictures}.values():
        assert picture.png is not None
        with atomic_file(folder / names[picture.id]) as partial:
            partial.write_bytes(picture.png)
    place = folder.name.replace(" ", "%20")
    text = to_markdown(conversation, lambda picture: f"<{place}/{names[picture.id]}>")
    with atomic_file(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def _write_html(conversation: Conversation, path: Path) -> None:
    with atomic_file(path) as partial:
        partial.write_text(to_html(conversation), encoding="utf-8", errors="replace")


KINDS: Mapping[str, Callable[[Conversation, Path], None]] = {
    "md": _write_markdown,
    "html": _write_html,
}
"""What a conversation can be exported as, by the ending of the file."""


def _path(conversation: Conversation, kind: str, target: Path | None) -> Path:
    if target is not None and target.suffix and not target.is_dir():
        if target.suffix != f".{kind}":
            raise OutputError(f"{target} does not end in .{kind}; change one of the two")
        for path in (target, target.with_name(_folder_name(target))):
            if path.exists() and (path == target or kind == "md"):
                raise OutputError(f"{path} is there already; choose another name")
        return target
    place = target or Path()
    stem = _slug(conversation.title, "conversation")
    number = 1
    while True:
        path = place / (f"{stem}.{kind}" if number == 1 else f"{stem}-{number}.{kind}")
        if not path.exists() and not path.with_name(_folder_name(path)).exists():
            return path
        number += 1


def _folder_name(path: Path) -> str:
    return f"{path.stem}-pictures"


def _slug(text: str, otherwise: str) -> str:
    return re.sub(r"[\W_]+", "-", text.lower()).strip("-")[:40].rstrip("-") or otherwise


def _subject(picture: Picture) -> str:
    return picture.drawing.prompt if picture.drawing else Path(picture.source or "").stem


def _alt(picture: Picture) -> str:
    return one_line(picture.alt or _subject(picture) or "a picture")


def _caption(picture: Picture) -> str:
    """Return how a picture came to be, on one line."""
    drawing = picture.drawing
    if drawing is None:
        return one_line(f"shown: {picture.source or 'a picture'}")
    parts = [f"“{drawing.prompt}”", drawing.model]
    if drawing.seed is not None:
        parts.append(f"seed {drawing.seed}")
    if drawing.num_done is not None and not drawing.is_complete:
        parts.append(f"unfinished: {drawing.num_done} of {drawing.num_codes or 'its'} tokens")
    elif drawing.num_codes is not None:
        parts.append(f"{drawing.num_codes} tokens")
    if drawing.seconds is not None:
        parts.append(f"{drawing.seconds:.1f} s")
    if drawing.guidance is not None:
        parts.append(drawing.guidance)
    return one_line(" · ".join(parts))


def _notes(conversation: Conversation, turn: Turn) -> list[str]:
    notes = []
    if turn.state == "stopped":
        notes.append("stopped")
    elif turn.state != "complete":
        notes.append(one_line(f"broke off: {turn.failure or 'not finished yet'}"))
    num_versions = len(conversation.siblings(turn.id))
    if num_versions > 1:
        notes.append(f"one of {num_versions} versions of this turn")
    return notes


def _figure(picture: Picture) -> str:
    caption = html.escape(_caption(picture))
    if picture.png is None:
        return f"<figure><figcaption>{caption} (not rendered)</figcaption></figure>"
    data = base64.b64encode(picture.png).decode("ascii")
    return (
        f'<figure><img src="data:image/png;base64,{data}" alt="{html.escape(_alt(picture))}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _plain(text: str) -> str:
    """Return text that Markdown shows as it stands; its lines stay lines."""
    escaped = _ESCAPED.sub(r"\\\1", text)
    return re.sub(r"\n(?=[^\n])", "\\\\\n", re.sub(r"(?m)^[ \t]+", "", escaped))


def _inert(text: str) -> str:
    """Return a model's Markdown without live HTML, and without pictures from elsewhere."""
    tokens = MarkdownIt("commonmark").parse(text)
    kinds = {token.type for token in tokens}
    kinds |= {child.type for token in tokens for child in token.children or ()}
    if kinds & {"html_block", "html_inline"}:
        text = text.replace("<", "&lt;")
    return text.replace("![", "!\\[") if "image" in kinds else text
