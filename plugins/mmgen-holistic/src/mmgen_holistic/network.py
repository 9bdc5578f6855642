"""The network: a tower that names what is shown, and ordered codes for all that names do not say.

The first codes of a sequence are those from which the name of a picture can be told; the rest are
those of the tokenizer `ordered`. Both are settled before: what learns here is the decoder,
which sees them together (Ge et al., "Planting a SEED of Vision", 2023, put codes of meaning first
as well; Qu et al., "TokenFlow", 2024, keep them from being pulled away by pixels). It learns from
codes with mistakes in them, since a model that draws makes some (Qiu et al., "Robust Latent
Matters", 2025): where details disagree with the meaning, the meaning is to be believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding import (
    AbstractSequenceNetwork,
    Beside,
    MeaningCoder,
    MeaningNetwork,
    MeaningSettings,
    MeaningTower,
    NamingSettings,
    SequenceEncoder,
    SequenceSettings,
)
from mmgen.visual_tokenizer import TrainingOutput

__all__ = ["HolisticEncoder", "HolisticNetwork", "HolisticSettings", "MeaningReader", "mistaken"]

UNTOLD_SHARE = 1 / 16
"""Share of the way from short to long sequences in which even codes of meaning are missing."""


MOST_MISTAKES = 0.8
"""Share of a picture's details that are another's, at most; a third of the pictures have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HolisticSettings(SequenceSettings):
    """Everything that shapes the network. Lengths count all codes, those of meaning first."""

    ineffective: ClassVar[frozenset[str]] = SequenceSettings.ineffective | {"meaning"}

    max_length: int = 68
    """Positions of the longest sequence."""
    default_length: int = 20
    """Positions of a sequence of which nobody says the length."""
    num_meanings: int = 4
    """Positions, the first ones, that say what is shown."""
    tower_side: int = 48
    """Pixels along each side at which the tower looks at a picture."""
    tower_widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of the tower after each halving."""
    coder_width: int = 512
    """Hidden numbers between what the tower sees and the codes of it."""
    reader_width: int = 512
    """Hidden numbers of what reads the codes of meaning for the decoder."""
    reader_summaries: int = 4
    """Features that the decoder sees of them."""
    meaning: str = ""
    """Folder of learned codes of meaning, which are taken; for training only. It is not saved with
    the rest."""

    def __post_init__(self) -> None:
        for name in ("num_meanings", "reader_width", "reader_summaries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.max_length <= self.num_meanings:
            raise ValueError(
                f"max_length must be more than num_meanings, got {self.max_length} and "
                f"{self.num_meanings}"
            )
        # Zero arguments would look for the class that `slots` has replaced.
        super(HolisticSettings, self).__post_init__()
        # The settings of tower and codes check themselves.
        _ = self.naming, self.coding

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

    @property
    def coding(self) -> MeaningSettings:
        """The settings of the codes of meaning."""
        return MeaningSettings(
            levels=self.levels, num_codes=self.num_meanings, coder_width=self.coder_width
        )


class HolisticEncoder(nn.Module):
    """A tower for what is shown beside the encoder of `ordered`."""

    def __init__(self, settings: HolisticSettings, dim: int) -> None:
        super().__init__()
        self.tower = MeaningTower(settings.naming)
        self.coder = MeaningCoder(settings.tower_widths[-1], settings.coding)
        # So named, this begins as the encoder of ordered where a run starts from it.
        self.details = SequenceEncoder(settings.details, dim)

    def forward(self, images: Tensor, begun: Tensor) -> tuple[Tensor, Tensor]:
        """Return latents and foresight as `SequenceEncoder` does, for all positions."""
        meaning = self.coder(self.tower(images))
        details, foresight = self.details(images, begun)
        # With meaning alone a picture is hardly foreseen to be better than with one code more.
        before = foresight[:, :1].expand(-1, meaning.shape[1])
        return torch.cat([meaning, details], dim=1), torch.cat([before, foresight], dim=1)


class MeaningReader(nn.Module):
    """Codes of meaning to features `[batch, summaries, width]` that a decoder looks at."""

    def __init__(self, settings: HolisticSettings, dim: int) -> None:
        super().__init__()
        self.num_meanings = settings.num_meanings
        self._num_summaries = settings.reader_summaries
        # Beside its numbers, each code has one that says whether it is there yet.
        self.hidden = nn.Linear(settings.num_meanings * (dim + 1), settings.reader_width)
        self.out = nn.Linear(settings.reader_width, settings.reader_summaries * settings.width)

    def forward(self, vectors: Tensor) -> Tensor:
        """Read vectors `[batch, count, dim]` of the first codes, all of them or fewer."""
        told = torch.cat([vectors, torch.ones_like(vectors[..., :1])], dim=-1)
        told = functional.pad(told, (0, 0, 0, self.num_meanings - told.shape[1]))
        hidden = functional.gelu(self.hidden(rearrange(told, "b n d -> b (n d)")))
        features: Tensor = self.out(hidden)
        return rearrange(features, "b (s w) -> b s w", s=self._num_summaries)


class HolisticNetwork(AbstractSequenceNetwork):
    """Tower, encoder, reader and decoder in one."""

    def __init__(self, settings: HolisticSettings) -> None:
        super().__init__(settings.details)
        self.encoder = HolisticEncoder(settings, self.quantizer.dim)
        self.reader = MeaningReader(settings, self.quantizer.dim)
        # What makes the codes is settled.
        self.encoder.requires_grad_(False)

    def take(self, meaning: MeaningNetwork) -> None:
        """Take learned codes of meaning: the tower, and what makes codes of what it sees."""
        assert isinstance(self.encoder, HolisticEncoder)
        self.encoder.tower.load_state_dict(meaning.namer.tower.state_dict())
        self.encoder.coder.load_state_dict(meaning.coder.state_dict())

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
        latents: tuple[Tensor, Tensor] = self.encoder(images, self.principal.analysed(images))
        return latents

    def painted(self, vectors: Tensor, beside: Beside) -> Tensor:
        assert self.decoder is not None
        num_meanings = self.reader.num_meanings
        meaning, details = vectors[:, :num_meanings], vectors[:, num_meanings:]
        if self.training:
            details = mistaken(details)
        base = self.principal.assembled(details)
        images: Tensor = self.decoder(details, base, self.reader(meaning))
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
