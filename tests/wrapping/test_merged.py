"""Merged codes: every legal sequence is a picture, and pictures lose nothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmgen.errors import PluginError, SettingsError
from mmgen.grammar import Grammar, ImageSpan
from mmgen.plugins import load_visual_tokenizer, located_visual_tokenizer
from mmgen.testing import check, draw_picture
from mmgen.visual_tokenizer import Codes, Grid, Ordered
from mmgen.vocabulary import Vocabulary
from mmgen.wrapping.merged import MergedTokenizer, merge_tokenizer
from mmgen.wrapping.wrapper import load_wrapped

PICTURES = [draw_picture((64, 64), seed=seed) for seed in range(24)]


def made() -> MergedTokenizer:
    wrapped = load_wrapped("palette")
    codes = wrapped.tokenizer.encode(PICTURES)
    return merge_tokenizer(wrapped, codes, num_merges=80, max_length=16)


MERGED = made()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("merged") / "it"
    path.mkdir()
    MERGED.save(path)
    return path


def test_the_contract_is_kept(folder: Path) -> None:
    report = check(MergedTokenizer.load(folder))
    assert report.is_passed, report.to_text()


def test_pictures_take_fewer_codes_and_lose_nothing() -> None:
    inner = load_visual_tokenizer("palette")
    codes = MERGED.encode(PICTURES)
    assert sum(len(item.array) for item in codes) < 0.8 * 64 * len(PICTURES)
    assert len({len(item.array) for item in codes}) > 3
    wanted = inner.decode(inner.encode(PICTURES))
    assert all(map(np.array_equal, MERGED.decode(codes), wanted))


def test_longer_is_the_same_picture_and_shorter_its_beginning() -> None:
    (plain,) = MERGED.encode(PICTURES[:1])
    (longest,) = MERGED.encode(PICTURES[:1], length=64)
    assert longest.layout == Ordered(64) and longest.array.max() < 256
    assert np.array_equal(MERGED.decode([plain])[0], MERGED.decode([longest])[0])
    (short,) = MERGED.encode(PICTURES[:1], length=3)
    assert short == Codes(plain.array[:3], Ordered(3))
    assert np.array_equal(
        MERGED.decode([short])[0], MERGED.preview(Codes(short.array, plain.layout))
    )


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000), st.integers(1, 64))
def test_every_legal_sequence_is_a_picture_by_the_rule(seed: int, length: int) -> None:
    symbols = np.random.default_rng(seed).integers(0, MERGED.merges.num_symbols, (length, 1))
    (picture,) = MERGED.decode([Codes(symbols, Ordered(length))])
    assert picture.shape == (64, 64, 3) and picture.min() >= 0 and picture.max() <= 1
    cells = MERGED.merges.expand(symbols[:, 0].tolist())
    filled = (cells + [251] * 64)[:64]
    wanted = load_visual_tokenizer("palette").decode([Codes(np.array(filled)[:, None], Grid(8, 8))])
    assert np.array_equal(picture, wanted[0])


def test_whatever_the_grammar_allows_is_drawn() -> None:
    spec = MERGED.spec
    vocabulary = Vocabulary.build(num_text_ids=10, text_fingerprint="x").extend(
        "merged", codebook_sizes=spec.codebook_sizes, layouts=spec.layouts
    )
    grammar = Grammar(vocabulary)
    for seed in range(8):
        random = np.random.default_rng(seed)
        ids = [vocabulary.bos_id, vocabulary.tokenizer("merged").marker_id]
        state = grammar.state_after(ids)
        while state.tokenizer is not None:
            choices = np.concatenate([np.array(part) for part in state.allowed])
            ids.append(int(random.choice(choices)))
            state = state.advance(ids[-1])
        spans = grammar.parse([*ids, vocabulary.eos_id])
        (image,) = [span for span in spans if isinstance(span, ImageSpan)]
        assert MERGED.decode([image.codes])[0].shape == (64, 64, 3)


def test_a_code_means_what_it_stands_for() -> None:
    inner = load_visual_tokenizer("palette").code_vectors(0)
    vectors = MERGED.code_vectors(0)
    assert np.array_equal(vectors[:256], inner)
    expansion = list(MERGED.merges.expansions[300])
    assert np.allclose(vectors[300], inner[expansion].mean(axis=0))


def test_a_folder_names_its_plugin(folder: Path) -> None:
    name, place = located_visual_tokenizer(str(folder))
    assert (name, place) == ("merged", folder)
    loaded = load_visual_tokenizer(name, place)
    assert loaded.fingerprint == MERGED.fingerprint != load_visual_tokenizer("palette").fingerprint


def test_without_a_folder_there_is_none() -> None:
    with pytest.raises(PluginError, match=r"ships none; make one with `mmgen tokenizer merge`"):
        load_visual_tokenizer("merged")


def test_another_wrapped_tokenizer_is_refused_with_both_fingerprints(
    folder: Path, tmp_path: Path
) -> None:
    stated = json.loads((folder / "tokenizer_config.json").read_text())
    for key, value, message in (
        ("fingerprint", "0" * 64, f"with the fingerprint {'0' * 64} of mmgen-palette .*take the"),
        ("plugin", "gone", "wraps 'gone', which is not installed; install mmgen-palette"),
    ):
        place = tmp_path / key
        place.mkdir()
        (place / "wrapper.safetensors").write_bytes((folder / "wrapper.safetensors").read_bytes())
        changed = {**stated, "wraps": {**stated["wraps"], key: value}}
        (place / "tokenizer_config.json").write_text(json.dumps(changed))
        with pytest.raises(PluginError, match=message):
            MergedTokenizer.load(place)


def test_files_that_are_damaged_are_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_bytes(
        (folder / "tokenizer_config.json").read_bytes()
    )
    with pytest.raises(PluginError, match=r"wrapper\.safetensors cannot be read"):
        MergedTokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(PluginError, match=r"no merged tokenizer in .*KeyError: 'format'"):
        MergedTokenizer.load(tmp_path)


def test_what_cannot_be_merged_is_refused() -> None:
    wrapped = load_wrapped("palette")
    codes = wrapped.tokenizer.encode([*PICTURES[:2], draw_picture((32, 32), seed=0)])
    with pytest.raises(SettingsError, match="codes of one layout, got 2"):
        merge_tokenizer(wrapped, codes, num_merges=4)
    with pytest.raises(SettingsError, match="no two codes occur side by side 1000 times"):
        merge_tokenizer(wrapped, codes[:2], num_merges=4, min_count=1000)
    with pytest.raises(SettingsError, match="1 merge or more"):
        merge_tokenizer(wrapped, codes[:2], num_merges=0)


def test_a_wrapper_can_be_wrapped(tmp_path: Path, folder: Path) -> None:
    """Merges over merges add nothing here, but a folder in a folder has to load."""
    wrapped = load_wrapped("merged", folder)
    codes = wrapped.tokenizer.encode(PICTURES, length=64)
    twice = merge_tokenizer(wrapped, codes, num_merges=5)
    twice.save(tmp_path)
    assert (tmp_path / "wrapped" / "tokenizer_config.json").is_file()
    again = MergedTokenizer.load(tmp_path)
    assert again.fingerprint == twice.fingerprint
    assert np.array_equal(
        again.decode(again.encode(PICTURES[:1]))[0], MERGED.decode(MERGED.encode(PICTURES[:1]))[0]
    )
