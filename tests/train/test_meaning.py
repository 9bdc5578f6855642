"""Codes of meaning are learned: names can be told from them, and only a whole run leaves any."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmgen.autoencoding import MeaningNetwork, NamingNetwork, NamingSettings
from mmgen.errors import CheckpointError, DataError, PluginError, SettingsError
from mmgen.train.meaning_config import MeaningTrainConfig
from mmgen.train.meaning_trainer import train_meaning
from mmgen.train.progress import SilentProgress
from mmgen.train.sources import FolderConfig, WeightedSource
from mmgen.visual_tokenizer import Picture

NAMES = ("columns", "plain", "rows")
SMALL = {"levels": [5, 5], "num_codes": 2, "coder_width": 16}


def drawn(name: str, number: int) -> Picture:
    """Return a grey field, or one with stripes that stand or lie."""
    picture = np.full((16, 16, 3), 0.4 + 0.02 * number, dtype=np.float32)
    if name != "plain":
        picture[number % 2 :: 2] = 1.0
    return picture.transpose(1, 0, 2) if name == "columns" else picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("striped")
    for number in range(18):
        name = NAMES[number % 3]
        pixels = (drawn(name, number) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(path / f"{number:02}.png")
        (path / f"{number:02}.txt").write_text(name, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def namer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a namer that tells stripes of both kinds and none from each other."""
    path = tmp_path_factory.mktemp("namer")
    torch.manual_seed(0)
    settings = NamingSettings(side=16, first_share=0.0, widths=(8, 16))
    network = NamingNetwork(settings, NAMES).eval()
    names = [NAMES[number % 3] for number in range(18)]
    pictures = [drawn(name, number).transpose(2, 0, 1) for number, name in enumerate(names)]
    images = torch.from_numpy(np.stack(pictures))
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        network(images, names, 1.0).loss.backward()
        optimizer.step()
    assert network(images, names, 1.0).accuracy == 1
    network.save(path)
    return path


@pytest.fixture
def config(folder: Path, namer: Path, tmp_path: Path) -> MeaningTrainConfig:
    return MeaningTrainConfig(
        namer=namer,
        sources=(WeightedSource(source=FolderConfig(path=folder)),),
        output=tmp_path / "run",
        settings=SMALL,
        num_views=20,
        num_steps=80,
        batch_size=64,
        lr=1e-2,
        side=16,
    )


class StopAt(SilentProgress):
    """Sends the signal of Ctrl-C when something is told that begins so."""

    def __init__(self, beginning: str) -> None:
        self.beginning = beginning

    def update(self, share: float, detail: str) -> None:
        if detail.startswith(self.beginning):
            os.kill(os.getpid(), signal.SIGINT)


def learned(config: MeaningTrainConfig) -> MeaningNetwork:
    return MeaningNetwork.load(config.output / "meaning")


def test_names_can_be_told_from_codes(config: MeaningTrainConfig, namer: Path) -> None:
    assert not config.is_finished
    assert train_meaning(config)
    assert config.is_finished
    network = learned(config)
    names = [NAMES[number % 3] for number in range(18)]
    pictures = [drawn(name, number).transpose(2, 0, 1) for number, name in enumerate(names)]
    with torch.no_grad():
        told = network(network.namer.tower(torch.from_numpy(np.stack(pictures))))
    right = told.argmax(dim=1) == network.namer.ids_of(names)
    assert right.float().mean() > 0.8
    # The namer has learned nothing more.
    ours, theirs = network.namer.state_dict(), NamingNetwork.load(namer).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_same_seed_learns_the_same(config: MeaningTrainConfig, tmp_path: Path) -> None:
    found = []
    for number, seed in enumerate((1, 1, 2)):
        run = replace(config, output=tmp_path / str(number), seed=seed, num_steps=3)
        assert train_meaning(run)
        found.append(learned(run).coder.latents.weight)
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("beginning", ["256 views", "step 0:"])
def test_a_stopped_run_leaves_nothing(config: MeaningTrainConfig, beginning: str) -> None:
    assert not train_meaning(config, progress=StopAt(beginning))
    assert not config.output.exists() and not config.is_finished


def test_names_that_the_namer_does_not_know_are_refused(
    config: MeaningTrainConfig, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    Image.new("RGB", (16, 16)).save(other / "one.png")
    for text, message in (("checks", "does not know 'checks'"), ("", "no picture has one")):
        (other / "one.txt").write_text(text, encoding="utf-8")
        source = WeightedSource(source=FolderConfig(path=other))
        with pytest.raises(DataError, match=message):
            train_meaning(replace(config, sources=(source,)))


def test_what_is_not_there_is_refused(config: MeaningTrainConfig, tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"namer_config\.json is missing"):
        train_meaning(replace(config, namer=tmp_path))
    with pytest.raises(PluginError, match="'depth'"):
        train_meaning(replace(config, settings={"depth": 2}))


def test_a_run_of_other_settings_is_not_this_one(config: MeaningTrainConfig) -> None:
    assert train_meaning(replace(config, num_steps=2))
    with pytest.raises(CheckpointError, match="num_steps was 2 and is 80"):
        _ = config.is_finished


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_views", 0),
        ("num_steps", 0),
        ("batch_size", 0),
        ("side", 0),
        ("sources", ()),
        ("lr", 0.0),
        ("noise", -0.1),
        ("weight_decay", -0.1),
        ("taught_share", 1.1),
    ],
)
def test_impossible_settings_are_refused(
    config: MeaningTrainConfig, field: str, value: object
) -> None:
    with pytest.raises(SettingsError, match=field):
        replace(config, **{field: value})  # type: ignore[arg-type]
