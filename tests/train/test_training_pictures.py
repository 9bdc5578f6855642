"""Pictures in memory: which of them a step takes, and what is said of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmgen.errors import DataError
from mmgen.pictures import save_png, to_picture
from mmgen.testing import draw_picture
from mmgen.train.progress import SilentProgress
from mmgen.train.sources import AbstractSourceConfig, FolderConfig, ShapesConfig, WeightedSource
from mmgen.train.training_pictures import Batch, TrainingPictures


def load(source: AbstractSourceConfig, *, needs_captions: bool = False) -> TrainingPictures:
    return TrainingPictures.load(
        [WeightedSource(source=source)],
        SilentProgress(),
        size=(64, 64),
        resize="crop",
        needs_captions=needs_captions,
    )


@pytest.fixture(scope="module")
def pictures() -> TrainingPictures:
    return load(ShapesConfig(count=6))


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


def test_a_reader_of_captions_needs_some(tmp_path: Path) -> None:
    save_png(to_picture(draw_picture((64, 64), seed=0)), tmp_path / "one.png", {})
    (tmp_path / "one.txt").write_text("", encoding="utf-8")
    silent = FolderConfig(path=tmp_path)
    assert load(silent).captions == ((),)
    with pytest.raises(DataError, match="no picture has one"):
        load(silent, needs_captions=True)


def test_a_sample_has_no_picture_twice_and_a_caption_of_each(pictures: TrainingPictures) -> None:
    some = pictures.sample(100, seed=1)
    assert len(some.images) == len(some.captions) == len(pictures.pixels)
    found = [tuple((image * 255).round().byte().flatten().tolist()) for image in some.images]
    assert len(set(found)) == len(found)
    said = {
        tuple(pixels.flatten().tolist()): captions
        for pixels, captions in zip(pictures.pixels, pictures.captions, strict=True)
    }
    assert all(
        caption in said[pixels] for pixels, caption in zip(found, some.captions, strict=True)
    )
    assert pictures.sample(3, seed=1).captions != pictures.sample(3, seed=2).captions
