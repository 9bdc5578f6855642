"""The tokenizer trainer: it learns, it resumes exactly, it refuses what it cannot train."""

from __future__ import annotations

import io
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from mmgen.autoencoding.contrastive import ContrastiveNetwork, ContrastiveSettings
from mmgen.errors import CheckpointError, PluginError, SettingsError
from mmgen.pictures import to_picture
from mmgen.plugins import load_visual_tokenizer_class
from mmgen.testing import draw_picture
from mmgen.train.progress import SilentProgress
from mmgen.train.records import read_records
from mmgen.train.sources import ParquetConfig, WeightedSource
from mmgen.train.tokenizer_config import TokenizerTrainConfig
from mmgen.train.tokenizer_trainer import (
    pyramid_loss,
    start_from,
    train_tokenizer,
)
from mmgen.train.training_pictures import TrainingPictures

SMALL = {
    "levels": [5, 5, 3],
    "encoder_widths": [8, 8],
    "encoder_depths": [1, 1],
    "decoder_widths": [8, 8, 8],
    "decoder_depths": [1, 1, 1],
    "max_side": 16,
    "default_side": 16,
}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "pack.parquet"
    pictures = []
    for seed in range(12):
        buffer = io.BytesIO()
        to_picture(draw_picture((16, 16), seed=seed)).save(buffer, "PNG")
        pictures.append(buffer.getvalue())
    split = ["train"] * 8 + ["val"] * 4
    table = {"image": pictures, "split": split, "family": [str(min(n, 4)) for n in range(12)]}
    pq.write_table(pa.table(table), path)
    return path


@pytest.fixture
def config(pack: Path, tmp_path: Path) -> TokenizerTrainConfig:
    return TokenizerTrainConfig(
        tokenizer="fsq",
        settings=SMALL,
        sources=(WeightedSource(source=source(pack, "train")),),
        output=tmp_path / "run",
        num_steps=12,
        batch_size=4,
        max_shift=2,
        checkpoint_every=4,
        log_every=4,
    )


class StopAfter(SilentProgress):
    """Sends the signal of Ctrl-C when a step is reported."""

    def __init__(self, step: int) -> None:
        self.step = step

    def update(self, share: float, detail: str) -> None:
        if detail.startswith(f"step {self.step}:"):
            os.kill(os.getpid(), signal.SIGINT)


def weights(config: TokenizerTrainConfig) -> str:
    tokenizer = load_visual_tokenizer_class("fsq").load(config.output / "tokenizer")
    return tokenizer.fingerprint


def source(pack: Path, split: str) -> ParquetConfig:
    return ParquetConfig(path=pack, picture_column="image", filters={"split": (split,)})


def test_training_lowers_the_loss(config: TokenizerTrainConfig) -> None:
    config = replace(config, num_steps=120, log_every=10)
    assert not config.is_finished
    assert train_tokenizer(config)
    assert config.is_finished
    losses = [record["loss"] for record in read_records(config.output / "log.jsonl")]
    assert losses[-1] < 0.6 * losses[0]


def test_a_stopped_run_ends_as_an_undisturbed_one(
    config: TokenizerTrainConfig, tmp_path: Path
) -> None:
    whole = replace(config, output=tmp_path / "whole")
    train_tokenizer(whole)
    stopped = replace(config, output=tmp_path / "stopped")
    assert not train_tokenizer(stopped, progress=StopAfter(8))
    assert [path.name for path in (stopped.output / "state").iterdir()] == ["step-00000008"]
    assert train_tokenizer(stopped)
    assert weights(stopped) == weights(whole)
    steps = [record["step"] for record in read_records(stopped.output / "log.jsonl")]
    assert steps == [4, 8, 12]


def test_other_settings_are_refused(config: TokenizerTrainConfig) -> None:
    train_tokenizer(config)
    with pytest.raises(CheckpointError, match=r"lr was 0\.002 and is 0\.1"):
        train_tokenizer(replace(config, lr=0.1))
    with pytest.raises(CheckpointError, match="batch_size"):
        _ = replace(config, batch_size=2).is_finished
    assert not replace(config, num_steps=20).is_finished


def test_a_plugin_without_weights_is_refused(config: TokenizerTrainConfig) -> None:
    with pytest.raises(PluginError, match="palette has nothing to train"):
        train_tokenizer(replace(config, tokenizer="palette"))


def test_pictures_of_one_family_share_their_weight(pack: Path) -> None:
    families = ParquetConfig(path=pack, picture_column="image", balance=("family",))
    sources = [
        WeightedSource(source=families, weight=3),
        WeightedSource(source=source(pack, "val")),
    ]
    spec = load_visual_tokenizer_class("fsq").untrained(SMALL, seed=0).spec
    pictures = TrainingPictures.load(
        sources, SilentProgress(), size=spec.sizes[0], resize=spec.resize, needs_captions=False
    )
    pixels, shares = pictures.pixels, pictures.shares
    assert pixels.shape == (16, 3, 16, 16) and pixels.dtype == torch.uint8
    assert shares[:12].sum().item() == pytest.approx(0.75)
    assert shares[4:12].sum().item() == pytest.approx(shares[0].item())
    first = np.asarray(to_picture(draw_picture((16, 16), seed=0)))
    assert np.array_equal(pixels[0].permute(1, 2, 0).numpy(), first)


