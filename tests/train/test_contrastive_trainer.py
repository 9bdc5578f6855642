"""The teacher's training: it learns the names of shapes, resumes exactly, and needs captions."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmgen.autoencoding.contrastive import ContrastiveNetwork
from mmgen.errors import DataError, PluginError, SettingsError
from mmgen.pictures import save_png, to_picture
from mmgen.testing import draw_picture
from mmgen.train.contrastive_config import ContrastiveTrainConfig
from mmgen.train.contrastive_trainer import train_teacher
from mmgen.train.progress import SilentProgress
from mmgen.train.records import read_records
from mmgen.train.sources import FolderConfig, ShapesConfig, WeightedSource

SMALL = {"widths": [8, 8, 8], "depths": [1, 0], "num_words": 256, "word_dim": 8, "dim": 8}


@pytest.fixture
def config(tmp_path: Path) -> ContrastiveTrainConfig:
    return ContrastiveTrainConfig(
        settings=SMALL,
        side=32,
        sources=(WeightedSource(source=ShapesConfig(count=24, picture_size=32)),),
        output=tmp_path / "run",
        num_steps=9,
        batch_size=8,
        max_shift=2,
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


def learned(config: ContrastiveTrainConfig) -> dict[str, torch.Tensor]:
    return ContrastiveNetwork.load(config.output / "teacher").state_dict()


def test_training_brings_pictures_and_words_together(config: ContrastiveTrainConfig) -> None:
    config = replace(config, num_steps=90, log_every=10, lr=5e-3)
    assert not config.is_finished
    assert train_teacher(config)
    assert config.is_finished
    records = read_records(config.output / "log.jsonl")
    assert records[-1]["loss"] < 0.8 * records[0]["loss"]
    assert 0 <= records[-1]["accuracy"] <= 1


def test_a_stopped_run_ends_as_an_undisturbed_one(
    config: ContrastiveTrainConfig, tmp_path: Path
) -> None:
    whole = replace(config, output=tmp_path / "whole")
    train_teacher(whole)
    stopped = replace(config, output=tmp_path / "stopped")
    assert not train_teacher(stopped, progress=StopAfter(3))
    assert train_teacher(stopped)
    expected = learned(whole)
    assert all(torch.equal(value, expected[name]) for name, value in learned(stopped).items())


def test_pictures_without_words_teach_nothing(
    config: ContrastiveTrainConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    save_png(to_picture(draw_picture((32, 32), seed=0)), folder / "one.png", {})
    (folder / "one.txt").write_text("", encoding="utf-8")
    silent = (WeightedSource(source=FolderConfig(path=folder)),)
    with pytest.raises(DataError, match="no picture has one"):
        train_teacher(replace(config, sources=silent))


def test_impossible_settings_are_refused(config: ContrastiveTrainConfig) -> None:
    with pytest.raises(SettingsError, match="side must be a multiple of 8"):
        replace(config, side=30)
    with pytest.raises(SettingsError, match="batch_size"):
        replace(config, batch_size=0)
    with pytest.raises(PluginError, match="'depth'"):
        train_teacher(replace(config, settings={"depth": 2}))
