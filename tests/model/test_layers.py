"""Products of few vectors are those of a layer, whatever way they are computed."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from mmgen.model.layers import product


@pytest.mark.parametrize("num_rows", [1, 2, 5, 64])
@pytest.mark.parametrize("is_transposed", [False, True])
def test_a_product_is_that_of_a_layer(num_rows: int, is_transposed: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(num_rows, 24, generator=generator)
    if is_transposed:
        # As an earlier product leaves it.
        x = x.t().contiguous().t()
    weight = torch.randn(40, 24, generator=generator)
    got = product(x, weight)
    assert got.shape == (num_rows, 40)
    assert torch.allclose(got, functional.linear(x, weight), atol=1e-5)
