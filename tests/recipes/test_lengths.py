"""A model of several lengths, from a recipe to pictures of a length that was asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from mmgen.checkpoint import open_checkpoint
from mmgen.cli.generate import generate
from mmgen.data.shards import ShardFolder
from mmgen.errors import SettingsError
from mmgen.pictures import open_picture, read_metadata
from mmgen.plugins import load_visual_tokenizer
from mmgen.train.config import TokenizerSource
from mmgen.train.run import configure, run
from mmgen.train.sources import ShapesConfig
from mmgen.train.stages import chosen_layouts
from mmgen.visual_tokenizer import Ordered
from recipes.debug import Debug, debug

LENGTHS = (16, 8, 32)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A debug run on `ordered`, of a tenth of the pictures and steps."""
    words = ["tokenizer=ordered", "lengths=16,8,32", f"output={tmp_path_factory.mktemp('run')}"]
    config = configure(debug, [*words, "decoder.num_steps=6", "decoder.log_every=3"])
    assert isinstance(config, Debug)
    few = tuple(
        replace(job, source=ShapesConfig(seed=0, count=24, picture_size=64))
        for job in config.prepare.jobs
    )
    config = replace(
        config,
        text_tokenizer=replace(
            config.text_tokenizer, sources=(ShapesConfig(seed=0, count=256, picture_size=64),)
        ),
        prepare=replace(config.prepare, jobs=few),
    )
    assert run(config).done == ("text_tokenizer", "prepare", "decoder")
    return config.decoder.output / "checkpoint"


def invoke(*words: str) -> Result:
    return CliRunner().invoke(generate, ["a red circle", "--seed", "1", *words])


def test_the_vocabulary_has_the_lengths_of_the_recipe(checkpoint: Path) -> None:
    layouts = open_checkpoint(checkpoint).vocabulary.tokenizer("ordered").layouts
    assert layouts == tuple(map(Ordered, LENGTHS))


def test_a_model_learns_every_length(checkpoint: Path) -> None:
    opened = open_checkpoint(checkpoint)
    folder = ShardFolder(checkpoint.parents[1] / "shards" / "train")
    codes = opened.vocabulary.tokenizer("ordered").code_ids[0]
    counts = []
    for number in range(len(folder)):
        ids = folder.sample(number).ids
        counts.append(int(((ids >= codes.start) & (ids < codes.stop)).sum()))
    assert set(counts) == set(LENGTHS)


@pytest.mark.parametrize("length", [None, 8, 32])
def test_pictures_have_the_length_that_is_asked_for(
    checkpoint: Path, tmp_path: Path, length: int | None
) -> None:
    path, again = tmp_path / "picture.png", tmp_path / "again.png"
    words = [] if length is None else ["--length", str(length)]
    result = invoke("--model", str(checkpoint), "-o", str(path), *words)
    assert result.exit_code == 0, result.output
    metadata = read_metadata(path)
    assert metadata["codes"].count("[") - 1 == (16 if length is None else length)
    assert ('"length"' in metadata["settings"]) == (length is not None)
    repeat = ["--from", str(path), "-o", str(again)]
    repeated = CliRunner().invoke(generate, repeat)
    assert repeated.exit_code == 0, repeated.output
    assert "draws" not in repeated.stderr
    assert read_metadata(again) == metadata
    assert np.array_equal(np.asarray(open_picture(again)), np.asarray(open_picture(path)))


def test_lengths_that_a_model_has_not(checkpoint: Path, tmp_path: Path) -> None:
    for length in ("9", "0", "-1"):
        output = tmp_path / "picture.png"
        result = invoke("--model", str(checkpoint), "--length", length, "-o", str(output))
        assert result.exit_code == 1 and not output.exists()
        assert f"have the length {length}; there are 8, 16, 32" in result.stderr


def test_a_repeat_has_the_length_that_the_picture_has(checkpoint: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(
        generate, ["--from", str(tmp_path / "picture.png"), "--length", "8"]
    )
    assert isinstance(result.exception, SettingsError)
    assert "leave out --length" in str(result.exception)


@pytest.mark.parametrize(
    ("name", "lengths", "message"),
    [
        ("palette", (8,), "but palette has one; leave lengths out"),
        ("ordered", (8, 65), "ordered makes no pictures of 65 positions; it makes 1, 2, 3"),
        ("ordered", (8, 8), "each length is named once, got 8, 8"),
    ],
)
def test_lengths_that_a_tokenizer_has_not(
    name: str, lengths: tuple[int, ...], message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        chosen_layouts(load_visual_tokenizer(name), TokenizerSource(name=name, lengths=lengths))
