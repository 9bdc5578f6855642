"""Pictures and words in one space: a small teacher of what pictures show.

Two towers meet in a contrastive loss (Radford et al., "Learning Transferable Visual Models From
Natural Language Supervision", 2021). The picture's side keeps its places: each has a vector of its
own, and the picture is their mean, so that a tokenizer can learn from both.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding.augmentation import augmented
from mmgen.autoencoding.network_files import NetworkFiles
from mmgen.autoencoding.settings import LearnedSettings

__all__ = ["Contrast", "ContrastiveNetwork", "ContrastiveSettings", "FeatureTower", "WordBag"]

FILES = NetworkFiles("teacher", "teacher_config.json", "teacher.safetensors")
START_SCALE = math.log(1 / 0.07)
MAX_SCALE = math.log(100)

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ContrastiveSettings(LearnedSettings):
    """What shapes the two towers."""

    widths: tuple[int, int, int] = (64, 128, 224)
    """Channels at 1/4, 1/8 and 1/16 of the picture's side."""
    depths: tuple[int, int] = (1, 2)
    """Residual blocks at 1/8 and 1/16."""
    num_words: int = 8192
    """Rows of the table of words; words share one by chance."""
    word_dim: int = 128
    """Numbers of a word."""
    dim: int = 96
    """Numbers in which pictures and words meet."""

    def __post_init__(self) -> None:
        if min(*self.widths, self.num_words, self.word_dim, self.dim) < 1 or min(self.depths) < 0:
            raise ValueError(f"sizes must be positive, got {self}")


