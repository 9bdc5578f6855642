"""A critic that learns to tell reconstructions from pictures, while the decoder learns to pass.

It judges patches, by the hinge loss, with a weight that balances its pull on the pixels with that
of the reconstruction loss (Esser et al., "Taming Transformers", 2021; the balance is taken at the
pixels themselves, so that nothing has to be known of a plugin's last layer).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Adversary", "PatchCritic"]

MAX_BALANCE = 10.0
"""Largest factor by which a weak pull is strengthened."""


class PatchCritic(nn.Module):
    """`[batch, 3, height, width]` in about 0..1 to one score for every 8x8 pixels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for before, after in ((width, 2 * width), (2 * width, 4 * width)):
            layers += [
                nn.Conv2d(before, after, 4, stride=2, padding=1),
                nn.GroupNorm(1, after),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(4 * width, 1, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layers(images * 2 - 1)
        return scores


class Adversary:
    """A critic with its optimizer. The two sides take turns within every step."""

    def __init__(self, *, width: int, lr: float, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critic = PatchCritic(width)
        self.optimizer = torch.optim.AdamW(
            self.critic.parameters(), lr=lr, betas=(0.5, 0.9), weight_decay=0.0
        )

    def pull(self, reconstruction: Tensor, loss: Tensor) -> Tensor:
        """Return the term that makes reconstructions pass, as strong at the pixels as `loss`.

        Args:
            reconstruction: `[batch, 3, height, width]`, with its graph.
            loss: the reconstruction's other losses, of the same graph.
        """
        self.critic.requires_grad_(False)
        term = -self.critic(reconstruction).mean()
        self.critic.requires_grad_(True)
        (strong,) = torch.autograd.grad(loss, reconstruction, retain_graph=True)
        (weak,) = torch.autograd.grad(term, reconstruction, retain_graph=True)
        balance = (strong.norm() / weak.norm().clamp_min(1e-8)).clamp_max(MAX_BALANCE)
        pulled: Tensor = term * balance
        return pulled

    def learn(self, images: Tensor, reconstruction: Tensor) -> float:
        """Take one step towards telling the two apart; return the hinge loss before it."""
        real, drawn = self.critic(images), self.critic(reconstruction.detach())
        loss = (functional.relu(1 - real).mean() + functional.relu(1 + drawn).mean()) / 2
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())
