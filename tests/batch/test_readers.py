from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mmgen.batch.places import expand_braces
from mmgen.batch.readers import FieldNames, Kind, keep_stdin, open_reader
from mmgen.batch.rows import BrokenRow, InputRow, Row
from mmgen.errors import DataError, MmgenError, SettingsError


def png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(buffer, format="PNG")
    return buffer.getvalue()


def read(source: Path | str, meaning: Any = "prompt", **options: Any) -> list[InputRow]:
    return list(open_reader(str(source), meaning=meaning, **options).rows())


def good(row: InputRow) -> Row:
    assert isinstance(row, Row), row
    return row


def broken(row: InputRow) -> str:
    assert isinstance(row, BrokenRow), row
    return row.reason


def looked_at(row: InputRow) -> bytes:
    picture = good(row).picture
    assert picture is not None
    return picture.read()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_text_is_prompts_or_paths(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfa red fox\r\n\n \n\xff\xfe\na bear\n")
    first, second, third = read(path)
    assert (good(first).id, good(first).fields) == ("0", {"prompt": "a red fox"})
    assert broken(second) == "line 4 of a.txt is not UTF-8"
    assert (good(third).id, good(third).fields["prompt"]) == ("2", "a bear")
    (tmp_path / "a red fox").write_bytes(png())
    assert looked_at(read(path, "picture")[0]) == png()


@pytest.mark.parametrize(("suffix", "separator"), [("csv", ","), ("tsv", "\t")])
def test_tables(tmp_path: Path, suffix: str, separator: str) -> None:
    path = tmp_path / f"a.{suffix}"
    lines = [["id", "prompt", "seed"], ["x", '"a ""red"" fox"', "3"], ["y", "bear", ""], ["z"]]
    path.write_text("\n".join(separator.join(cells) for cells in lines) + "\n")
    first, second, third = read(path)
    assert good(first).fields == {"prompt": 'a "red" fox', "seed": "3"}
    assert (good(second).id, good(second).fields) == ("y", {"prompt": "bear"})
    assert broken(third) == f"line 4 of a.{suffix} has 1 cells, expected 3"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("a,a,prompt\n", "two columns named 'a'"),
        ("a,b\n1,2\n", "no column 'prompt' or 'image'; its first line names a, b"),
        ('prompt\n"a\n', "unexpected end of data"),
    ],
)
def test_tables_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read(path)


def test_json_lines_keep_the_place_of_bad_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 5, "prompt": "a"}\n{"prompt\n[1]\n{"text": "b", "prompt": null}\n')
    first, second, third, fourth = read(path, names=FieldNames(prompt="text"))
    assert good(first).id == "5"
    assert "line 2 of a.jsonl is not JSON" in broken(second)
    assert broken(third) == "line 3 of a.jsonl is a list, expected an object"
    assert good(fourth).fields == {"prompt": "b"}


def test_json_is_a_list_of_objects(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"prompt": "a"}, 3]')
    first, second = read(path)
    assert good(first).fields == {"prompt": "a"}
    assert "item 2 of a.json is a int" in broken(second)
    path.write_text('{"prompt": "a"}')
    with pytest.raises(DataError, match="holds a dict, expected a list of objects"):
        read(path)
    path.write_text('[{"prompt"')
    with pytest.raises(DataError, match="is not JSON"):
        read(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_compressed_lines(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    data = b"".join(b'{"prompt": "%d"}\n' % number for number in range(5000))
    if suffix == ".gz":
        packed = gzip.compress(data)
    else:
        packed = bytes(pa.compress(data, codec="zstd", asbytes=True))
    path.write_bytes(packed)
    rows = read(path)
    assert len(rows) == 5000 and good(rows[-1]).fields == {"prompt": "4999"}
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DataError, match="damaged or cut short"):
        read(path)


@pytest.mark.parametrize("is_struct", [False, True])
def test_parquet_pictures_are_read_when_they_are_needed(tmp_path: Path, is_struct: bool) -> None:
    colours = ["red", "green", "blue", "white", "black"]
    cells: list[Any] = [png(colour) for colour in colours]
    if is_struct:
        cells = [{"bytes": cell, "path": None} for cell in cells]
    cells[3] = None
    table = pa.table({"id": list("abcde"), "image": cells, "temperature": [0.5] * 5})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=2)
    rows = read(path, "picture")
    assert [row.id for row in rows] == list("abcde")
    assert good(rows[4]).fields == {"temperature": 0.5}
    assert looked_at(rows[4]) == png("black") and looked_at(rows[0]) == png("red")
    with pytest.raises(DataError, match="column image has no picture"):
        looked_at(rows[3])


