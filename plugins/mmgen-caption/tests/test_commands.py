"""Captions on their way through mmgen's commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from mmgen.cli.tokenizer import tokenizer
from mmgen.errors import SettingsError
from mmgen.pictures import save_png, to_picture
from mmgen.testing import draw_picture
from mmgen_caption import CaptionTokenizer

SMALL = {"side": 16, "max_length": 6, "default_length": 4, "width": 16, "levels": [5, 5, 3]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("captions")
    (path / "weights").mkdir()
    CaptionTokenizer.untrained(SMALL, seed=3).save(path / "weights")
    for seed in range(2):
        save_png(to_picture(draw_picture((16, 16), seed=seed)), path / f"{seed}.png", {})
    return path


def run(folder: Path, *arguments: str) -> str:
    options = ["--weights", str(folder / "weights")]
    result = CliRunner().invoke(tokenizer, [*arguments, *options], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def encoded(folder: Path, *captions: str) -> list[list[list[int]]]:
    images = [str(folder / f"{seed}.png") for seed in range(2)]
    options = [word for caption in captions for word in ("--caption", caption)]
    stated = json.loads(run(folder, "encode", "caption", *images, *options))
    return [picture["codes"] for picture in stated["pictures"]]


def test_a_caption_is_for_all_pictures_or_one_for_each(folder: Path) -> None:
    assert encoded(folder, "a red disc") == encoded(folder, "a red disc", "a red disc")
    assert encoded(folder) == encoded(folder, "")
    with pytest.raises(SettingsError, match="3 captions for 2 pictures"):
        encoded(folder, "a", "b", "c")


def test_another_caption_draws_another_picture(folder: Path, tmp_path: Path) -> None:
    codes = tmp_path / "codes.json"
    run(folder, "encode", "caption", str(folder / "0.png"), "-o", str(codes), "--caption", "red")
    for word in ("red", "blue"):
        output = str(tmp_path / f"{word}.png")
        run(folder, "decode", "caption", str(codes), "-o", output, "--caption", word)
    assert (tmp_path / "red.png").read_bytes() != (tmp_path / "blue.png").read_bytes()


def test_quality_stands_in_place_of_a_length(folder: Path) -> None:
    image = str(folder / "0.png")
    lengths = [
        json.loads(run(folder, "encode", "caption", image, "--quality", quality))["pictures"][0]
        for quality in ("0", "1")
    ]
    assert [item["shape"] for item in lengths] == [[1], [6]]
