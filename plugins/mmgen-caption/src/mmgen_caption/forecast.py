"""What a caption lets one expect of a picture, as the latents that pictures like it have.

A linear map from the words of a caption, found once by ridge regression. What it foresees is taken
from the latents before they become codes and given back after, so codes say only what the caption
does not (predictive coding); where no code follows, the picture is as foreseen.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding import Expectation
from mmgen_caption.reader import pieces_of, words_of

__all__ = ["CaptionForecast"]

RIDGE = 2.0
"""How much the squares of the weights count, beside errors over the pictures looked at."""

HELD_OUT = 8
"""One picture in this many tells how well others are foreseen."""

SHARPEST = 4.0
"""Most that the rest is multiplied by."""


class CaptionForecast(nn.Module):
    """Captions to an `Expectation`; one that says nothing leads to expect nothing."""

    def __init__(self, *, num_buckets: int, num_positions: int, dim: int) -> None:
        """Make a map that foresees nothing.

        Args:
            num_buckets: rows of the map that pieces of words share.
            num_positions: positions of the longest sequence.
            dim: numbers of a latent.
        """
        super().__init__()
        self.weights = nn.Parameter(
            torch.zeros(num_buckets, num_positions * dim), requires_grad=False
        )
        self.sharpness = nn.Parameter(torch.ones(num_positions, dim), requires_grad=False)

    def forward(self, captions: Sequence[str]) -> Expectation:
        """Return what is to be expected of the picture of each caption."""
        device = self.weights.device
        rows, shares = _features(captions, len(self.weights))
        starts = torch.tensor([0, *map(len, rows)][:-1], device=device).cumsum(0)
        flat = functional.embedding_bag(
            torch.tensor([row for item in rows for row in item], dtype=torch.long, device=device),
            self.weights,
            starts,
            mode="sum",
            per_sample_weights=torch.tensor(
                [share for item in shares for share in item],
                dtype=self.weights.dtype,
                device=device,
            ),
        )
        dim = self.sharpness.shape[1]
        return Expectation(rearrange(flat, "b (p d) -> b p d", d=dim), self.sharpness)

    @torch.no_grad()
    def fit(self, captions: Sequence[str], latents: Tensor) -> None:
        """Find the map from captions to latents `[num, positions, dim]`, and what it leaves."""
        said = torch.zeros(len(captions), len(self.weights))
        for index, (rows, shares) in enumerate(
            zip(*_features(captions, len(self.weights)), strict=True)
        ):
            said[index, list(rows)] = torch.tensor(list(shares))
        wanted = latents.flatten(1).float().cpu()
        is_held_out = torch.arange(len(said)) % HELD_OUT == 0
        seen = _ridge(said[~is_held_out], wanted[~is_held_out])
        rest = (wanted - said @ seen)[is_held_out].square().mean(dim=0).sqrt()
        gain = wanted[is_held_out].square().mean(dim=0).sqrt() / rest.clamp_min(1e-6)
        self.sharpness.copy_(gain.nan_to_num(1.0).clamp(1.0, SHARPEST).view_as(self.sharpness))
        self.weights.copy_(_ridge(said, wanted))


def _features(
    captions: Sequence[str], num_buckets: int
) -> tuple[list[tuple[int, ...]], list[tuple[float, ...]]]:
    """Return for each caption the rows that it chooses, and their shares, of length 1 together."""
    rows: list[tuple[int, ...]] = []
    shares: list[tuple[float, ...]] = []
    for caption in captions:
        counts: dict[int, int] = {}
        for word in words_of(caption):
            for piece in pieces_of(word, num_buckets):
                counts[piece] = counts.get(piece, 0) + 1
        length = sum(count**2 for count in counts.values()) ** 0.5
        rows.append(tuple(counts))
        shares.append(tuple(count / length for count in counts.values()))
    return rows, shares


def _ridge(features: Tensor, wanted: Tensor) -> Tensor:
    """Return the weights `[features, numbers]` of a linear map without a constant."""
    products = features.T @ features
    products.diagonal().add_(RIDGE)
    solved: Tensor = torch.cholesky_solve(features.T @ wanted, torch.linalg.cholesky(products))
    return solved
