"""A few codes that say what a picture shows, learned from a network that names pictures.

Its features go through a bottleneck of finite scalars, from which the names have to be told as that
network tells them. The bottleneck's codes then are a name's worth of meaning, and little else: a
hash that was learned to be read (Hinton et al., "Distilling the Knowledge in a Neural Network",
2015, for what is taught; Mentzer et al., 2023, for the scalars).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding.finite_scalar import FiniteScalarQuantizer
from mmgen.autoencoding.naming import NamingNetwork
from mmgen.autoencoding.network_files import NetworkFiles
from mmgen.autoencoding.settings import LearnedSettings

__all__ = ["MeaningCoder", "MeaningNetwork", "MeaningSettings"]

FILES = NetworkFiles("codes of meaning", "meaning_config.json", "meaning.safetensors")


@dataclass(frozen=True, slots=True, kw_only=True)
class MeaningSettings(LearnedSettings):
    """What shapes the codes."""

    levels: tuple[int, ...] = (7, 5, 5, 5, 5)
    """Levels of each number of a code; their product is the codebook size."""
    num_codes: int = 4
    """Codes of a picture."""
    coder_width: int = 512
    """Hidden numbers between features and codes, and between codes and names."""

    def __post_init__(self) -> None:
        if min(self.num_codes, self.coder_width) < 1:
            raise ValueError(f"num_codes and coder_width must be positive, got {self}")
        if not self.levels or min(self.levels) < 3:
            raise ValueError(f"levels need 3 or more each, got {self.levels}")


class MeaningCoder(nn.Module):
    """Features `[batch, width]` of a picture to latents `[batch, num_codes, dim]`."""

    def __init__(self, width: int, settings: MeaningSettings) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, settings.coder_width)
        self.latents = nn.Linear(settings.coder_width, settings.num_codes * len(settings.levels))
        self._num_codes = settings.num_codes

    def forward(self, features: Tensor) -> Tensor:
        latents: Tensor = self.latents(functional.gelu(self.hidden(features)))
        return rearrange(latents, "b (n d) -> b n d", n=self._num_codes)

    def standardise(self, mean: Tensor, deviation: Tensor) -> None:
        """Expect features of this mean and deviation, `[width]`, where those of 0 and 1 were."""
        self.hidden.weight.div_(deviation)
        self.hidden.bias.sub_(self.hidden.weight @ mean)


class MeaningNetwork(nn.Module):
    """A network that names pictures with the codes of what it names, and how to read them."""

    def __init__(self, namer: NamingNetwork, settings: MeaningSettings) -> None:
        super().__init__()
        self.settings = settings
        # No module, so that it is neither trained nor saved with the codes.
        self._namer = [namer]
        self.coder = MeaningCoder(namer.settings.widths[-1], settings)
        self.quantizer = FiniteScalarQuantizer(settings.levels)
        self.told = nn.Sequential(
            nn.Linear(settings.num_codes * self.quantizer.dim, settings.coder_width),
            nn.GELU(),
            nn.Linear(settings.coder_width, len(namer.names)),
        )

    @property
    def namer(self) -> NamingNetwork:
        return self._namer[0]

    def forward(self, features: Tensor) -> Tensor:
        """Return how likely each name is by the codes of features `[batch, width]`."""
        vectors = self.quantizer(self.coder(features)).vectors
        logits: Tensor = self.told(rearrange(vectors, "b n d -> b (n d)"))
        return logits

    def save(self, directory: Path) -> None:
        """Write all of it into an existing directory."""
        self.namer.save(directory)
        FILES.save(directory, self, self.settings.to_plain())

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Return the network that `save` wrote, for use.

        Raises:
            PluginError: files are missing or do not fit.
        """
        values = FILES.stated(directory)
        settings = MeaningSettings.of(values, FILES.origin(directory))
        network = cls(NamingNetwork.load(directory), settings)
        FILES.fill(directory, network)
        return network
