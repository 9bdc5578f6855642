"""Signs and codes are each other's exact inverse."""

from __future__ import annotations

import pytest
import torch

from mmgen_lfq.bits import codes_of_signs, signs_of_codes


@pytest.mark.parametrize(("groups", "bits"), [(1, 1), (1, 9), (2, 9), (3, 6), (4, 8)])
def test_signs_and_codes_invert_each_other(groups: int, bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    codes = torch.randint(2**bits, (5, 7, groups), generator=generator)
    signs = signs_of_codes(codes, bits)
    assert signs.shape == (5, 7, groups * bits) and signs.dtype == torch.float32
    assert set(signs.abs().flatten().tolist()) == {1.0}
    assert torch.equal(codes_of_signs(signs > 0, groups), codes)


def test_the_first_bit_of_a_group_is_the_highest() -> None:
    positive = torch.tensor([True, False, False, False, True, True])
    assert codes_of_signs(positive, 2).tolist() == [4, 3]
