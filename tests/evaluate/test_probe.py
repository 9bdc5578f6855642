"""The linear probe: it tells what codes say and not what they hide, of each codebook."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from mmgen.errors import DataError, SettingsError
from mmgen.evaluate.comparison import compare
from mmgen.evaluate.pack import read_pictures
from mmgen.evaluate.probe import ProbePack, fitted_classes, probe, read_probe_pack
from mmgen.evaluate.progress import unwatched
from mmgen.evaluate.tokenizer import at_nearest_size
from mmgen.evaluate.yardstick import Candidate
from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Codes,
    FixedPixels,
    Grid,
    Picture,
    VisualTokenizerSpec,
)
from mmgen_palette import PaletteTokenizer


class ColourAndNothing(AbstractVisualTokenizer):
    """One code of the strongest colour of the middle, and one that is always the same."""

    spec = VisualTokenizerSpec(
        codebook_sizes=(3, 4), layouts=(Grid(1, 1),), pixels=FixedPixels(64, 64)
    )
    fingerprint = "0" * 64

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        colours = [(1 - image).sum(axis=(0, 1)).argmin() for image in images]
        return [Codes(np.array([[colour, 2]]), Grid(1, 1)) for colour in colours]

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        return [np.zeros((64, 64, 3), dtype=np.float32) for _ in codes]

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        return np.eye(self.spec.codebook_sizes[codebook], dtype=np.float32)


def read(pack: Path, column: str, *, limit: int | None = None, split: str = "val") -> ProbePack:
    return read_probe_pack(
        pack, picture_column="webp64", column=column, filters={"split": split}, limit=limit
    )


def codes_of(tokenizer: AbstractVisualTokenizer, pack: Path, *, limit: int | None) -> list[Codes]:
    pictures = read_pictures(pack, column="webp64", filters={"split": "val"}, limit=limit)
    return tokenizer.encode([at_nearest_size(picture, tokenizer) for picture in pictures])


def test_it_learns_from_the_rows_that_the_filters_leave_out(pack: Path) -> None:
    found = read(pack, "style")
    assert len(found.labels) == 9 and len(found.train) == len(found.train_labels) == 27
    assert set(found.labels) == {"red", "green", "blue"}
    assert read(pack, "concept", limit=2).labels == ("bar", "bar")
    assert "bar" not in read(pack, "concept").train_labels


def test_colours_of_unseen_shapes_are_told_from_codes_of_colours(pack: Path) -> None:
    tokenizer = ColourAndNothing()
    codes = codes_of(tokenizer, pack, limit=None)
    score = probe(tokenizer, codes, read(pack, "style"), progress=unwatched)
    assert (score.num_classes, score.num_train, score.num_pictures) == (3, 27, 9)
    colour, nothing = score.codebooks
    assert colour.mean == colour.places == 1.0
    # Knowing nothing, it can only name one class, and each is a third of the pictures.
    assert nothing.mean == nothing.places == pytest.approx(score.commonest) == pytest.approx(1 / 3)


def test_a_class_that_was_never_learned_is_never_told(pack: Path) -> None:
    tokenizer = PaletteTokenizer()
    codes = codes_of(tokenizer, pack, limit=4)
    score = probe(tokenizer, codes, read(pack, "concept", limit=4), progress=unwatched)
    assert score.num_classes == 3 and score.commonest == 0
    assert score.codebooks[0].mean == 0 and score.codebooks[0].places == 0


def test_the_regression_separates_what_is_linear_and_ignores_constants() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(300, 5, generator=generator)
    features[:, 4] = 7.0
    weights = torch.randn(5, 4, generator=generator)
    targets = (features[:, :4] @ weights[:4]).argmax(dim=1)
    unseen = torch.randn(300, 5, generator=generator)
    told = fitted_classes(features, targets, unseen, num_classes=4)
    right = (unseen[:, :4] @ weights[:4]).argmax(dim=1)
    assert (told == right).float().mean() > 0.9
    shuffled = targets[torch.randperm(300, generator=generator)]
    chance = fitted_classes(features, shuffled, unseen, num_classes=4)
    assert (chance == right).float().mean() < 0.6


def test_what_cannot_be_probed_is_said(pack: Path) -> None:
    with pytest.raises(SettingsError, match="leaves none"):
        read_probe_pack(pack, picture_column="webp64", column="style", filters={}, limit=None)
    with pytest.raises(DataError, match="has no column nothing"):
        read(pack, "nothing")


def test_the_comparison_has_a_table_of_it(pack: Path) -> None:
    tokenizer = PaletteTokenizer()
    pictures = read_pictures(pack, column="webp64", filters={"split": "val"}, limit=9)
    candidate = Candidate(name="palette", tokenizer=tokenizer, num_parameters=None)
    comparison, _ = compare(
        [candidate],
        pictures,
        judge=None,
        code_model=None,
        progress=unwatched,
        probe_pack=read(pack, "style"),
    )
    (figures,) = comparison.tokenizers
    assert figures.probe is not None and figures.probe.codebooks[0].mean > 0.6
    text = comparison.markdown()
    assert "## Probe of style" in text and "from 27 other pictures" in text
    assert "--probe" not in text
