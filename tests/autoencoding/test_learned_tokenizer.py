"""What every tokenizer with weights does alike: files, refusals, batches, perturbation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mmgen.autoencoding import ConvolutionalSettings, LearnedSettings, equal_batches
from mmgen.autoencoding.grid_tokenizer import perturbed
from mmgen.errors import PluginError
from mmgen.plugins import load_visual_tokenizer_class

SMALL = {
    "levels": [5, 5, 3],
    "encoder_widths": [8, 8],
    "encoder_depths": [1, 1],
    "decoder_widths": [8, 8, 8],
    "decoder_depths": [1, 1, 1],
    "max_side": 32,
    "default_side": 16,
}


def test_settings_say_what_does_not_fit() -> None:
    with pytest.raises(
        PluginError, match=r"name 'depth', which is not a setting; there are .*max_s"
    ):
        ConvolutionalSettings.of({"depth": 3}, "the settings given")
    with pytest.raises(PluginError, match=r"do not fit: perturbation must lie in 0\.\.1, got 2"):
        ConvolutionalSettings.of({"perturbation": 2}, "the settings given")


def test_settings_come_back_from_json() -> None:
    settings = ConvolutionalSettings(encoder_widths=(3, 4), min_psnr=2.5)
    assert (
        ConvolutionalSettings.of(json.loads(json.dumps(settings.to_plain())), "the file")
        == settings
    )
    assert LearnedSettings.of({}, "nothing") == LearnedSettings()


def test_a_promise_changes_no_fingerprint() -> None:
    kind = load_visual_tokenizer_class("fsq")
    plain = kind.untrained(SMALL, seed=0)
    assert kind.untrained({**SMALL, "min_psnr": 9}, seed=0).fingerprint == plain.fingerprint
    assert kind.untrained({**SMALL, "perturbation": 0.1}, seed=0).fingerprint == plain.fingerprint
    assert kind.untrained({**SMALL, "max_side": 40}, seed=0).fingerprint != plain.fingerprint
    assert kind.untrained(SMALL, seed=1).fingerprint != plain.fingerprint


def test_weights_of_other_settings_are_refused(tmp_path: Path) -> None:
    kind = load_visual_tokenizer_class("fsq")
    kind.untrained(SMALL, seed=0).save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(values | {"levels": [5, 5]}))
    with pytest.raises(PluginError, match="do not fit its settings"):
        kind.load(tmp_path)


def test_batches_hold_equal_shapes_within_the_budget() -> None:
    shapes = [(2, 2), (4, 4), (2, 2), (2, 2), (4, 4), (9, 9)]
    assert list(equal_batches(shapes, 8)) == [[0, 2], [3], [1], [4], [5]]


def test_perturbation_exchanges_about_its_share() -> None:
    torch.manual_seed(0)
    vectors = torch.arange(4000.0).reshape(10, 20, 20, 1)
    moved = perturbed(vectors, 0.25)
    assert moved.shape == vectors.shape
    assert 0.2 < (moved != vectors).float().mean() < 0.3
    assert torch.isin(moved, vectors).all()
