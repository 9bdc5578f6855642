"""A network that names what pictures show, choosing among the names it was taught.

It is small and convolutional, so that some thousand pictures teach it what many more would have to
teach a decoder of codes. Tokenizers whose codes say what is shown take it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding.augmentation import augmented
from mmgen.autoencoding.network_files import NetworkFiles
from mmgen.autoencoding.settings import LearnedSettings
from mmgen.errors import PluginError

__all__ = ["MeaningTower", "Naming", "NamingNetwork", "NamingSettings"]

FILES = NetworkFiles("network that names pictures", "namer_config.json", "namer.safetensors")
SMOOTHING = 0.1
"""Share of a target that is spread over all names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamingSettings(LearnedSettings):
    """What shapes the network."""

    side: int = 48
    """Pixels along each side at which it looks at a picture, whatever the picture's own size."""
    first_side: int = 32
    """The same in the first `first_share` of training, which is several times faster."""
    first_share: float = 0.6
    """Share of training done at `first_side`."""
    widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels after each halving."""

    def __post_init__(self) -> None:
        if min(self.side, self.first_side, *self.widths) < 1 or len(self.widths) < 2:
            raise ValueError(f"sides and two widths or more must be positive, got {self}")
        if not 0 <= self.first_share <= 1:
            raise ValueError(f"first_share must lie in 0..1, got {self.first_share}")


class _NormedConvolution(nn.Module):
    """A 3x3 convolution, normalised over the batch."""

    def __init__(self, before: int, width: int, stride: int = 1) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        normed: Tensor = self.norm(self.convolution(features))
        return normed


class _Stage(nn.Module):
    """Halves the resolution, then adds what two more convolutions find."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.down = _NormedConvolution(before, width, stride=2)
        self.first = _NormedConvolution(width, width)
        self.second = _NormedConvolution(width, width)

    def forward(self, features: Tensor) -> Tensor:
        features = functional.relu(self.down(features))
        return functional.relu(features + self.second(functional.relu(self.first(features))))


class MeaningTower(nn.Module):
    """`[batch, 3, height, width]` in 0..1 to features `[batch, widths[-1]]` of what is shown."""

    def __init__(self, settings: NamingSettings) -> None:
        super().__init__()
        first, *rest = settings.widths
        self.stem = _NormedConvolution(3, first, stride=2)
        stages = zip(settings.widths, rest, strict=False)
        self.stages = nn.Sequential(*(_Stage(before, width) for before, width in stages))
        self._side = settings.side

    def forward(self, images: Tensor, side: int | None = None) -> Tensor:
        """Look at pictures with so many pixels a side, `settings.side` without a word."""
        return reduce(self.planes(images, side)[-1], "b c h w -> b c", "mean")

    def planes(self, images: Tensor, side: int | None = None) -> list[Tensor]:
        """Return what is seen after each halving, `[batch, width, rows, columns]` each."""
        side = side or self._side
        if images.shape[-2:] != (side, side):
            images = functional.interpolate(images, (side, side), mode="bilinear", antialias=True)
        planes = [functional.relu(self.stem(images * 2 - 1))]
        for stage in self.stages:
            planes.append(stage(planes[-1]))
        return planes


@dataclass(frozen=True, slots=True)
class Naming:
    """How well the pictures of one batch were named."""

    loss: Tensor
    """To be lowered, in nats."""
    accuracy: Tensor
    """Share of the pictures whose first name is theirs."""


class NamingNetwork(nn.Module):
    """The tower and the names."""

    def __init__(self, settings: NamingSettings, names: Sequence[str]) -> None:
        super().__init__()
        if len(names) < 2:
            raise PluginError(f"pictures are named from a list of 2 names or more, got {names}")
        self.settings = settings
        self.names = tuple(names)
        self.tower = MeaningTower(settings)
        self.dropout = nn.Dropout(0.2)
        self.named = nn.Linear(settings.widths[-1], len(names))
        self._ids = {name: index for index, name in enumerate(self.names)}

    def forward(self, images: Tensor, names: Sequence[str], progress: float) -> Naming:
        """Name pictures `[batch, 3, height, width]` in 0..1; in training they are moved about.

        Args:
            images: the pictures.
            names: the right name of each.
            progress: how much of the training is done, 0..1.
        """
        settings = self.settings
        seen = augmented(images) if self.training else images
        side = settings.first_side if progress < settings.first_share else settings.side
        logits = self.named(self.dropout(self.tower(seen, side)))
        targets = self.ids_of(names).to(images.device)
        loss = functional.cross_entropy(logits, targets, label_smoothing=SMOOTHING)
        return Naming(loss, (logits.argmax(dim=1) == targets).float().mean())

    def ids_of(self, names: Sequence[str]) -> Tensor:
        """Return the places of names in the list, `[len(names)]`."""
        return torch.tensor([self._ids[name] for name in names])

    def save(self, directory: Path) -> None:
        """Write settings, names and weights into an existing directory."""
        FILES.save(directory, self, {"settings": self.settings.to_plain(), "names": self.names})

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the network that `save` wrote, for use.

        Raises:
            PluginError: files are missing or do not fit.
        """
        stated = FILES.stated(directory)
        settings = NamingSettings.of(stated["settings"], FILES.origin(directory))
        network = cls(settings, stated["names"])
        FILES.fill(directory, network)
        return network