class NormedBlock(nn.Module):
    """Two 3x3 convolutions of normed features, added to `[batch, width, rows, columns]`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)
        assert self.second.bias is not None
        nn.init.zeros_(self.second.bias)

    def forward(self, features: Tensor) -> Tensor:
        branch = self.first(over_channels(self.norm, features))
        out: Tensor = features + self.second(functional.silu(branch))
        return out


class FeatureTower(nn.Module):
    """`[batch, 3, 8h, 8w]` in 0..1 to features `[batch, h, w, width]` of unit variance.

    What a place is depends on what is around it: half of the blocks work at half the resolution.
    """

    def __init__(self, widths: tuple[int, int, int], depths: tuple[int, int]) -> None:
        super().__init__()
        fine, middle, coarse = widths
        self.width = middle
        self.patches = nn.Conv2d(3, fine, 8, stride=4, padding=2)
        self.down_middle = nn.Conv2d(fine, middle, 4, stride=2, padding=1)
        self.middle = nn.Sequential(*(NormedBlock(middle) for _ in range(depths[0])))
        self.down_coarse = nn.Conv2d(middle, coarse, 3, stride=2, padding=1)
        self.coarse = nn.Sequential(*(NormedBlock(coarse) for _ in range(depths[1])))
        self.up = nn.Conv2d(coarse, middle, 1)
        self.norm = nn.LayerNorm(middle)

    def forward(self, images: Tensor) -> Tensor:
        features = functional.silu(self.patches(images * 2 - 1))
        features = self.middle(self.down_middle(features))
        around = self.up(self.coarse(self.down_coarse(features)))
        around = functional.interpolate(around, features.shape[-2:], mode="bilinear")
        normed: Tensor = self.norm(rearrange(features + around, "b c h w -> b h w c"))
        return normed


class WordBag(nn.Module):
    """Texts to vectors `[batch, dim]`: the mean of their words' vectors, through a perceptron.

    A word is found in the table by a checksum of its letters, so there is no list of words to keep.
    """

    def __init__(self, num_words: int, word_dim: int, dim: int) -> None:
        super().__init__()
        self.words = nn.EmbeddingBag(num_words, word_dim, mode="mean")
        self.hidden = nn.Linear(word_dim, 2 * word_dim)
        self.out = nn.Linear(2 * word_dim, dim)

    def forward(self, texts: Sequence[str]) -> Tensor:
        rows = [self.rows_of(text) for text in texts]
        starts = torch.tensor([0, *(len(row) for row in rows[:-1])]).cumsum(0)
        flat = torch.tensor([index for row in rows for index in row], dtype=torch.int64)
        device = self.out.weight.device
        bags = self.words(flat.to(device), starts.to(device))
        vectors: Tensor = self.out(functional.silu(self.hidden(bags)))
        return vectors

    def rows_of(self, text: str) -> list[int]:
        """Return the row of each word, upper and lower case being one."""
        words = _WORD.findall(text.lower())
        return [zlib.crc32(word.encode()) % self.words.num_embeddings for word in words]


@dataclass(frozen=True, slots=True)
class Contrast:
    """How well pictures and words found one another in one batch."""

    loss: Tensor
    """Mean of both directions, in nats."""
    accuracy: Tensor
    """Share of the pictures whose nearest text is theirs."""


class ContrastiveNetwork(nn.Module):
    """The towers with what brings them together."""

    def __init__(self, settings: ContrastiveSettings) -> None:
        super().__init__()
        self.settings = settings
        self.image = FeatureTower(settings.widths, settings.depths)
        self.projection = nn.Linear(self.image.width, settings.dim)
        self.text = WordBag(settings.num_words, settings.word_dim, settings.dim)
        self.scale = nn.Parameter(torch.tensor(START_SCALE))

    def forward(self, images: Tensor, captions: Sequence[str]) -> Contrast:
        """Compare pictures `[batch, 3, height, width]` in 0..1 with one text of each.

        Equal texts are as right as one another (Yang et al., "Unified Contrastive Learning in
        Image-Text-Label Space", 2022). What a batch has in common tells nothing apart and is taken
        off first. In training pictures are moved and recoloured.
        """
        seen = augmented(images) if self.training else images
        pictures = functional.normalize(_centred(self.embedded(seen)), dim=-1)
        texts = functional.normalize(_centred(self.text(captions)), dim=-1)
        logits = self.scale.clamp_max(MAX_SCALE).exp() * pictures @ texts.T
        names = {caption: index for index, caption in enumerate(dict.fromkeys(captions))}
        ids = torch.tensor([names[caption] for caption in captions], device=logits.device)
        is_right = rearrange(ids, "b -> b 1") == ids
        target = is_right / is_right.sum(dim=-1, keepdim=True)
        loss = functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target)
        best = rearrange(logits.argmax(dim=-1), "b -> b 1")
        return Contrast(loss / 2, is_right.gather(1, best).float().mean())

    def places(self, images: Tensor) -> Tensor:
        """Return a vector for every 8x8 pixels of `[batch, 3, 8h, 8w]`: `[batch, h, w, dim]`."""
        vectors: Tensor = self.projection(self.image(images))
        return vectors

    def embedded(self, images: Tensor) -> Tensor:
        """Return what pictures show, `[batch, dim]`, of any length."""
        return reduce(self.places(images), "b h w d -> b d", "mean")

    def save(self, directory: Path) -> None:
        """Write settings and weights into an existing directory."""
        FILES.save(directory, self, self.settings.to_plain())

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the network that `save` wrote, for use.

        Raises:
            PluginError: files are missing or do not fit.
        """
        values = FILES.stated(directory)
        network = cls(ContrastiveSettings.of(values, FILES.origin(directory)))
        FILES.fill(directory, network)
        return network


def over_channels(norm: nn.LayerNorm, features: Tensor) -> Tensor:
    """Apply a norm of `width` numbers at each place of `[batch, width, rows, columns]`."""
    normed: Tensor = norm(rearrange(features, "b c h w -> b h w c"))
    return rearrange(normed, "b h w c -> b c h w")


def _centred(vectors: Tensor) -> Tensor:
    return vectors - vectors.mean(dim=0)
