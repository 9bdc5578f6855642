"""Bytes of text ids and the numbers that a tally reports."""

from __future__ import annotations

import math
from dataclasses import replace

import torch

from mmgen.text_tokenizer import train_bpe
from mmgen.train.loss import LossSums
from mmgen.train.measure import Tally, text_id_bytes
from mmgen.train.processes import Processes


def test_ids_have_the_bytes_of_their_text() -> None:
    tokenizer = train_bpe(["red apple, red apple, grün"] * 3, num_ids=270)
    counts = text_id_bytes(tokenizer)
    text = "red apple grün"
    assert int(counts[tokenizer.encode(text)].sum()) == len(text.encode())
    assert int(counts.min()) == 1


def test_bits_are_per_byte_of_words_and_per_whole_picture() -> None:
    tally = Tally.empty()
    id_bytes = torch.tensor([1, 2, 3])
    targets = torch.tensor([[0, 2, 9, 9, 5, -100]])
    sums = LossSums(
        nats=torch.tensor([8.0, 6.0, 1.0]), counts=torch.tensor([2, 2, 1]), num_logits=40
    )
    tally.add(sums, targets, id_bytes, end_image_id=5)
    tally.add(sums, targets, id_bytes, end_image_id=5)
    report = tally.report()
    assert math.isclose(report["bits_per_byte"], 8 / 4 / math.log(2))
    assert math.isclose(report["bits_per_image"], 6 / math.log(2))
    assert report["loss"] == 3.0 and report["loss_text"] == 4.0
    assert tally.num_ids == 12 and tally.num_logits == 80


def test_one_process_adds_nothing() -> None:
    tally = replace(Tally.empty(), num_bytes=4, num_images=1, num_ids=6, num_logits=40)
    tally.add_up(Processes())
    assert (tally.num_bytes, tally.num_images, tally.num_ids, tally.num_logits) == (4, 1, 6, 40)


def test_what_did_not_occur_is_not_reported() -> None:
    assert Tally.empty().report() == {"loss": 0.0}
