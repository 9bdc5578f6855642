"""The residual quantiser over scales: what remains shrinks, and a sum can be put together again."""

from __future__ import annotations

from fractions import Fraction

import pytest
import torch
from einops import rearrange

from mmgen_scales.quantizer import ScaleQuantizer, sizes_of

SHARES = (Fraction(1, 4), Fraction(1, 2), Fraction(1))
POSITIONS = 1 + 4 + 16


@pytest.fixture
def quantizer() -> ScaleQuantizer:
    torch.manual_seed(4)
    return ScaleQuantizer(SHARES, codebook_size=32, dim=3, prefix_share=0.5)


def latents(batch: int, rows: int = 4, columns: int = 4) -> torch.Tensor:
    return torch.randn(batch, rows, columns, 3, generator=torch.Generator().manual_seed(7))


def test_sizes_follow_the_grid() -> None:
    assert sizes_of(SHARES, 4, 4) == ((1, 1), (2, 2), (4, 4))
    assert sizes_of(SHARES, 8, 6) == ((2, 1), (4, 3), (8, 6))
    assert sizes_of(SHARES, 1, 1) == ((1, 1), (1, 1), (1, 1))


def test_codes_are_the_nearest_of_what_remains(quantizer: ScaleQuantizer) -> None:
    """Worked out scale by scale, with plain distances and without the quantiser's own steps."""
    quantizer.eval()
    with torch.no_grad():
        for parameter in quantizer.smoothing.parameters():
            parameter.uniform_(-0.3, 0.3)
        given = latents(2)
        found = quantizer(given)
        rest = given.tanh()
        expected = []
        for index, side in enumerate((1, 2, 4)):
            step = 4 // side
            small = rearrange(rest, "b (h y) (w x) d -> b (h w) (y x) d", y=step, x=step).mean(2)
            distances = (small.unsqueeze(2) - quantizer.codebook.vectors).square().sum(-1)
            codes = distances.argmin(-1)
            expected.append(codes)
            grid = rearrange(quantizer.codebook.vectors[codes], "b (h w) d -> b d h w", h=side)
            whole = torch.nn.functional.interpolate(grid, (4, 4), mode="bicubic")
            smooth = quantizer.smoothing[index].convolution
            assert isinstance(smooth, torch.nn.Conv2d)
            rest = rest - rearrange((whole + smooth(whole)) / 2, "b d h w -> b h w d")
    assert torch.equal(found.codes, torch.cat(expected, 1).unsqueeze(-1))
    assert torch.allclose(found.vectors, given.tanh() - rest, atol=1e-5)


def test_assembled_codes_are_what_the_encoder_summed(quantizer: ScaleQuantizer) -> None:
    quantizer.eval()
    with torch.no_grad():
        found = quantizer(latents(2, 8, 6))
        again = quantizer.assembled(found.codes.squeeze(-1), 8, 6)
    assert torch.allclose(found.vectors, again, atol=1e-6)


def test_a_prefix_of_scales_is_the_sum_of_these(quantizer: ScaleQuantizer) -> None:
    codes = torch.randint(32, (1, POSITIONS), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        nothing = quantizer.assembled(codes[:, :0], 4, 4)
        one = quantizer.assembled(codes[:, :1], 4, 4)
        two = quantizer.assembled(codes[:, :5], 4, 4)
        begun = quantizer.assembled(codes[:, :6], 4, 4)
    assert not nothing.any()
    assert torch.allclose(one, one[:, :1, :1].expand_as(one), atol=1e-6)
    assert not torch.allclose(one, two)
    # One code of the finest scale reaches its own place and, smoothed, those around it.
    assert torch.equal(two[:, 2:, :], begun[:, 2:, :])
    assert not torch.allclose(two[:, 0, 0], begun[:, 0, 0])


def test_training_learns_latents_that_codes_can_say(quantizer: ScaleQuantizer) -> None:
    quantizer.train()
    # Each picture of one colour, so that the coarsest scale could say it all.
    given = latents(48)[:, :1, :1].expand(-1, 4, 4, -1)
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=2e-3)
    first = last = 0.0
    for step in range(150):
        losses = quantizer(given).losses
        assert set(losses) == {"codebook", "commitment", "revival"}
        last = losses["codebook"].item()
        first = first if step else last
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert last < 0.2 * first
    used = torch.unique(quantizer(given).codes)
    assert len(used) >= 31, "codes without use are drawn to where latents are"


def test_gradients_pass_straight_through_to_the_latents(quantizer: ScaleQuantizer) -> None:
    given = latents(2).requires_grad_()
    quantizer.eval()(given).vectors.sum().backward()
    plain = latents(2).requires_grad_()
    plain.tanh().sum().backward()  # type: ignore[no-untyped-call]
    assert given.grad is not None and plain.grad is not None
    assert torch.allclose(given.grad, plain.grad)


def test_some_pictures_of_a_training_batch_keep_only_their_first_scales(
    quantizer: ScaleQuantizer,
) -> None:
    quantizer.train()
    with torch.no_grad():
        found = quantizer(latents(6))
        codes = found.codes.squeeze(-1)
        prefixes = [1, 5, 1, POSITIONS, POSITIONS, POSITIONS]
        for index, length in enumerate(prefixes):
            expected = quantizer.assembled(codes[index : index + 1, :length], 4, 4)
            assert torch.allclose(found.vectors[index], expected[0], atol=1e-6)
