"""Pictures in memory: which of them a step takes, and what is said of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mmgen.errors import DataError
from mmgen.pictures import save_png, to_picture
from mmgen.plugins import load_visual_tokenizer
from mmgen.testing import draw_picture
from mmgen.train.progress import SilentProgress
from mmgen.train.sources import FolderConfig, ShapesConfig, WeightedSource
from mmgen.train.training_pictures import Batch, TrainingPictures
from mmgen.visual_tokenizer import VisualTokenizerSpec


@pytest.fixture(scope="module")
def spec() -> VisualTokenizerSpec:
    return load_visual_tokenizer("palette").spec


@pytest.fixture(scope="module")
def pictures(spec: VisualTokenizerSpec) -> TrainingPictures:
    shapes = WeightedSource(source=ShapesConfig(count=6))
    return TrainingPictures.load([shapes], spec, SilentProgress())


def batch(pictures: TrainingPictures, *, dropout: float, seed: int = 0, shift: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return pictures.batch(32, max_shift=shift, caption_dropout=dropout, generator=generator)


def test_a_caption_is_one_of_its_pictures(pictures: TrainingPictures) -> None:
    drawn = batch(pictures, dropout=0.0)
    said = {
        tuple(pixels.flatten().tolist()): captions
        for pixels, captions in zip(pictures.pixels, pictures.captions, strict=True)
    }
    for image, caption in zip(drawn.images, drawn.captions, strict=True):
        assert caption in said[tuple((image * 255).round().byte().flatten().tolist())]


def test_captions_are_left_out_as_often_as_wanted(pictures: TrainingPictures) -> None:
    assert "" not in batch(pictures, dropout=0.0).captions
    assert set(batch(pictures, dropout=1.0).captions) == {""}
    assert 4 < batch(pictures, dropout=0.5).captions.count("") < 28


def test_a_batch_follows_from_its_generator(pictures: TrainingPictures) -> None:
    one, other = batch(pictures, dropout=0.3, shift=2), batch(pictures, dropout=0.3, shift=2)
    assert torch.equal(one.images, other.images) and one.captions == other.captions
    assert batch(pictures, dropout=0.3, seed=1).captions != one.captions


def test_leaving_captions_out_chooses_no_other_pictures(pictures: TrainingPictures) -> None:
    one, other = batch(pictures, dropout=0.0, shift=2), batch(pictures, dropout=1.0, shift=2)
    assert torch.equal(one.images, other.images)


def test_a_reader_of_captions_needs_some(spec: VisualTokenizerSpec, tmp_path: Path) -> None:
    save_png(to_picture(draw_picture((64, 64), seed=0)), tmp_path / "one.png", {})
    (tmp_path / "one.txt").write_text("", encoding="utf-8")
    silent = [WeightedSource(source=FolderConfig(path=tmp_path))]
    assert TrainingPictures.load(silent, spec, SilentProgress()).captions == ((),)
    reads = replace(spec, captions_used=frozenset({"encode"}))
    with pytest.raises(DataError, match="no picture has one"):
        TrainingPictures.load(silent, reads, SilentProgress())
