"""The network: a tower that names what is shown, and ordered codes for all that names do not say.

The first codes of a sequence are the names that fit a picture best, as a network chose them that
learned to name pictures; the rest are those of the tokenizer `ordered`. Both are settled before:
what learns here is the decoder, which sees them together (Ge et al., "Planting a SEED of Vision",
2023, put codes of meaning first as well; Qu et al., "TokenFlow", 2024, keep them from being pulled
away by pixels). It learns from codes with mistakes in them, since a model that draws makes some
(Qiu et al., "Robust Latent Matters", 2025): where details disagree with the names, these are to be
believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding import (
    AbstractSequenceNetwork,
    Beside,
    MeaningTower,
    NamingNetwork,
    NamingSettings,
    SequenceEncoder,
    SequenceSettings,
)
from mmgen.visual_tokenizer import TrainingOutput
from mmgen_holistic.quantizer import NAME_DIM, NamingQuantizer

__all__ = ["HolisticEncoder", "HolisticNetwork", "HolisticSettings", "MeaningReader", "mistaken"]

UNTOLD_SHARE = 1 / 16
"""Share of the way from short to long sequences in which even codes of meaning are missing."""


MOST_MISTAKES = 0.8
"""Share of a picture's details that are another's, at most; a third of the pictures have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HolisticSettings(SequenceSettings):
    """Everything that shapes the network. Lengths count all codes, those of meaning first."""

    ineffective: ClassVar[frozenset[str]] = SequenceSettings.ineffective | {"namer"}

    max_length: int = 68
    """Positions of the longest sequence."""
    default_length: int = 20
    """Positions of a sequence of which nobody says the length."""
    num_meanings: int = 4
    """Positions, the first ones, that name what is shown, the likeliest name first."""
    num_names: int = 1642
    """Names to choose from; each has a code of its own, behind those of levels."""
    tower_side: int = 48
    """Pixels along each side at which the tower looks at a picture."""
    tower_widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of the tower after each halving."""
    namer: str = ""
    """Folder of a network that names pictures, which is taken; for training only. It is not saved
    with the rest."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_meanings <= self.num_names:
            raise ValueError(
                f"num_meanings is 1 to num_names, got {self.num_meanings} and {self.num_names}"
            )
        if self.max_length <= self.num_meanings:
            raise ValueError(
                f"max_length must be more than num_meanings, got {self.max_length} and "
                f"{self.num_meanings}"
            )
        # Zero arguments would look for the class that `slots` has replaced.
        super(HolisticSettings, self).__post_init__()
        # Refuses what no tower can be.
        _ = self.naming

    @property
    def details(self) -> SequenceSettings:
        """The settings of the codes that come after those of meaning."""
        num_details = self.max_length - self.num_meanings
        return SequenceSettings(
            side=self.side,
            levels=self.levels,
            max_length=num_details,
            default_length=min(self.default_length, num_details),
            width=self.width,
            num_heads=self.num_heads,
            encoder_layers=self.encoder_layers,
            decoder_layers=self.decoder_layers,
            painter_widths=self.painter_widths,
            structure_weight=self.structure_weight,
        )

    @property
    def naming(self) -> NamingSettings:
        """The settings of the tower."""
        return NamingSettings(side=self.tower_side, widths=self.tower_widths)


