"""Pictures compared by networks that see: which there are, and what the distance says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModel

from mmgen.autoencoding.contrastive import ContrastiveNetwork, ContrastiveSettings
from mmgen.autoencoding.naming import NamingNetwork, NamingSettings
from mmgen.errors import SettingsError
from mmgen.train.perceptual import (
    NamerFeatures,
    TeacherFeatures,
    TransformersFeatures,
    load_features,
    perceptual_loss,
)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    settings = ContrastiveSettings(
        widths=(8, 12, 16), depths=(1, 1), num_words=16, word_dim=8, dim=8
    )
    ContrastiveNetwork(settings).save(path)
    return path


@pytest.fixture(scope="module")
def namer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("namer")
    torch.manual_seed(0)
    settings = NamingSettings(side=24, first_side=16, widths=(8, 12, 16))
    network = NamingNetwork(settings, ["disc", "box"])
    # A fresh network takes what it sees to be normalised already; one that has seen some does not.
    network.train()(pictures(3), ["disc", "box"], 1.0)
    network.save(path)
    return path


@pytest.fixture(scope="module")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vision")
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
    )
    CLIPVisionModel(config).save_pretrained(path)
    return path


def pictures(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def test_equal_pictures_are_at_no_distance(teacher: Path, namer: Path, vision_model: Path) -> None:
    for folder, kind in (
        (teacher, TeacherFeatures),
        (namer, NamerFeatures),
        (vision_model, TransformersFeatures),
    ):
        features = load_features(folder)
        assert isinstance(features, kind)
        images = pictures(0)
        assert perceptual_loss(features, images, images).item() == pytest.approx(0, abs=1e-6)
        near = perceptual_loss(features, (images + 0.02 * pictures(1)).clamp(0, 1), images)
        assert 0 < near < perceptual_loss(features, pictures(2), images) < 4


def test_gradients_reach_the_picture_and_not_the_network(teacher: Path, namer: Path) -> None:
    for folder in (teacher, namer):
        features = load_features(folder)
        before = {name: value.clone() for name, value in features.state_dict().items()}
        drawn = pictures(1).requires_grad_()
        perceptual_loss(features, drawn, pictures(0)).backward()  # type: ignore[no-untyped-call]
        assert drawn.grad is not None and drawn.grad.abs().sum() > 0
        assert all(parameter.grad is None for parameter in features.parameters())
        after = features.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_namer_is_seen_at_each_halving(namer: Path) -> None:
    features = load_features(namer)
    assert isinstance(features, NamerFeatures) and not features.tower.training
    # Pictures of any size are looked at with the fewer pixels that the namer learned at.
    for side in (16, 40):
        found = features(torch.rand(2, 3, side, side))
        assert [tuple(item.shape) for item in found] == [(2, 64, 8), (2, 16, 12), (2, 4, 16)]
    tower = NamingNetwork.load(namer).tower
    first = tower.planes(pictures(0), side=16)[0]
    assert torch.equal(features(pictures(0))[0][:, 9], first[:, :, 1, 1])


def test_a_folder_without_a_network_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"a teacher .*, a namer \(namer_config\.json\) or"):
        load_features(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SettingsError, match="gives no features of pictures"):
        load_features(tmp_path)
