"""Preparation: flags, refusals, and the same bytes whether it was killed or not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmgen.data.augment import Augmentation
from mmgen.data.mixing import Mixing
from mmgen.data.prepare import PrepareConfig, Progress, flags_of, prepare
from mmgen.data.shapes import ShapesSource
from mmgen.data.shards import CONDITION, IMAGE, LOSS, Manifest, ShardFolder
from mmgen.data.sources import AbstractSource, ParquetSource, Row, Share
from mmgen.data.texts import TextSource
from mmgen.document import Document, DocumentCodec, Image, Text, Turn
from mmgen.errors import DataError, OutputError, SettingsError
from mmgen.visual_tokenizer import Codes

CONFIG = PrepareConfig(num_draw=1, num_describe=1, num_mixed=1, rows_per_shard=8, batch_size=10)


def shapes(count: int = 20) -> ShapesSource:
    return ShapesSource(1, count, picture_size=32)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_flags(codec: DocumentCodec) -> None:
    layout = codec.vocabulary.tokenizer("palette").layouts[0]
    codes = Codes(np.arange(16)[:, np.newaxis], layout)
    image = Image(codes=codes, tokenizer="palette")
    document = Document(
        turns=(
            Turn("user", (Text("ab"),)),
            Turn("assistant", (image, Text("c"))),
            Turn("user", (Text("d"),)),
            Turn("assistant", (Text("e"),)),
        )
    )
    flags = flags_of(codec.encode(document)).tolist()
    first = [0, 0, CONDITION, CONDITION, 0, 0]
    picture = [LOSS, *[LOSS | IMAGE] * 16, LOSS]
    assert flags == [*first, *picture, LOSS, LOSS, 0, 0, 0, 0, LOSS, LOSS, 0]


def test_flags_without_turns_and_of_shown_pictures(codec: DocumentCodec) -> None:
    plain = codec.encode(Document(segments=(Text("abc"),)))
    assert flags_of(plain).tolist() == [0, LOSS, LOSS, LOSS, LOSS]
    layout = codec.vocabulary.tokenizer("palette").layouts[0]
    image = Image(codes=Codes(np.zeros((16, 1), np.int64), layout), tokenizer="palette")
    shown = Document(turns=(Turn("user", (image, Text("?"))), Turn("assistant", (Text("a"),))))
    flags = flags_of(codec.encode(shown))
    assert not (flags & CONDITION).any()
    assert (flags & IMAGE).sum() == 16 * IMAGE
    assert (flags & LOSS).sum() == 2


def test_every_row_gives_every_document(codec: DocumentCodec, tmp_path: Path) -> None:
    seen: list[Progress] = []
    manifest = prepare(CONFIG, shapes(), codec, tmp_path, on_progress=seen.append)
    assert manifest == Manifest.read(tmp_path)
    assert manifest.is_complete and not manifest.refused
    assert [shard.stop for shard in manifest.shards] == [8, 16, 20]
    folder = ShardFolder(tmp_path, fingerprint=codec.vocabulary.fingerprint)
    made = [
        (folder.sample(index).row, folder.sample(index).variant) for index in range(len(folder))
    ]
    assert made == [(f"shapes/1/{row}", variant) for row in range(20) for variant in range(3)]
    assert seen[-1] == Progress(num_rows_done=20, num_rows=20, num_documents=60, num_refused=0)
    assert [item.num_rows_done for item in seen] == sorted(item.num_rows_done for item in seen)


def test_documents_decode_and_show_the_row(codec: DocumentCodec, tmp_path: Path) -> None:
    prepare(CONFIG, shapes(), codec, tmp_path)
    folder = ShardFolder(tmp_path)
    palette = codec.visual_tokenizers["palette"]
    source = shapes()
    for index in range(0, len(folder), 3):
        document = codec.decode(folder.sample(index).ids.tolist())
        (image,) = [
            item for turn in document.turns for item in turn.segments if isinstance(item, Image)
        ]
        picture = source.row(index // 3).picture
        assert picture is not None
        (expected,) = codec.encode_images([picture], "palette")
        assert image.codes == expected
        assert palette.decode([expected])


def test_documents_that_only_name_come_after_all_others(
    codec: DocumentCodec, tmp_path: Path
) -> None:
    prepare(CONFIG, shapes(), codec, tmp_path / "plain")
    prepare(replace(CONFIG, num_name=2), shapes(), codec, tmp_path / "named")
    plain, named = (
        [folder.sample(index) for index in range(len(folder))]
        for folder in (ShardFolder(tmp_path / "plain"), ShardFolder(tmp_path / "named"))
    )
    assert [item.variant for item in named] == list(range(5)) * 20
    others = [item for item in named if item.variant < 3]
    for one, two in zip(plain, others, strict=True):
        assert (one.row, one.variant) == (two.row, two.variant)
        assert np.array_equal(one.ids, two.ids) and np.array_equal(one.flags, two.flags)
    for item in named:
        if item.variant < 3:
            continue
        user, assistant = codec.decode(item.ids.tolist()).turns
        assert (user.role, assistant.role) == ("user", "assistant")
        assert sorted(type(part).__name__ for part in user.segments) == ["Image", "Text"]
        assert [type(part) for part in assistant.segments] == [Text]


def test_without_documents_that_only_name_the_settings_are_what_they_were(
    codec: DocumentCodec, tmp_path: Path
) -> None:
    def settings(num_name: int) -> object:
        config = replace(CONFIG, num_name=num_name)
        return prepare(config, shapes(), codec, tmp_path / str(num_name)).config["settings"]

    plain, named = settings(0), settings(2)
    assert isinstance(plain, dict) and not {"num_name", "name_mixing"} & set(plain)
    assert named == {**plain, "num_name": 2}
    with pytest.raises(DataError, match=r"settings\.num_name was .* and is now 2"):
        prepare(replace(CONFIG, num_name=2), shapes(), codec, tmp_path / "0")


def test_mixing_changes_codes_of_documents_that_only_name(
    codec: DocumentCodec, tmp_path: Path
) -> None:
    config = replace(CONFIG, num_name=2)
    mixing = Mixing(share=1.0, num_kept=5)
    prepare(config, shapes(), codec, tmp_path / "plain")
    manifest = prepare(replace(config, name_mixing=mixing), shapes(), codec, tmp_path / "mixed")
    assert manifest.config["settings"]["name_mixing"] == {"share": 1.0, "num_kept": 5}  # type: ignore[index]
    one, two = ShardFolder(tmp_path / "plain"), ShardFolder(tmp_path / "mixed")
    num_changed = 0
    for index in range(len(one)):
        plain, changed = one.sample(index), two.sample(index)
        assert np.array_equal(plain.flags, changed.flags)
        different = np.flatnonzero(plain.ids != changed.ids)
        num_changed += len(different) > 0
        assert plain.variant >= 3 or not len(different)
        assert set(different) <= set(np.flatnonzero(plain.flags & IMAGE)[5:])
        codec.decode(changed.ids.tolist())
    assert num_changed > 30
    # Batches of another size give the same bytes.
    config = replace(config, name_mixing=mixing, batch_size=3)
    prepare(config, shapes(), codec, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "mixed")


def test_augmentation_changes_described_pictures_only(codec: DocumentCodec, tmp_path: Path) -> None:
    plain = replace(CONFIG, num_draw=1, num_describe=1, num_mixed=0, num_name=1)
    changed = replace(plain, augmentation=Augmentation(max_shift=0.3))
    prepare(plain, shapes(), codec, tmp_path / "plain")
    prepare(changed, shapes(), codec, tmp_path / "changed")
    one, two = ShardFolder(tmp_path / "plain"), ShardFolder(tmp_path / "changed")
    for index in range(len(one)):
        first, second = one.sample(index), two.sample(index)
        if first.variant == 0:
            assert np.array_equal(first.ids, second.ids)
    described = [index for index in range(len(one)) if one.sample(index).variant > 0]
    different = 0
    for index in described:
        images = [
            folder.tokens(index)[0][(folder.tokens(index)[1] & IMAGE) > 0].tolist()
            for folder in (one, two)
        ]
        different += images[0] != images[1]
    assert different > len(described) / 2


class _Balanced(AbstractSource):
    """The rows of another source, in groups of three that take turns."""

    def __init__(self, source: AbstractSource) -> None:
        self._source = source

    @property
    def num_rows(self) -> int:
        return self._source.num_rows

    @property
    def description(self) -> Mapping[str, object]:
        return {"kind": "balanced"}

    def row(self, index: int) -> Row:
        return self._source.row(index)

    def share(self, index: int) -> Share:
        return Share(group=index // 3, rank=index % 3, size=3)


def test_rows_that_take_turns_count_as_one(codec: DocumentCodec, tmp_path: Path) -> None:
    config = replace(CONFIG, num_draw=4, num_describe=2, num_mixed=0)
    prepare(config, _Balanced(shapes(12)), codec, tmp_path)
    folder = ShardFolder(tmp_path)
    assert len(folder) == 4 * 6
    made = [folder.sample(index) for index in range(len(folder))]
    for group in range(4):
        members = [item for item in made if int(item.row.rsplit("/", 1)[1]) // 3 == group]
        assert sorted(item.variant for item in members) == list(range(6))
        assert len({item.row for item in members}) == 3


def test_unreadable_rows_are_left_out_and_told(
    codec: DocumentCodec, tmp_path: Path, write_pack: Callable[..., Path]
) -> None:
    pictures = [b"broken", *[None] * 5]
    broken = ParquetSource(
        write_pack(webp=pictures), picture_column="webp", caption_columns=["caption"]
    )
    manifest = prepare(CONFIG, broken, codec, tmp_path / "broken")
    assert manifest.num_documents == 0
    assert [row for row, _ in manifest.refused] == [str(index) for index in range(6)]
    assert "not a picture" in manifest.refused[0][1]
    assert "no picture in webp" in manifest.refused[1][1]
    nameless = ParquetSource(write_pack(), picture_column="webp", attributes={"name": "name"})
    manifest = prepare(CONFIG, nameless, codec, tmp_path / "nameless")
    assert manifest.num_documents == 4 * 3
    assert [row for row, _ in manifest.refused] == ["2", "4"]
    assert "no caption, name or phrase" in manifest.refused[0][1]
    assert Manifest.read(tmp_path / "nameless") == manifest


def test_long_documents_are_left_out_and_told(codec: DocumentCodec, tmp_path: Path) -> None:
    config = replace(CONFIG, context_length=80)
    manifest = prepare(config, shapes(), codec, tmp_path)
    assert 0 < manifest.num_documents < 60
    assert manifest.num_documents + len(manifest.refused) == 60
    assert "more than the context length 80" in manifest.refused[0][1]
    assert ShardFolder(tmp_path).lengths.max() <= 80


def test_plain_text_is_cut_without_loss(codec: DocumentCodec, tmp_path: Path) -> None:
    text = "Once upon a time there was a red circle. " * 20
    (tmp_path / "story.txt").write_text(text)
    config = PrepareConfig(context_length=64)
    prepare(config, TextSource(tmp_path / "story.txt"), codec, tmp_path / "out")
    folder = ShardFolder(tmp_path / "out")
    assert len(folder) > 5
    ids: list[int] = []
    for index in range(len(folder)):
        part, flags = folder.tokens(index)
        assert codec.decode(part.tolist()).segments
        assert (flags[1:-1] == LOSS).all() and flags[0] == 0
        assert flags[-1] == (LOSS if index == len(folder) - 1 else 0)
        ids.extend(part[1:-1].tolist())
    assert codec.text_tokenizer.decode(ids) == text.strip()


def test_a_finished_folder_is_left_as_it_is(codec: DocumentCodec, tmp_path: Path) -> None:
    prepare(CONFIG, shapes(), codec, tmp_path)
    before = contents(tmp_path)
    prepare(CONFIG, shapes(), codec, tmp_path)
    assert contents(tmp_path) == before


def test_refuses_to_go_on_with_other_settings(codec: DocumentCodec, tmp_path: Path) -> None:
    prepare(CONFIG, shapes(), codec, tmp_path)
    with pytest.raises(DataError, match=r"settings\.seed was 0 and is now 5; choose another"):
        prepare(replace(CONFIG, seed=5), shapes(), codec, tmp_path)
    with pytest.raises(DataError, match=r"num_rows was 20 and is now 21.*source\.count was 20"):
        prepare(CONFIG, shapes(21), codec, tmp_path)
    prepare(replace(CONFIG, batch_size=3), shapes(), codec, tmp_path)


def test_refuses_shards_without_a_manifest(codec: DocumentCodec, tmp_path: Path) -> None:
    (tmp_path / "shard-00000.arrow").write_bytes(b"x")
    with pytest.raises(DataError, match=r"without mmgen\.json"):
        prepare(CONFIG, shapes(), codec, tmp_path)
    with pytest.raises(OutputError, match="cannot make the folder"):
        prepare(CONFIG, shapes(), codec, tmp_path / "shard-00000.arrow" / "out")


def test_refuses_to_go_on_after_a_damaged_shard(codec: DocumentCodec, tmp_path: Path) -> None:
    prepare(CONFIG, shapes(), codec, tmp_path)
    path = tmp_path / "shard-00001.arrow"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DataError, match=r"shard-00001\.arrow has"):
        prepare(CONFIG, shapes(), codec, tmp_path)


def test_tokenizer_choice(codec: DocumentCodec, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"no visual tokenizer 'fsq'; it has palette"):
        prepare(replace(CONFIG, tokenizer="fsq"), shapes(), codec, tmp_path / "a")
    blind = DocumentCodec(codec.vocabulary, codec.text_tokenizer, {})
    with pytest.raises(SettingsError, match="cannot learn pictures"):
        prepare(CONFIG, shapes(), blind, tmp_path / "b")


@pytest.mark.parametrize(
    "settings",
    [
        {"num_draw": 0, "num_describe": 0},
        {"num_mixed": -1},
        {"num_name": -1},
        {"name_mixing": Mixing(share=0.5)},
        {"context_length": 3},
        {"limit": 0},
        {"rows_per_shard": 0},
    ],
)
def test_refuses_bad_settings(settings: dict[str, Any]) -> None:
    with pytest.raises(SettingsError):
        PrepareConfig(**settings)


class _Interrupted(AbstractSource):
    """A source that stops with an error of its own after some rows."""

    def __init__(self, source: AbstractSource, num_good: int) -> None:
        self._source = source
        self._num_good = num_good

    @property
    def num_rows(self) -> int:
        return self._source.num_rows

    @property
    def description(self) -> Mapping[str, object]:
        return self._source.description

    def attributes(self, index: int) -> Mapping[str, str]:
        return self._source.attributes(index)

    def row(self, index: int) -> Row:
        if index >= self._num_good:
            raise KeyboardInterrupt
        return self._source.row(index)


@pytest.mark.parametrize("num_good", [0, 3, 8, 13, 19])
def test_goes_on_after_an_interruption(codec: DocumentCodec, tmp_path: Path, num_good: int) -> None:
    prepare(CONFIG, shapes(), codec, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        prepare(CONFIG, _Interrupted(shapes(), num_good), codec, tmp_path / "parts")
    assert Manifest.read(tmp_path / "parts").next_row == num_good // 8 * 8
    prepare(CONFIG, shapes(), codec, tmp_path / "parts")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


KILLED = """
    import sys
    from pathlib import Path

    from mmgen.data.prepare import PrepareConfig, prepare
    from mmgen.data.shapes import ShapesSource
    from mmgen.document import DocumentCodec
    from mmgen.plugins import load_visual_tokenizer_class
    from mmgen.text_tokenizer import load_text_tokenizer
    from mmgen.vocabulary import Vocabulary

    parts, output = Path(sys.argv[1]), Path(sys.argv[2])
    vocabulary = Vocabulary.from_json((parts / "vocabulary.json").read_text())
    palette = load_visual_tokenizer_class("palette").load()
    codec = DocumentCodec(vocabulary, load_text_tokenizer(parts), {"palette": palette})
    config = PrepareConfig(num_draw=1, num_describe=1, rows_per_shard=8)
    prepare(config, ShapesSource(1, 4000, picture_size=32), codec, output)
"""


def test_goes_on_after_being_killed(codec: DocumentCodec, tmp_path: Path) -> None:
    codec.text_tokenizer.save(tmp_path)
    (tmp_path / "vocabulary.json").write_text(codec.vocabulary.to_json())
    output = tmp_path / "killed"
    arguments = [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path), str(output)]
    process = subprocess.Popen(arguments)
    try:
        deadline = time.monotonic() + 120
        while not (output / "shard-00003.arrow").exists():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    num_killed = len(Manifest.read(output).shards)
    assert 3 <= num_killed < 500
    # The killed run was of 4000 rows; the same run is ended here as far as two more shards.
    config = PrepareConfig(num_draw=1, num_describe=1, rows_per_shard=8)
    source = ShapesSource(1, 4000, picture_size=32)
    num_rows = 8 * (num_killed + 2)
    for folder in (output, tmp_path / "whole"):
        with pytest.raises(KeyboardInterrupt):
            prepare(config, _Interrupted(source, num_rows), codec, folder)
    assert contents(output) == contents(tmp_path / "whole")
    assert Manifest.read(output).next_row == num_rows