def test_parquet_that_is_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"prompt": ["a"] * 100}), path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read(path)
    pq.write_table(pa.table({"text": ["a"]}), path)
    with pytest.raises(DataError, match="no column 'prompt' or 'image'; its columns are text"):
        read(path)


def test_tars_by_braces(tmp_path: Path) -> None:
    for number in range(3):
        members = {
            f"x/{number}a.png": png("red"),
            f"x/{number}a.json": b'{"seed": 3}',
            f"x/{number}b.txt": b"a fox\n",
            f"x/{number}c.json": b"{",
        }
        write_tar(tmp_path / f"s-{number:03d}.tar", members)
    rows = read(tmp_path / "s-{000..002}.tar", "picture")
    assert [row.id for row in rows] == [f"x/{n}{k}" for n in range(3) for k in "abc"]
    assert good(rows[3]).fields == {"seed": 3} and looked_at(rows[3]) == png("red")
    assert good(rows[4]).fields == {"prompt": "a fox"} and good(rows[4]).picture is None
    assert "x/1c" in broken(rows[5]) and "is damaged" in broken(rows[5])


@pytest.mark.parametrize("cut", [100, 512, 600, 1024, 1100, 2000, 10_000])
def test_a_tar_that_is_cut_short(tmp_path: Path, cut: int) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": png(), "b.png": bytes(2000) + png()})
    data = path.read_bytes()
    assert len(data) == 10_240
    path.write_bytes(data[: len(data) - cut] if cut < 10_000 else data[:1])
    if cut < 5000:  # only the padding behind the two blocks of zeros is gone
        assert len(read(path, "picture")) == 2
    for size in (1500, 2048, 2500, 3000, 4000):
        path.write_bytes(data[:size])
        with pytest.raises(DataError, match=r"cut short|cannot be read as an uncompressed tar"):
            read(path, "picture")


