"""Folders, JSON lines and tars: rows, captions, and errors that stay with their row."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from mmgen.data.files import FolderSource, JsonlSource, WebDatasetSource
from mmgen.errors import DataError
from mmgen.pictures import open_picture


def png(level: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (level, 0, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_folder_pairs_pictures_with_captions(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.png").write_bytes(png(1))
    (tmp_path / "b.txt").write_text("A thing.\n\n The same thing. \n")
    (tmp_path / "sub" / "a.JPG").write_bytes(png(2))
    (tmp_path / "sub" / "a.txt").write_text("Another.")
    (tmp_path / "c.webp").write_bytes(png(3))
    (tmp_path / "notes.md").write_text("no picture")
    source = FolderSource(tmp_path, constants={"style": "photo"})
    assert source.num_rows == 3
    assert source.row(0).captions == ("A thing.", "The same thing.")
    assert source.row(0).attributes == source.attributes(0) == {"style": "photo"}
    with pytest.raises(DataError, match=r"c\.webp has no caption; write one into c\.txt"):
        source.row(1)
    assert source.row(2).id == "sub/a.JPG"
    assert isinstance(source.row(2).picture, Path)


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no pictures"):
        FolderSource(tmp_path)
    with pytest.raises(DataError, match="no folder"):
        FolderSource(tmp_path / "none")


def test_a_caption_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(1))
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match="cannot read the caption"):
        FolderSource(tmp_path).row(0)


def test_json_lines(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(9))
    lines = [
        {"id": "one", "image": "a.png", "caption": ["First.", "Second."], "label": "cup"},
        {"image": "gone.png", "caption": "Third."},
        {"caption": "No picture."},
    ]
    path = tmp_path / "rows.jsonl"
    text = "\n".join(json.dumps(line) for line in lines)
    path.write_text(f"{text}\n\n{{broken\n[1]\n")
    source = JsonlSource(path, attributes={"name": "label"}, constants={"kind": "thing"})
    assert source.num_rows == 5
    row = source.row(0)
    assert (row.id, row.captions) == ("one", ("First.", "Second."))
    assert row.attributes == source.attributes(0) == {"name": "cup", "kind": "thing"}
    assert isinstance(row.picture, Path)
    assert open_picture(row.picture).getpixel((0, 0)) == (9, 0, 0)
    assert source.row(1).id == "1"
    for index, message in ((2, "line 3 .*no image"), (3, "line 4 .*not JSON"), (4, "JSON object")):
        with pytest.raises(DataError, match=message):
            source.row(index)
    assert source.attributes(3) == {}


def test_missing_json_lines(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        JsonlSource(tmp_path / "rows.jsonl")


def write_tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def test_webdataset_groups_members_by_key(tmp_path: Path) -> None:
    first = write_tar(
        tmp_path / "0.tar",
        {
            "x/one.png": png(1),
            "x/one.txt": b"One.\nUno.",
            "x/two.json": json.dumps({"caption": "Two.", "label": "cup"}).encode(),
            "x/two.jpg": png(2),
        },
    )
    second = write_tar(tmp_path / "1.tar", {"three.txt": b"Three.", "x/one.png": png(3)})
    source = WebDatasetSource([first, second], attributes={"name": "label"})
    assert source.num_rows == 4
    assert source.row(0).captions == ("One.", "Uno.")
    assert source.row(0).picture == png(1)
    assert source.row(1).captions == ("Two.",)
    assert source.row(1).attributes == {"name": "cup"}
    with pytest.raises(DataError, match=r"three in .*1\.tar has no picture, only txt"):
        source.row(2)
    assert source.row(3).picture == png(3)


def test_webdataset_refuses_other_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file"):
        WebDatasetSource([tmp_path / "none.tar"])
    packed = write_tar(tmp_path / "packed.tar", {"a.png": png(1)}, "w:gz")
    with pytest.raises(DataError, match="uncompressed"):
        WebDatasetSource([packed])
    empty = write_tar(tmp_path / "empty.tar", {})
    with pytest.raises(DataError, match="hold no files"):
        WebDatasetSource([empty])


def test_webdataset_notices_a_tar_cut_short(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"a.png": png(1), "a.txt": b"A."})
    source = WebDatasetSource([path])
    path.write_bytes(path.read_bytes()[:520])
    with pytest.raises(DataError, match="cut short"):
        source.row(0)
