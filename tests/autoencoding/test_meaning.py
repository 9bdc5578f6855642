"""Codes of what a picture shows: how they are made, and the files that hold them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from einops import rearrange

from mmgen.autoencoding import (
    MeaningCoder,
    MeaningNetwork,
    MeaningSettings,
    NamingNetwork,
    NamingSettings,
)
from mmgen.errors import PluginError

SMALL = MeaningSettings(levels=(5, 3), num_codes=2, coder_width=12)


def network(settings: MeaningSettings = SMALL) -> MeaningNetwork:
    torch.manual_seed(0)
    namer = NamingNetwork(NamingSettings(side=16, widths=(8, 16)), ["disc", "box", "star"])
    return MeaningNetwork(namer.eval(), settings).eval()


def seen(count: int) -> torch.Tensor:
    return 3 + 2 * torch.randn(count, 16, generator=torch.Generator().manual_seed(1))


def test_names_are_told_from_codes_alone() -> None:
    meaning = network()
    features = seen(6)
    with torch.no_grad():
        latents = meaning.coder(features)
        assert latents.shape == (6, 2, 2)
        codes = meaning.quantizer(latents).codes
        again = meaning.told(rearrange(meaning.quantizer.vectors(codes), "b n d -> b (n d)"))
        assert torch.allclose(meaning(features), again, atol=1e-6)
        assert again.shape == (6, 3)


def test_gradients_go_through_codes() -> None:
    meaning = network()
    meaning(seen(6)).square().sum().backward()
    assert all(item.grad is not None and item.grad.any() for item in meaning.parameters())
    assert all(item.grad is None for item in meaning.namer.parameters())


def test_features_as_they_are_stand_for_standardised_ones() -> None:
    coder = MeaningCoder(16, SMALL)
    features = seen(6)
    mean, deviation = features.mean(dim=0), features.std(dim=0)
    with torch.no_grad():
        expected = coder((features - mean) / deviation)
        coder.standardise(mean, deviation)
        assert torch.allclose(coder(features), expected, atol=1e-5)


def test_the_namer_is_no_part_of_what_learns() -> None:
    meaning = network().train()
    assert not meaning.namer.training
    names = {name.partition(".")[0] for name in meaning.state_dict()}
    assert names == {"coder", "told"}


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    meaning = network()
    meaning.save(tmp_path)
    loaded = MeaningNetwork.load(tmp_path)
    assert loaded.settings == SMALL and not loaded.training and not loaded.namer.training
    assert loaded.namer.names == meaning.namer.names
    # The folder is a namer's as well.
    assert NamingNetwork.load(tmp_path).settings == meaning.namer.settings
    with torch.no_grad():
        images = torch.rand(2, 3, 16, 16)
        features = meaning.namer.tower(images)
        assert torch.equal(loaded.namer.tower(images), features)
        assert torch.equal(loaded(features), meaning(features))


def test_files_that_are_missing_or_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"meaning_config\.json is missing"):
        MeaningNetwork.load(tmp_path)
    network().save(tmp_path)
    file = tmp_path / "meaning_config.json"
    for settings, message in (
        (json.dumps(replace(SMALL, coder_width=8).to_plain()), "do not fit its settings"),
        (json.dumps({"depth": 2}), "'depth'"),
    ):
        file.write_text(settings, encoding="utf-8")
        with pytest.raises(PluginError, match=message):
            MeaningNetwork.load(tmp_path)
    file.write_text(json.dumps(SMALL.to_plain()), encoding="utf-8")
    (tmp_path / "namer.safetensors").unlink()
    with pytest.raises(PluginError, match=r"namer\.safetensors is missing"):
        MeaningNetwork.load(tmp_path)
    (tmp_path / "meaning.safetensors").unlink()
    with pytest.raises(PluginError, match=r"meaning\.safetensors is missing"):
        MeaningNetwork.load(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_codes": 0}, "must be positive"),
        ({"coder_width": 0}, "must be positive"),
        ({"levels": [2]}, "levels need 3"),
        ({"levels": []}, "levels need 3"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        MeaningSettings.of(settings, "the settings")