def test_a_tar_whose_keys_are_scattered(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar", {"a.png": png(), "b.png": png(), "a.txt": b"x"})
    with pytest.raises(DataError, match="'a' in two places"):
        read(path, "picture")


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    for name in ("b.png", "deep/a.JPG", ".hidden.png", "notes.txt", "line\nbreak.png"):
        (tmp_path / "in" / name).write_bytes(png())
    rows = read(tmp_path / "in", "picture")
    assert [row.id for row in rows] == ["b.png", "deep/a.JPG", "line\nbreak.png"]
    assert "line break or a control character" in broken(rows[2])
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no pictures"):
        read(tmp_path / "none", "picture")


def test_links_that_lead_in_circles(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(png())
    (folder / "b.png").symlink_to("b.png")
    rows = read(folder, "picture")
    assert len(rows) == 2
    with pytest.raises(DataError, match=r"cannot read .*b.png: Too many levels"):
        looked_at(rows[1])
    (folder / "again").symlink_to(folder)
    with pytest.raises(DataError, match="reached by a symbolic link; remove the link"):
        read(folder, "picture")


def test_a_pattern_of_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("x/a/1.png", "x/b/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(png())
    assert [row.id for row in read(tmp_path / "x/*/*.png", "picture")] == ["a/1.png", "b/2.png"]
    assert [row.id for row in read(tmp_path / "x/b/2.png", "picture")] == ["2.png"]
    monkeypatch.chdir(tmp_path)
    assert [row.id for row in read("x/{a,b}/*.png", "picture")] == ["a/1.png", "b/2.png"]
    with pytest.raises(DataError, match=r"nothing matches x/\*.jpg"):
        read("x/*.jpg", "picture")


def test_a_data_set_saved_on_disk(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    data = datasets.Dataset.from_dict(
        {"image": [Image.new("RGB", (8, 8), "red")] * 3, "note": ["a", "b", "c"]}
    )
    data.save_to_disk(tmp_path / "one")
    rows = read(tmp_path / "one", "picture")
    assert len(rows) == 3 and good(rows[1]).fields == {"note": "b"}
    assert looked_at(rows[1]).startswith(b"\x89PNG")
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(tmp_path / "two")
    with pytest.raises(SettingsError, match="has the splits train, test; choose with --split"):
        read(tmp_path / "two", "picture")
    assert len(read(tmp_path / "two", "picture", split="test")) == 3
    with pytest.raises(SettingsError, match="no split 'dev'"):
        read(tmp_path / "two", "picture", split="dev")


def test_urls_through_fsspec() -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    memory.pipe("/in/a.jsonl", b'{"image": "b.png"}\n{"image": "none.png"}\n')
    memory.pipe("/in/b.png", png("blue"))
    first, second = read("memory://in/a.jsonl", "picture")
    assert looked_at(first) == png("blue")
    with pytest.raises(DataError, match=r"cannot read memory://in/none\.png"):
        looked_at(second)
    (row,) = read("memory://in/*.png", "picture")
    assert (row.id, looked_at(row)) == ("b.png", png("blue"))
    with pytest.raises(MmgenError, match="nope"):
        read("nope://x/a.txt")


def test_pictures_in_fields(tmp_path: Path) -> None:
    import base64

    path = tmp_path / "a.jsonl"
    values: list[Any] = [
        "data:image/png;base64," + base64.b64encode(png()).decode(),
        "data:image/png;base64,???",
        17,
        "/no/such.png",
    ]
    path.write_text("".join(json.dumps({"image": value}) + "\n" for value in values))
    rows = read(path, "picture")
    assert looked_at(rows[0]) == png()
    assert "damaged data URL" in broken(rows[1])
    assert "must be a path, a URL or the bytes of a picture, got int" in broken(rows[2])
    with pytest.raises(DataError, match=r"there is no file /no/such\.png"):
        looked_at(rows[3])


@pytest.mark.parametrize(
    ("id_", "message"),
    [
        ("a\nb", "line break"),
        ("../x", "leads out of its folder"),
        ("/etc/x", "leads out of its folder"),
        ("a/../../x", "leads out of its folder"),
        ("..\\x", "leads out of its folder"),
        ("x" * 600, "has 600 bytes; at most 512"),
        ("  ", "the id is empty"),
        ("a\0b", "control character"),
    ],
)
def test_ids_that_could_do_harm(tmp_path: Path, id_: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": id_, "prompt": "x"}) + "\n")
    (row,) = read(path)
    assert message in broken(row)


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        ("a.xyz", None, "does not say what it holds; end it in .txt"),
        ("a.{txt,jsonl}", None, "mixes jsonl and txt"),
        ("a.parquet.gz", None, "is compressed; unpack it first"),
        ("none.txt", None, "there is no file"),
        ("a.txt", "folder", "is no folder, which is not read as folder"),
        ("a{1..", None, "braces"),
        ("{5..1}.txt", None, r"counts down; write {1..5}"),
        ("{0..99999999}.txt", None, "names more than"),
    ],
)
def test_inputs_that_make_no_sense(
    tmp_path: Path, source: str, kind: Kind | None, message: str
) -> None:
    for name in ("a.xyz", "a.txt", "a.jsonl", "a.parquet.gz"):
        (tmp_path / name).write_text("x\n")
    with pytest.raises(MmgenError, match=message):
        read(tmp_path / source, kind=kind)


def test_braces_count_with_zeros() -> None:
    assert expand_braces("a{08..11}b{x,y}") == [
        f"a{n}b{c}" for n in ("08", "09", "10", "11") for c in "xy"
    ]
    assert expand_braces("plain") == ["plain"]


def test_standard_input_is_kept_for_later(tmp_path: Path) -> None:
    lines = keep_stdin(tmp_path / "a", io.BytesIO(b'{"prompt": "x"}\n'))
    assert lines == str(tmp_path / "a" / "stdin.jsonl")
    assert keep_stdin(tmp_path / "a", io.BytesIO(b"other")) == lines
    assert keep_stdin(tmp_path / "b", io.BytesIO(b"a fox\n")).endswith("stdin.txt")
    assert keep_stdin(tmp_path / "c", io.BytesIO(b' [{"prompt": "x"}]')).endswith("stdin.json")
    with pytest.raises(DataError, match="standard input is empty"):
        keep_stdin(tmp_path / "d", io.BytesIO(b" \n"))
    assert not os.path.exists(tmp_path / "d")  # noqa: PTH110
