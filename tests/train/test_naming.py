"""The training of a network that names: it learns shapes, resumes exactly, and needs names."""

from __future__ import annotations

import math
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageDraw

from mmgen.autoencoding import NamingNetwork
from mmgen.errors import CheckpointError, DataError, PluginError, SettingsError
from mmgen.train.naming_config import NamingTrainConfig
from mmgen.train.naming_trainer import train_namer
from mmgen.train.progress import SilentProgress
from mmgen.train.records import read_records
from mmgen.train.sources import FolderConfig, ShapesConfig, WeightedSource

SMALL = {"side": 16, "first_side": 8, "first_share": 0.5, "widths": [8, 12, 16]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Discs and rings and bars of many colours in many places, each with its name."""
    path = tmp_path_factory.mktemp("named")
    for number in range(24):
        name = ("disc", "bar", "ring")[number % 3]
        picture = Image.new("RGB", (32, 32), "white")
        draw = ImageDraw.Draw(picture)
        left, top = 2 + number % 5, 2 + number % 7
        colour = ("red", "green", "blue", "black")[number % 4]
        if name == "bar":
            draw.rectangle((left, top + 8, left + 20, top + 13), fill=colour)
        else:
            fill = colour if name == "disc" else None
            draw.ellipse((left, top, left + 20, top + 20), fill=fill, outline=colour, width=2)
        picture.save(path / f"{number}.png")
        (path / f"{number}.txt").write_text(name, encoding="utf-8")
    return path


@pytest.fixture
def config(folder: Path, tmp_path: Path) -> NamingTrainConfig:
    return NamingTrainConfig(
        settings=SMALL,
        side=32,
        sources=(WeightedSource(source=FolderConfig(path=folder)),),
        output=tmp_path / "run",
        num_steps=9,
        batch_size=12,
        max_shift=0,
        caption_dropout=0.0,
        checkpoint_every=3,
        log_every=3,
    )


class StopAfter(SilentProgress):
    """Sends the signal of Ctrl-C when a step is reported."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, share: float, detail: str) -> None:
        if detail.startswith(f"step {self.step}:"):
            os.kill(os.getpid(), signal.SIGINT)


def learned(config: NamingTrainConfig) -> NamingNetwork:
    return NamingNetwork.load(config.output / "namer")


def test_training_finds_names(config: NamingTrainConfig) -> None:
    config = replace(config, num_steps=120, log_every=10, lr=1e-2, ema_decay=0.9)
    assert not config.is_finished
    assert train_namer(config)
    assert config.is_finished
    assert learned(config).names == ("bar", "disc", "ring")
    records = read_records(config.output / "log.jsonl")
    assert records[-1]["loss"] < 0.6 * math.log(3)
    assert records[-1]["accuracy"] > 0.6


def test_a_stopped_run_ends_as_an_undisturbed_one(
    config: NamingTrainConfig, tmp_path: Path
) -> None:
    whole = replace(config, output=tmp_path / "whole")
    assert train_namer(whole)
    stopped = replace(config, output=tmp_path / "stopped")
    assert not train_namer(stopped, progress=StopAfter(3))
    assert not stopped.is_finished and train_namer(stopped)
    # What normalises (running means and variances) is a part of what was learned.
    expected = learned(whole).state_dict()
    found = learned(stopped).state_dict()
    assert [name for name, value in found.items() if not torch.equal(value, expected[name])] == []


def test_the_same_seed_learns_the_same(config: NamingTrainConfig, tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((1, 1, 2)):
        run = replace(config, output=tmp_path / str(number), seed=seed, num_steps=3)
        train_namer(run)
        found.append(learned(run).named.weight)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_every_caption_is_a_name(config: NamingTrainConfig) -> None:
    shapes = ShapesConfig(count=6, picture_size=32)
    config = replace(config, num_steps=1, sources=(WeightedSource(source=shapes),))
    assert train_namer(config)
    source = shapes.open()
    said = {caption for index in range(6) for caption in source.row(index).captions}
    assert learned(config).names == tuple(sorted(said))


def test_pictures_without_names_teach_nothing(
    config: NamingTrainConfig, tmp_path: Path, folder: Path
) -> None:
    unnamed = tmp_path / "unnamed"
    unnamed.mkdir()
    for number in range(2):
        Image.new("RGB", (32, 32)).save(unnamed / f"{number}.png")
        (unnamed / f"{number}.txt").write_text("field", encoding="utf-8")
    nameless = WeightedSource(source=FolderConfig(path=unnamed))
    with pytest.raises(DataError, match=r"2 names or more, got \['field'\]"):
        train_namer(replace(config, sources=(nameless,)))
    (unnamed / "1.txt").write_text("", encoding="utf-8")
    with pytest.raises(DataError, match="row 1 of source 1 has no name"):
        train_namer(replace(config, sources=(*config.sources, nameless)))


def test_impossible_settings_are_refused(config: NamingTrainConfig) -> None:
    with pytest.raises(SettingsError, match="side must be 8 or more"):
        replace(config, side=7)
    with pytest.raises(SettingsError, match="caption_dropout must be 0"):
        replace(config, caption_dropout=0.3)
    with pytest.raises(SettingsError, match="batch_size"):
        replace(config, batch_size=0)
    with pytest.raises(PluginError, match="'depth'"):
        train_namer(replace(config, settings={"depth": 2}))


def test_sources_and_output_are_all_that_is_needed(config: NamingTrainConfig) -> None:
    plain = NamingTrainConfig(sources=config.sources, output=config.output)
    assert plain.caption_dropout == 0


def test_a_run_of_other_settings_is_not_this_one(config: NamingTrainConfig) -> None:
    config = replace(config, num_steps=1)
    assert train_namer(config)
    with pytest.raises(CheckpointError, match="batch_size"):
        _ = replace(config, batch_size=2).is_finished
