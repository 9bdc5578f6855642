"""The teacher of pictures and words: what it compares, that it learns, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from mmgen.autoencoding.contrastive import ContrastiveNetwork, ContrastiveSettings
from mmgen.errors import PluginError

SMALL = ContrastiveSettings(widths=(8, 8, 8), depths=(1, 1), num_words=512, word_dim=8, dim=8)
COLOURS = {
    "a red field": (0.9, 0.1, 0.1),
    "a green field": (0.1, 0.9, 0.1),
    "a blue field": (0.1, 0.1, 0.9),
    "a white field": (0.95, 0.95, 0.95),
}


def network(seed: int = 0) -> ContrastiveNetwork:
    torch.manual_seed(seed)
    return ContrastiveNetwork(SMALL)


def fields() -> torch.Tensor:
    values = torch.tensor(list(COLOURS.values()))
    return values[:, :, None, None].expand(-1, -1, 16, 16).contiguous()


def test_a_place_is_eight_pixels_and_a_picture_the_mean_of_its_places() -> None:
    teacher = network().eval()
    with torch.no_grad():
        places = teacher.places(torch.rand(2, 3, 24, 40))
        assert places.shape == (2, 3, 5, 8)
        one = torch.rand(1, 3, 8, 8)
        assert torch.allclose(teacher.embedded(one), teacher.places(one)[:, 0, 0])


def test_the_loss_is_that_of_both_directions() -> None:
    teacher = network().eval()
    images, captions = fields(), list(COLOURS)
    found = teacher(images, captions)
    pictures, texts = teacher.embedded(images), teacher.text(captions)
    pictures = functional.normalize(pictures - pictures.mean(0), dim=-1)
    texts = functional.normalize(texts - texts.mean(0), dim=-1)
    logits = pictures @ texts.T / 0.07
    right = torch.arange(4)
    expected = functional.cross_entropy(logits, right) + functional.cross_entropy(logits.T, right)
    assert torch.allclose(found.loss, expected / 2, atol=1e-5)
    assert found.accuracy == (logits.argmax(1) == right).float().mean()


def test_equal_texts_are_equally_right() -> None:
    teacher = network().eval()
    images = fields()[:1].expand(4, -1, -1, -1)
    alike = teacher(images, ["the same"] * 4)
    assert alike.accuracy == 1
    # With nothing to choose between, both directions cost what an even guess among four costs.
    assert torch.allclose(alike.loss, torch.tensor(4.0).log(), atol=1e-4)


def test_words_are_found_whatever_their_case_and_marks() -> None:
    bag = network().text
    assert bag.rows_of("A red, RED apple!") == bag.rows_of("a RED red apple")
    assert len(set(bag.rows_of("an apple and a pear"))) == 5
    with torch.no_grad():
        vectors = bag(["", "one", "two words"])
        assert torch.isfinite(vectors).all()
        assert torch.allclose(vectors[1], bag(["one"])[0], atol=1e-6)


def test_it_learns_which_picture_is_called_what() -> None:
    teacher = network().train()
    optimizer = torch.optim.Adam(teacher.parameters(), lr=5e-3)
    images, captions = fields(), list(COLOURS)
    for _ in range(40):
        # Recolouring would make a red field a green one, so the pictures are given as they are.
        loss = teacher.eval()(images, captions).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = teacher(images, captions)
    assert found.accuracy == 1 and found.loss < 0.3


def test_training_changes_pictures_first() -> None:
    teacher = network()
    images, captions = fields(), list(COLOURS)
    torch.manual_seed(1)
    one = teacher.train()(images, captions).loss
    other = teacher(images, captions).loss
    assert one != other
    assert teacher.eval()(images, captions).loss == teacher(images, captions).loss


def test_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    teacher = network().eval()
    teacher.save(tmp_path)
    loaded = ContrastiveNetwork.load(tmp_path)
    assert loaded.settings == SMALL and not loaded.training
    with torch.no_grad():
        assert torch.equal(loaded.embedded(fields()), teacher.embedded(fields()))
        assert torch.equal(loaded.text(["a red field"]), teacher.text(["a red field"]))


def test_files_that_are_missing_or_do_not_fit_are_named(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"teacher_config\.json is missing"):
        ContrastiveNetwork.load(tmp_path)
    network().save(tmp_path)
    changed = json.dumps({**SMALL.to_plain(), "dim": 4})
    (tmp_path / "teacher_config.json").write_text(changed, encoding="utf-8")
    with pytest.raises(PluginError, match="do not fit its settings"):
        ContrastiveNetwork.load(tmp_path)
    with pytest.raises(ValueError, match="sizes must be positive"):
        ContrastiveSettings(dim=0)
