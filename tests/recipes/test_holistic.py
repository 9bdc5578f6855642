"""The recipes of `holistic` and of the shipped model: what one stage leaves, the next one takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmgen.autoencoding import AbstractLearnedTokenizer, MeaningSettings, NamingSettings
from mmgen.plugins import load_visual_tokenizer, load_visual_tokenizer_class
from recipes.holistic import holistic
from recipes.mini import mini, mini_more


def test_what_a_stage_leaves_the_next_one_takes(tmp_path: Path) -> None:
    run = holistic(data=tmp_path, output=tmp_path / "run")
    namer, meaning = run.namer.output / "namer", run.meaning.output / "meaning"
    tokenizer = run.visual_tokenizer
    assert run.meaning.namer == namer and run.meaning.sources == run.namer.sources
    assert run.meaning.side == run.namer.side
    assert tokenizer.settings["meaning"] == str(meaning) and tokenizer.perceptual == namer
    assert tokenizer.start_from == "ordered"
    assert len({run.namer.output, run.meaning.output, tokenizer.output}) == 3


def test_pictures_are_named_by_concepts_and_labels(tmp_path: Path) -> None:
    sources = holistic(data=tmp_path).namer.sources
    names = [item.source.caption_columns for item in sources]  # type: ignore[attr-defined]
    assert names == [("concept",)] + [("label",)] * 4
    assert sum(item.weight for item in sources) == pytest.approx(1)


def test_the_shapes_of_all_stages_fit(tmp_path: Path) -> None:
    run = holistic(data=tmp_path)
    kind = load_visual_tokenizer_class("holistic")
    assert issubclass(kind, AbstractLearnedTokenizer)
    origin = "the recipe's settings"
    settings: Any = kind.settings_type.of(run.visual_tokenizer.settings, origin)
    assert settings.naming == NamingSettings.of(run.namer.settings, origin)
    assert settings.coding == MeaningSettings.of(run.meaning.settings, origin)
    # All that ordered has learned finds its place.
    ours = kind.build(settings).state_dict()
    for name, value in load_visual_tokenizer("ordered").network().state_dict().items():
        assert ours[name.replace("encoder.", "encoder.details.")].shape == value.shape


def test_the_model_speaks_of_the_tokenizers_codes(tmp_path: Path) -> None:
    run = mini(data=tmp_path, output=tmp_path / "run")
    stages = run.visual_tokenizer
    (source,) = run.prepare.visual_tokenizers
    assert source.name == "holistic"
    assert source.path == stages.visual_tokenizer.output / "tokenizer"
    assert run.decoder.export.visual_tokenizers == (source,)
    kind = load_visual_tokenizer_class("holistic")
    assert issubclass(kind, AbstractLearnedTokenizer)
    settings: Any = kind.settings_type.of(stages.visual_tokenizer.settings, "the recipe's settings")
    sizes = kind.build(settings).quantizer.codebook_sizes
    (length,) = source.lengths
    # Words, 8 marks, a marker and codes, in multiples of 64.
    used = run.text_tokenizer.num_ids + 8 + 1 + sum(sizes)
    assert run.decoder.decoder.vocab_size == -(-used // 64) * 64
    assert length == settings.default_length


def test_more_training_has_the_same_codes(tmp_path: Path) -> None:
    run, more = mini(data=tmp_path), mini_more(data=tmp_path)
    (ours,), (theirs,) = more.prepare.visual_tokenizers, run.prepare.visual_tokenizers
    assert (ours.name, ours.lengths, ours.path) == (theirs.name, theirs.lengths, None)
    assert more.decoder.export.visual_tokenizers == (ours,)
    assert more.decoder.decoder == run.decoder.decoder
