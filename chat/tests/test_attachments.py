from __future__ import annotations

import asyncio
import io
import os
import sys
from pathlib import Path

import pytest
from chat_objects import png
from PIL import Image

from mmgen.errors import PictureError
from mmgen_chat.attachments import (
    attach,
    attach_bytes,
    attach_clipboard,
    attach_file,
    attach_url,
    dropped_paths,
    named_files,
    words_in,
)
from mmgen_chat.errors import AttachmentError


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "my pictures"
    folder.mkdir()
    paths = [folder / name for name in ("sea.png", "it's a fox.png", "ä[1].png")]
    for path in paths:
        path.write_bytes(png())
    return paths


def test_a_file_becomes_a_plain_picture(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "blue").save(path, exif=exif)
    attached = attach_file(path)
    assert attached.notice is None
    assert attached.picture.source == "photo.jpg"
    assert attached.picture.size == (40, 20), "it was lying on its side"
    assert attached.picture.png is not None and b"taken at home" not in attached.picture.png
    assert not attached.picture.is_drawn


def test_a_large_photograph_is_reduced_and_a_huge_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    Image.new("L", (8660, 5773), 200).save(path)
    attached = attach_file(path)
    assert attached.picture.size == (1365, 2048)
    assert attached.notice == "large.png was reduced from 8660x5773 to 2048x1365 pixels"
    huge = tmp_path / "huge.png"
    Image.new("1", (9000, 9000)).save(huge)
    with pytest.raises(PictureError, match="81,000,000 pixels; at most 64,000,000"):
        attach_file(huge)


def test_what_gives_no_picture(tmp_path: Path) -> None:
    (tmp_path / "notes.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    (tmp_path / "cut.png").write_bytes(png(200, 200)[:90])
    os.mkfifo(tmp_path / "pipe.png")
    with (tmp_path / "vast.png").open("wb") as file:
        file.truncate((1 << 27) + 1)
    for name, message in {
        "absent.png": "there is no file",
        "notes.png": "not a picture",
        "empty.png": "empty",
        "cut.png": "damaged or cut short",
        "pipe.png": "a device or a pipe",
        "vast.png": "at most 134,217,728",
        ".": "is a folder",
    }.items():
        with pytest.raises((AttachmentError, PictureError), match=message):
            attach_file(tmp_path / name)
    with pytest.raises(PictureError, match="not a picture"):
        attach_bytes(b"no picture", "clipboard")


def test_dropped_files_in_every_form(pictures: list[Path]) -> None:
    sea, fox, umlaut = map(str, pictures)
    escaped = sea.replace(" ", "\\ ")
    for text, found in {
        sea: [sea],
        f" {sea} \n": [sea],
        f"'{sea}'": [sea],
        f'"{fox}"': [fox],
        escaped: [sea],
        fox.replace(" ", "\\ ").replace("'", "\\'"): [fox],
        f"{escaped} '{umlaut}' \"{fox}\"": [sea, umlaut, fox],
        f"{sea}\n{fox}\n": [sea, fox],
        Path(sea).as_uri(): [sea],
        f"{Path(umlaut).as_uri()}\r\n{Path(fox).as_uri()}": [umlaut, fox],
        f"file://localhost{sea.replace(' ', '%20')}": [sea],
    }.items():
        assert dropped_paths(text) == tuple(map(Path, found)), text


def test_text_is_not_taken_for_files(pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures[0].parent)
    for text in (
        "",
        "draw a red apple",
        "sea.png",
        "it's fine",
        f"look at {pictures[0]}",
        f"'{pictures[0]}",
        "/no/such/file.png",
        str(pictures[0].parent),
        "file://elsewhere/sea.png",
        "a" * 5000,
        "\0",
    ):
        assert dropped_paths(text) == ()


def test_files_named_in_what_is_said(pictures: list[Path]) -> None:
    sea, fox, umlaut = pictures
    folder = sea.parent
    for text, rest, found in [
        ("what is @sea.png", "what is", [sea]),
        ("@sea.png draw it in blue", "draw it in blue", [sea]),
        ('is @"it\'s a fox.png" like\n@ä[1].png?', "is like\n@ä[1].png?", [fox]),
        (f"@{umlaut.name} and @sea.png", "and", [umlaut, sea]),
        (f'@"{sea}"', "", [sea]),
    ]:
        assert named_files(text, folder) == (rest, tuple(found)), text
    for text in ("", "write to me@sea.png", "ask @sea about it", "@", '@""', "@../nothing.png"):
        assert named_files(text, folder) == (text, ()), text


def test_words_of_a_command(pictures: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pictures[0].parent)
    assert words_in("sea.png 'my fox.png'") == ["sea.png", "my fox.png"]
    assert words_in("it's a fox.png") == ["it's a fox.png"]
    with pytest.raises(AttachmentError, match="not closed"):
        words_in("it's gone.png")
    assert asyncio.run(attach("sea.png")).picture.source == "sea.png"
    uri = pictures[2].as_uri()
    assert asyncio.run(attach(uri)).picture.source == "ä[1].png"


@pytest.mark.skipif(sys.platform != "linux", reason="the tools are those of Linux")
def test_the_clipboard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(AttachmentError, match="xclip"):
        attach_clipboard()
    buffer = io.BytesIO()
    Image.new("RGB", (3, 2), "green").save(buffer, format="PNG")
    (tmp_path / "copied.png").write_bytes(buffer.getvalue())
    tool = tmp_path / "xclip"
    tool.write_text(f"#!/bin/sh\nexec /bin/cat '{tmp_path}/copied.png'\n")
    tool.chmod(0o755)
    [attached] = attach_clipboard()
    assert attached.picture.size == (2, 3)
    assert attached.picture.source == "clipboard"
    tool.write_text("#!/bin/sh\necho 'target image/png not available' >&2\nexit 1\n")
    with pytest.raises(AttachmentError, match="clipboard"):
        attach_clipboard()


def test_addresses_are_off_unless_allowed() -> None:
    with pytest.raises(AttachmentError, match=r"not fetched from example\.org.*allowed_hosts"):
        asyncio.run(attach("https://example.org/a.png"))
    for url in ("http://localhost/a.png", "http://localhost:22/a.png"):
        with pytest.raises(AttachmentError, match="download it"):
            asyncio.run(attach_url(url, allowed_hosts=frozenset({"localhost"})))
