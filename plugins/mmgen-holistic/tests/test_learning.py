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
    ShownReader,
    mistaken,
)


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
    assert {name.partition(".")[0] for name in changed} == {"decoder", "reader"}
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


def test_some_details_are_those_of_another_picture() -> None:
    torch.manual_seed(0)
    details = torch.arange(600.0).repeat_interleave(50).reshape(600, 50, 1)
    told = mistaken(details)
    wrong = (told != details).float().mean(dim=(1, 2))
    assert set(told.flatten().tolist()) <= set(details.flatten().tolist())
    assert (wrong == 0).float().mean() == pytest.approx(1 / 3, abs=0.1)
    assert wrong.max() < 0.95 and wrong.mean() > 0.2


def reader_of(**changes: int) -> ShownReader:
    shape: dict[str, Any] = {
        "num_named": 2,
        "num_names": 4,
        "num_meanings": 2,
        "reader_summaries": 3,
    }
    torch.manual_seed(0)
    return ShownReader(HolisticSettings(**{**shape, **changes}, width=16, num_heads=2), 2)


def shown(*codes: tuple[float, float, float]) -> torch.Tensor:
    """Return vectors of one picture: two numbers and a name each, `[1, codes, 3]`."""
    return torch.tensor([codes], dtype=torch.float32)


def test_names_are_told_apart_and_so_are_their_places() -> None:
    reader = reader_of()
    whole = shown((0, 0, 4), (0, 0, 2), (1, 0, 0), (0, 1, 0))
    told = reader(whole)
    assert told.shape == (1, 2 + 3, 16)
    other = reader(shown((0, 0, 2), (0, 0, 4), (1, 0, 0), (0, 1, 0)))
    features = torch.cat([told[0, :2], other[0, :2]])
    assert torch.pdist(features).min() > 1e-3
    # What is said beyond names has nothing to do with them.
    assert torch.equal(told[0, 2:], other[0, 2:])
    # A code that is no name is told by its numbers.
    one, two = (reader(shown(code))[0, 0] for code in ((1, 0, 0), (0, 1, 0)))
    assert not torch.allclose(one, two, atol=1e-3)


def test_what_is_missing_differs_from_what_is_there() -> None:
    reader = reader_of()
    whole = shown((0, 0, 4), (0, 0, 2), (0, 0, 0), (0, 0, 0))
    told = [reader(whole[:, :count]) for count in range(5)]
    assert [item.shape[1] for item in told] == [3, 4, 5, 5, 5]
    for count in (1, 2, 3, 4):
        assert torch.equal(told[count][0, : min(count, 2)], told[4][0, : min(count, 2)])
    assert torch.equal(told[0][0], told[2][0, 2:])
    # Numbers that are all zero are something else than none.
    assert not torch.allclose(told[2][0, 2:], told[3][0, 2:], atol=1e-4)
    assert not torch.allclose(told[3][0, 2:], told[4][0, 2:], atol=1e-4)


def test_names_begin_alike_where_the_namer_tells_them_by_like_vectors() -> None:
    reader = reader_of()
    unnamed = reader.names.weight[0].clone()
    vectors = torch.tensor([[1.0, 0, 0], [1, 0.1, 0], [0, 1, 0], [0, 0, 1]])
    with torch.no_grad():
        reader.begin(vectors)
    begun = reader.names.weight[1:]
    distances = torch.cdist(begun, begun) + 100 * torch.eye(4)
    assert distances.argmin(dim=1)[:2].tolist() == [1, 0]
    assert distances[0, 1] < 0.3 * distances[2:].min()
    # What stands for no name is as it was.
    assert torch.equal(reader.names.weight[0], unnamed)


def test_details_begin_as_those_of_ordered(
    small_settings: dict[str, Any], ordered: Path, meaning: Path
) -> None:
    tokenizer = HolisticTokenizer.untrained(small_settings, seed=3)
    taken, total = start_from(tokenizer, str(ordered))
    ours = network_of(tokenizer).state_dict()
    parts = ("encoder.tower.", "encoder.named.", "encoder.coder.", "reader.", "quantizer.")
    own = [name for name in ours if name.startswith(parts)]
    assert total == len(ours) and total - taken == len(own)
    origin = load_visual_tokenizer_class("ordered").load(ordered)
    images = pictures(6)
    codes = tokenizer.encode(images, length=7)
    for mine, theirs in zip(codes, origin.encode(images, length=4), strict=True):
        assert np.array_equal(mine.array[3:], theirs.array)
    # What is shown is still told as it was taken.
    network = MeaningNetwork.load(meaning)
    namer = network.namer
    taken_parts = {"tower": namer.tower, "named": namer.named, "coder": network.coder}
    for part, module in taken_parts.items():
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
