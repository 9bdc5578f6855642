"""Codes of two kinds in one codebook: each has vectors and numbers of its own."""

from __future__ import annotations

import torch

from mmgen_holistic.quantizer import NamingQuantizer


def test_every_code_comes_back() -> None:
    quantizer = NamingQuantizer((5, 3), 4)
    assert quantizer.codebook_sizes == (19,)
    names = torch.tensor([[9.0, -9.0, place] for place in (1.0, 2.0, 3.0, 4.0)])
    quantised = quantizer(names)
    assert quantised.codes.flatten().tolist() == [15, 16, 17, 18]
    assert torch.equal(quantised.vectors, quantizer.vectors(quantised.codes))
    numbers = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)) * 3
    quantised = quantizer(torch.nn.functional.pad(numbers, (0, 1)))
    assert set(quantised.codes.flatten().tolist()) == set(range(15))
    assert torch.allclose(quantised.vectors, quantizer.vectors(quantised.codes))


def test_a_code_is_of_one_kind() -> None:
    quantizer = NamingQuantizer((5, 3), 4)
    vectors = quantizer.vectors(torch.arange(19).unsqueeze(-1))
    assert vectors[:, -1].tolist() == [0] * 15 + [1, 2, 3, 4]
    assert not vectors[15:, :-1].any()
    assert len({tuple(vector) for vector in vectors.tolist()}) == 19
    assert quantizer.code_vectors(0).shape[0] == 19