def test_the_loss_is_zero_for_equal_pictures_and_sees_edges() -> None:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert pyramid_loss(images, images).item() == 0
    flat = torch.full_like(images, 0.5)
    stripes = flat.clone()
    stripes[..., ::2] += 0.1
    assert pyramid_loss(stripes, flat) > pyramid_loss(flat + 0.05, flat)


@pytest.mark.parametrize(
    ("field", "value"), [("num_steps", 0), ("lr", 0.0), ("max_shift", -1), ("ema_decay", 1.0)]
)
def test_impossible_settings_are_refused(
    config: TokenizerTrainConfig, field: str, value: float
) -> None:
    with pytest.raises(SettingsError, match=field):
        replace(config, **{field: value})  # type: ignore[arg-type]


def test_a_run_may_start_from_a_tokenizer(config: TokenizerTrainConfig, tmp_path: Path) -> None:
    origin = load_visual_tokenizer_class("fsq").untrained(SMALL, seed=7)
    folder = tmp_path / "origin"
    folder.mkdir()
    origin.save(folder)
    wider = load_visual_tokenizer_class("fsq").untrained({**SMALL, "levels": [5, 5, 5, 3]}, seed=1)
    taken, total = start_from(wider, str(folder))
    # The number of latents shapes a weight and a bias of the encoder, a weight of the decoder.
    assert total - taken == 3
    ours, theirs = wider.network().state_dict(), origin.network().state_dict()
    assert torch.equal(ours["encoder.patches.weight"], theirs["encoder.patches.weight"])
    assert not torch.equal(ours["decoder.vectors.weight"], theirs["decoder.vectors.weight"])
    with pytest.raises(PluginError, match=r"tokenizer\.safetensors is missing"):
        train_tokenizer(replace(config, start_from=str(tmp_path / "nothing")))


def test_a_critic_changes_what_is_learned_and_resumes_exactly(
    config: TokenizerTrainConfig, tmp_path: Path
) -> None:
    plain = replace(config, output=tmp_path / "plain")
    train_tokenizer(plain)
    settings = {"adversarial_weight": 0.5, "adversarial_start": 0.25, "critic_width": 4}
    whole = replace(config, output=tmp_path / "whole", **settings)  # type: ignore[arg-type]
    train_tokenizer(whole)
    assert weights(whole) != weights(plain)
    stopped = replace(whole, output=tmp_path / "stopped")
    assert not train_tokenizer(stopped, progress=StopAfter(8))
    assert train_tokenizer(stopped)
    assert weights(stopped) == weights(whole)
    critics = [record.get("critic") for record in read_records(whole.output / "log.jsonl")]
    assert critics[0] is not None and critics[0] != critics[-1]


def test_a_critic_waits_for_its_share_of_the_run(
    config: TokenizerTrainConfig, tmp_path: Path
) -> None:
    waiting = replace(config, adversarial_weight=0.5, adversarial_start=0.9, critic_width=4)
    train_tokenizer(waiting)
    critics = [record.get("critic") for record in read_records(waiting.output / "log.jsonl")]
    assert critics[:2] == [None, None] and critics[2] is not None


def test_seeing_changes_what_is_learned(config: TokenizerTrainConfig, tmp_path: Path) -> None:
    torch.manual_seed(0)
    teacher = ContrastiveNetwork(
        ContrastiveSettings(widths=(8, 12, 16), depths=(1, 1), num_words=16, word_dim=8, dim=8)
    )
    (tmp_path / "teacher").mkdir()
    teacher.save(tmp_path / "teacher")
    plain = replace(config, num_steps=60, log_every=60, output=tmp_path / "plain")
    seeing = replace(plain, output=tmp_path / "seeing", perceptual=tmp_path / "teacher")
    strong = replace(seeing, output=tmp_path / "strong", perceptual_weight=8.0)
    for run in (plain, seeing, strong):
        train_tokenizer(run)
    (weak_record,) = read_records(seeing.output / "log.jsonl")
    (strong_record,) = read_records(strong.output / "log.jsonl")
    assert strong_record["perceptual"] < weak_record["perceptual"]
    assert len({weights(plain), weights(seeing), weights(strong)}) == 3


@pytest.mark.parametrize(
    ("field", "value"),
    [("perceptual_weight", -1.0), ("adversarial_start", 1.0), ("critic_width", 0)],
)
def test_impossible_losses_are_refused(
    config: TokenizerTrainConfig, field: str, value: float
) -> None:
    with pytest.raises(SettingsError, match=field):
        replace(config, **{field: value})  # type: ignore[arg-type]