class HolisticEncoder(nn.Module):
    """A tower for what is shown beside the encoder of `ordered`."""

    def __init__(self, settings: HolisticSettings, dim: int) -> None:
        super().__init__()
        self.tower = MeaningTower(settings.naming)
        self.named = nn.Linear(settings.tower_widths[-1], settings.num_names)
        # So named, this begins as the encoder of ordered where a run starts from it.
        self.details = SequenceEncoder(settings.details, dim)
        self._num_meanings = settings.num_meanings

    def forward(self, images: Tensor, begun: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 latents and foresight as `SequenceEncoder` does, for all positions."""
        best = self.named(self.tower(images)).topk(self._num_meanings, dim=1).indices
        details, foresight = self.details(images, begun)
        # The last number is a name, counted from 1, or 0 where there is none.
        names = functional.pad((best + 1).float().unsqueeze(-1), (details.shape[-1], 0))
        latents = torch.cat([names, functional.pad(details.float(), (0, 1))], dim=1)
        # Names alone promise no likeness.
        before = torch.zeros_like(foresight[:, :1]).expand(-1, self._num_meanings)
        return latents, torch.cat([before, foresight], dim=1)


class MeaningReader(nn.Module):
    """Names to features that a decoder looks at, one for each name that is there yet."""

    def __init__(self, settings: HolisticSettings, dim: int) -> None:
        super().__init__()
        self.num_meanings = settings.num_meanings
        # The first is for a code that is no name, if a model puts one in such a place.
        self.names = nn.Embedding(1 + settings.num_names, settings.width)
        self.scalars = nn.Linear(dim, settings.width, bias=False)
        self.places = nn.Parameter(torch.randn(settings.num_meanings, settings.width) * 0.02)

    def forward(self, vectors: Tensor) -> Tensor:
        """Return `[batch, count, width]` of vectors `[batch, count, dim + 1]`, all or fewer."""
        names = vectors[..., -1].round().long()
        scalars = self.scalars(vectors[..., :-1])
        features: Tensor = self.names(names) + scalars + self.places[: names.shape[1]]
        return features

    def begin(self, vectors: Tensor) -> None:
        """Let names that a network tells by like vectors `[names, any]` begin alike."""
        width = self.names.embedding_dim
        generator = torch.Generator().manual_seed(0)
        directions = torch.randn(vectors.shape[1], width, generator=generator)
        centred = vectors - vectors.mean(dim=0)
        self.names.weight[1:] = centred @ directions / centred.norm(dim=1).mean()


class HolisticNetwork(AbstractSequenceNetwork):
    """Tower, encoder, reader and decoder in one."""

    quantizer: NamingQuantizer

    def __init__(self, settings: HolisticSettings) -> None:
        super().__init__(settings.details)
        self.encoder = HolisticEncoder(settings, self.quantizer.dim)
        self.reader = MeaningReader(settings, self.quantizer.dim)
        self.quantizer = NamingQuantizer(settings.levels, settings.num_names)
        # What makes the codes is settled.
        self.encoder.requires_grad_(False)

    @torch.no_grad()
    def take(self, namer: NamingNetwork) -> None:
        """Take a network that names pictures."""
        assert isinstance(self.encoder, HolisticEncoder)
        self.encoder.tower.load_state_dict(namer.tower.state_dict())
        self.encoder.named.load_state_dict(namer.named.state_dict())
        self.reader.begin(namer.named.weight)
        # Names that the network tells by like vectors are alike.
        vectors = namer.named.weight - namer.named.weight.mean(dim=0)
        directions = torch.linalg.svd(vectors, full_matrices=False).Vh[:NAME_DIM]
        told = vectors @ directions.T
        self.quantizer.name_vectors[:, : told.shape[1]] = told / told.std(dim=0)

    def train(self, mode: bool = True) -> Self:
        """Let the decoder learn; what makes the codes stays as it is."""
        super().train(mode)
        if self.encoder is not None:
            self.encoder.eval()
        return self

    def forward(self, images: Tensor) -> TrainingOutput:
        return self.reconstructed(images, Beside())

    def latents(self, images: Tensor, beside: Beside) -> tuple[Tensor, Tensor]:
        assert self.encoder is not None
        begun = self.principal.analysed(images)
        latents: tuple[Tensor, Tensor] = self.encoder(images, begun)
        return latents

    def painted(self, vectors: Tensor, beside: Beside) -> Tensor:
        assert self.decoder is not None
        num_meanings = self.reader.num_meanings
        details = vectors[:, num_meanings:, :-1]
        if self.training:
            details = mistaken(details)
        base = self.principal.assembled(details)
        images: Tensor = self.decoder(details, base, self.reader(vectors[:, :num_meanings]))
        return images

    def cut(self, place: float, longest: int) -> int:
        """Keep the codes of meaning, as a rule, and few of the others more often than many."""
        num_meanings = self.reader.num_meanings
        if place < UNTOLD_SHARE:
            return int(num_meanings * place / UNTOLD_SHARE)
        return num_meanings + round((longest - num_meanings) * place**3)


def mistaken(details: Tensor) -> Tensor:
    """Return vectors `[batch, length, dim]` some of which are those of another picture."""
    num_pictures, length = details.shape[:2]
    share = MOST_MISTAKES * (torch.rand(num_pictures, 1) * 1.5 - 0.5).clamp_min(0)
    is_wrong = (torch.rand(num_pictures, length) < share).unsqueeze(-1).to(details.device)
    return torch.where(is_wrong, details[torch.randperm(num_pictures)], details)
