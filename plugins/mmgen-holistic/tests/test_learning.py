"""What learns and what stays: pictures change, codes do not, wherever the details come from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange

from mmgen.autoencoding import MeaningNetwork
from mmgen.plugins import load_visual_tokenizer_class
from mmgen.testing import draw_picture
from mmgen.train.sources import ShapesConfig, WeightedSource
from mmgen.train.tokenizer_config import TokenizerTrainConfig
from mmgen.train.tokenizer_trainer import start_from, train_tokenizer
from mmgen.visual_tokenizer import AbstractVisualTokenizer, Picture
from mmgen_holistic import HolisticTokenizer
from mmgen_holistic.network import (
    UNTOLD_SHARE,
    HolisticNetwork,
    HolisticSettings,
    MeaningReader,
)

FORESIGHT = "encoder.details.foresight."


def pictures(count: int) -> list[Picture]:
    return [draw_picture((16, 16), seed=seed) for seed in range(count)]


def as_batch(images: list[Picture]) -> torch.Tensor:
    return rearrange(torch.from_numpy(np.stack(images)), "b h w c -> b c h w")


def network_of(tokenizer: AbstractVisualTokenizer) -> HolisticNetwork:
    network = tokenizer.network()
    assert isinstance(network, HolisticNetwork)
    return network


@pytest.fixture
def begun(small_settings: dict[str, Any]) -> HolisticTokenizer:
    tokenizer = HolisticTokenizer.untrained(small_settings, seed=3)
    tokenizer.begin_training(as_batch(pictures(24)))
    return tokenizer


@pytest.fixture(scope="module")
def ordered(small_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tokenizer of ordered codes, as many as there are of details."""
    names = ("levels", "side", "painter_widths", "width", "num_heads")
    layers = ("encoder_layers", "decoder_layers")
    shared = {name: small_settings[name] for name in (*names, *layers)}
    settings = {**shared, "max_length": 4, "default_length": 4}
    tokenizer = load_visual_tokenizer_class("ordered").untrained(settings, seed=11)
    tokenizer.begin_training(as_batch(pictures(24)))
    folder = tmp_path_factory.mktemp("ordered")
    tokenizer.save(folder)
    return folder


def test_training_changes_pictures_and_no_codes(begun: HolisticTokenizer) -> None:
    images = pictures(8)
    codes = begun.encode(images, length=7)
    (drawn,) = begun.decode(codes[:1])
    network = network_of(begun)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, weight_decay=0.1)
    network.train()
    torch.manual_seed(0)
    for _ in range(3):
        output = network(as_batch(images))
        loss = (output.reconstruction - as_batch(images)).square().mean()
        optimizer.zero_grad()
        (loss + sum(output.losses.values())).backward()
        optimizer.step()
    network.eval()
    changed = {
        name for name, value in network.state_dict().items() if not torch.equal(value, before[name])
    }
    assert {name for name in changed if name.startswith("encoder.")} == {
        name for name in before if name.startswith(FORESIGHT)
    }
    assert {name.partition(".")[0] for name in changed} == {"encoder", "decoder", "reader"}
    assert {name for name in before if name.startswith("reader.")} <= changed
    assert begun.encode(images, length=7) == codes
    assert not np.allclose(begun.decode(codes[:1])[0], drawn, atol=1e-3)


def test_what_makes_codes_is_never_in_training(begun: HolisticTokenizer) -> None:
    network = network_of(begun).train()
    assert network.training and network.decoder is not None and network.decoder.training
    assert network.encoder is not None
    assert not any(module.training for module in network.encoder.modules())
    network.encoder = None
    assert network.train().training


def test_a_cut_keeps_what_is_shown_as_a_rule(begun: HolisticTokenizer) -> None:
    network = network_of(begun)
    lengths = [network.cut(place, 7) for place in np.linspace(0, 1, 1000).tolist()]
    assert lengths == sorted(lengths) and set(lengths) == set(range(8))
    untold = sum(length < 3 for length in lengths)
    assert untold == pytest.approx(1000 * UNTOLD_SHARE, abs=2)
    assert sum(length == 3 for length in lengths) > sum(length == 7 for length in lengths)


def test_codes_that_are_missing_are_told_from_all_others() -> None:
    torch.manual_seed(0)
    reader = MeaningReader(HolisticSettings(num_meanings=3, width=16, num_heads=2), dim=5)
    vectors = torch.zeros(2, 3, 5)
    told = [reader(vectors[:, :count]) for count in range(4)]
    assert all(item.shape == (2, 4, 16) for item in told)
    for count in range(3):
        assert not torch.allclose(told[count], told[count + 1], atol=1e-4)


def test_details_begin_as_those_of_ordered(
    small_settings: dict[str, Any], ordered: Path, meaning: Path
) -> None:
    tokenizer = HolisticTokenizer.untrained(small_settings, seed=3)
    taken, total = start_from(tokenizer, str(ordered))
    ours = network_of(tokenizer).state_dict()
    own = [
        name for name in ours if name.startswith(("encoder.tower.", "encoder.coder.", "reader."))
    ]
    assert total == len(ours) and total - taken == len(own)
    origin = load_visual_tokenizer_class("ordered").load(ordered)
    images = pictures(6)
    codes = tokenizer.encode(images, length=7)
    for mine, theirs in zip(codes, origin.encode(images, length=4), strict=True):
        assert np.array_equal(mine.array[3:], theirs.array)
    # Meanings are still those that were taken.
    network = MeaningNetwork.load(meaning)
    for part, module in (("tower", network.namer.tower), ("coder", network.coder)):
        for name, value in module.state_dict().items():
            assert torch.equal(ours[f"encoder.{part}.{name}"], value)


def test_a_run_leaves_codes_as_they_began(
    small_settings: dict[str, Any], ordered: Path, meaning: Path, tmp_path: Path
) -> None:
    config = TokenizerTrainConfig(
        tokenizer="holistic",
        settings=small_settings,
        sources=(WeightedSource(source=ShapesConfig(count=12, picture_size=16)),),
        output=tmp_path / "run",
        num_steps=3,
        batch_size=6,
        start_from=str(ordered),
        perceptual=meaning,
        perceptual_weight=0.3,
    )
    assert train_tokenizer(config)
    learned = HolisticTokenizer.load(tmp_path / "run" / "tokenizer")
    fresh = HolisticTokenizer.untrained(small_settings, seed=config.seed)
    start_from(fresh, str(ordered))
    images = pictures(6)
    codes = fresh.encode(images, length=7)
    assert learned.encode(images, length=7) == codes
    assert not np.array_equal(learned.decode(codes)[0], fresh.decode(codes)[0])
