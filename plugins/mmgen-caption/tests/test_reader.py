"""The reader of captions: words, their pieces, and what is read of them."""

from __future__ import annotations

import pytest
import torch

from mmgen_caption.reader import CaptionReader, pieces_of, words_of


@pytest.fixture(scope="module")
def reader() -> CaptionReader:
    torch.manual_seed(0)
    return CaptionReader(
        width=16, num_heads=2, num_layers=1, num_buckets=512, num_summaries=3, num_places=4
    ).eval()


def test_words_have_no_case_and_no_punctuation() -> None:
    assert words_of("A red, red Disc!") == ["a", "red", "red", "disc"]
    assert words_of("…") == []


def test_pieces_are_the_word_and_its_runs_of_three_letters() -> None:
    assert len(pieces_of("smile", 2**40)) == 6
    assert len(set(pieces_of("smile", 2**40)) & set(pieces_of("smiling", 2**40))) == 3
    assert pieces_of("a", 2**40) == pieces_of("a", 2**40) and len(pieces_of("a", 2**40)) == 1
    assert max(pieces_of("hippopotamus", 7)) < 7


def test_pieces_are_the_same_on_every_machine() -> None:
    assert pieces_of("red", 1000) == (855, 714, 767, 771)


def test_captions_of_several_lengths_do_not_disturb_each_other(reader: CaptionReader) -> None:
    captions = ["", "a disc", "a red disc on a blue ground with much to say"]
    together = reader(captions)
    assert together.shape == (3, 3, 16)
    for index, caption in enumerate(captions):
        assert torch.allclose(reader([caption])[0], together[index], atol=1e-6)


def test_order_counts_and_late_words_too(reader: CaptionReader) -> None:
    texts = ["red on blue", "blue on red", "a b c d e f red", "a b c d e f blue"]
    one, other, red, blue = reader(texts)
    assert not torch.allclose(one, other, atol=1e-4)
    assert not torch.allclose(red, blue, atol=1e-4)
