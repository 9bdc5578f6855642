"""The judge: it learns, it is repeatable, and it comes back from its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmgen.errors import CheckpointError
from mmgen.evaluate.classifier import (
    Classifier,
    ClassifierConfig,
    trained_classifier,
)
from mmgen.evaluate.comparison import compare
from mmgen.evaluate.feature_distance import feature_distance
from mmgen.evaluate.pack import EmojiRow
from mmgen.evaluate.progress import unwatched
from mmgen.evaluate.yardstick import Candidate
from mmgen.pictures import to_array
from mmgen_palette import PaletteTokenizer

TINY = ClassifierConfig(side=16, widths=(8, 16), num_epochs=60, batch_size=16, lr=1e-2)


@pytest.fixture(scope="module")
def train(rows: list[EmojiRow]) -> list[EmojiRow]:
    return [row for row in rows if row.split == "train"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("judge")


@pytest.fixture(scope="module")
def judge(train: list[EmojiRow], directory: Path) -> Classifier:
    return trained_classifier(train, TINY, directory, progress=unwatched)


def test_it_recognises_shapes_in_colours_not_seen_with_them(
    judge: Classifier, rows: list[EmojiRow]
) -> None:
    held_out = [row for row in rows if row.split == "val_style"]
    ranks = judge.ranks([row.open() for row in held_out], [row.concept for row in held_out])
    assert ranks.num_pictures == 3
    assert ranks.top1 == 1.0
    assert ranks.top5 == 1.0


def test_the_wrong_concept_is_not_recognised(judge: Classifier, train: list[EmojiRow]) -> None:
    squares = [row.open() for row in train if row.concept == "square"]
    assert judge.ranks(squares, ["circle"] * len(squares)).top1 == 0.0


def test_a_second_call_reads_the_file_and_judges_alike(
    judge: Classifier, train: list[EmojiRow], directory: Path, rows: list[EmojiRow]
) -> None:
    (path,) = directory.glob("classifier-*.safetensors")
    before = path.stat().st_mtime_ns
    again = trained_classifier(train, TINY, directory, progress=unwatched)
    pictures = [row.open() for row in rows]
    assert again.guesses(pictures) == judge.guesses(pictures)
    assert path.stat().st_mtime_ns == before


def test_training_repeats_and_leaves_the_global_generator_alone(
    judge: Classifier, train: list[EmojiRow], tmp_path: Path, rows: list[EmojiRow]
) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    again = trained_classifier(train, TINY, tmp_path, progress=unwatched)
    assert torch.equal(torch.rand(3), expected)
    pictures = [row.open() for row in rows]
    assert again.guesses(pictures) == judge.guesses(pictures)


def test_other_rows_train_another_judge(train: list[EmojiRow], directory: Path) -> None:
    short = ClassifierConfig(side=16, widths=(8,), num_epochs=1, batch_size=4)
    before = set(directory.iterdir())
    trained_classifier(train, short, directory, progress=unwatched)
    trained_classifier(train[1:], short, directory, progress=unwatched)
    assert len(set(directory.iterdir()) - before) == 2


def test_a_damaged_file_is_refused(train: list[EmojiRow], tmp_path: Path) -> None:
    short = ClassifierConfig(side=16, widths=(8,), num_epochs=1, batch_size=4)
    trained_classifier(train, short, tmp_path, progress=unwatched)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(CheckpointError, match="delete it to train anew"):
        trained_classifier(train, short, tmp_path, progress=unwatched)


def test_settings_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        ClassifierConfig(num_epochs=0)


def test_its_features_tell_more_from_less_changed_pictures(
    judge: Classifier, rows: list[EmojiRow]
) -> None:
    pictures = [row.open() for row in rows]
    features = judge.features(pictures)
    assert features.shape == (len(rows), TINY.widths[-1])
    arrays = [to_array(picture, (64, 64), "crop") for picture in pictures]
    blurred = [to_array(picture.resize((12, 12)), (64, 64), "crop") for picture in pictures]
    crushed = [to_array(picture.resize((3, 3)), (64, 64), "crop") for picture in pictures]
    distances = [feature_distance(judge, arrays, other) for other in (arrays, blurred, crushed)]
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert distances == sorted(distances)


def test_a_comparison_names_the_distance_as_its_own(
    judge: Classifier, rows: list[EmojiRow]
) -> None:
    palette = Candidate(name="palette", tokenizer=PaletteTokenizer(), num_parameters=None)
    pictures = [row.open() for row in rows[:8]]
    comparison, _ = compare([palette], pictures, judge=judge, code_model=None, progress=unwatched)
    distance = comparison.tokenizers[0].classifier_distance
    assert distance is not None and distance > 0
    assert "mmgen classifier distance" in comparison.markdown()
    assert not any("--judge" in item for item in comparison.not_measured)
