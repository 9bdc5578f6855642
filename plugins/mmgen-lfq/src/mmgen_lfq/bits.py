"""Signs as codes: the bits of a latent, in groups, each group's first bit the highest."""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor

__all__ = ["codes_of_signs", "signs_of_codes"]


def codes_of_signs(positive: Tensor, groups: int) -> Tensor:
    """Number booleans `[..., bits]` as codes `[..., groups]`, int64."""
    digits = rearrange(positive, "... (group bit) -> ... group bit", group=groups).long()
    return reduce(digits * _places(digits.shape[-1], positive.device), "... bit -> ...", "sum")


def signs_of_codes(codes: Tensor, bits: int) -> Tensor:
    """Return what codes `[..., groups]` of so many bits each stand for, `[..., groups * bits]`.

    The result is float32, 1 or -1: the exact inverse of `codes_of_signs`.
    """
    digits = codes.unsqueeze(-1).bitwise_and(_places(bits, codes.device)) != 0
    signs = digits.to(torch.float32) * 2 - 1
    return rearrange(signs, "... group bit -> ... (group bit)")


def _places(bits: int, device: torch.device) -> Tensor:
    return 2 ** torch.arange(bits - 1, -1, -1, device=device)
