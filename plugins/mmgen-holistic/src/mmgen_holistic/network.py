"""The network: a tower that sees what is shown, and ordered codes for all that this does not say.

The first code of a sequence is the name that fits a picture best, as a network chose it that
learned to name pictures. The next ones say what that network sees beyond the name, the rest are
those of the tokenizer `ordered`. All are settled before: what learns here is the decoder, which
sees them together (Ge et al., "Planting a SEED of Vision", 2023, put codes of meaning first as
well; Qu et al., "TokenFlow", 2024, keep them from being pulled away by pixels). It learns from
codes with mistakes in them, since a model that draws makes some (Qiu et al., "Robust Latent
Matters", 2025): where details disagree with what is shown, this is to be believed.
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
from mmgen_holistic.quantizer import NAME_DIM, NamingQuantizer

__all__ = ["HolisticEncoder", "HolisticNetwork", "HolisticSettings", "ShownReader", "mistaken"]

UNTOLD_SHARE = 1 / 16
"""Share of the way from short to long sequences in which even codes of what is shown lack."""

MOST_MISTAKES = 0.8
"""Share of a picture's details that are another's, at most; a third of the pictures have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HolisticSettings(SequenceSettings):
    """Everything that shapes the network. Lengths count all codes, those of what is shown first."""

    ineffective: ClassVar[frozenset[str]] = SequenceSettings.ineffective | {"meaning"}

    max_length: int = 69
    """Positions of the longest sequence."""
    default_length: int = 21
    """Positions of a sequence of which nobody says the length."""
    num_named: int = 1
    """Positions, the first ones, that name what is shown, the likeliest name first."""
    num_names: int = 1642
    """Names to choose from; each has a code of its own, behind those of levels."""
    num_meanings: int = 4
    """Positions behind them that say what is shown more finely than names do."""
    tower_side: int = 48
    """Pixels along each side at which the tower looks at a picture."""
    tower_widths: tuple[int, ...] = (32, 64, 128, 256)
    """Channels of the tower after each halving."""
    coder_width: int = 512
    """Hidden numbers between what the tower sees and the codes of meaning."""
    reader_width: int = 512
    """Hidden numbers of what reads the codes of meaning for the decoder."""
    reader_summaries: int = 4
    """Features that the decoder sees of them."""
    meaning: str = ""
    """Folder of learned codes of meaning and of the network that names, which are taken; for
    training only. It is not saved with the rest."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_named <= self.num_names:
            raise ValueError(
                f"num_named is 1 to num_names, got {self.num_named} and {self.num_names}"
            )
        for name in ("reader_width", "reader_summaries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, got {getattr(self, name)}")
        if self.max_length <= self.num_shown:
            raise ValueError(
                f"max_length must be more than num_named + num_meanings, got {self.max_length} "
                f"and {self.num_shown}"
            )
        # Zero arguments would look for the class that `slots` has replaced.
        super(HolisticSettings, self).__post_init__()
        # The settings of tower and codes check themselves.
        _ = self.naming, self.coding

    @property
    def num_shown(self) -> int:
        """Positions that say what is shown, by name or otherwise."""
        return self.num_named + self.num_meanings

    @property
    def details(self) -> SequenceSettings:
        """The settings of the codes that come after those of what is shown."""
        num_details = self.max_length - self.num_shown
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
        self.named = nn.Linear(settings.tower_widths[-1], settings.num_names)
        self.coder = MeaningCoder(settings.tower_widths[-1], settings.coding)
        # So named, this begins as the encoder of ordered where a run starts from it.
        self.details = SequenceEncoder(settings.details, dim)
        self._num_named = settings.num_named

    def forward(self, images: Tensor, begun: Tensor) -> tuple[Tensor, Tensor]:
        """Return float32 latents and foresight as `SequenceEncoder` does, for all positions."""
        seen = self.tower(images)
        best = self.named(seen).topk(self._num_named, dim=1).indices
        details, foresight = self.details(images, begun)
        numbers = torch.cat([self.coder(seen).float(), details.float()], dim=1)
        # The last number is a name, counted from 1, or 0 where there is none.
        names = functional.pad((best + 1).float().unsqueeze(-1), (details.shape[-1], 0))
        latents = torch.cat([names, functional.pad(numbers, (0, 1))], dim=1)
        # What is shown alone promises no likeness.
        num_shown = latents.shape[1] - details.shape[1]
        return latents, functional.pad(foresight, (num_shown, 0))


class ShownReader(nn.Module):
    """Codes of what is shown to features `[batch, count, width]` that a decoder looks at."""

    def __init__(self, settings: HolisticSettings, dim: int) -> None:
        super().__init__()
        self._num_named = settings.num_named
        self._num_meanings = settings.num_meanings
        self._num_summaries = settings.reader_summaries
        # The first is for a code that is no name, if a model puts one in such a place.
        self.names = nn.Embedding(1 + settings.num_names, settings.width)
        self.scalars = nn.Linear(dim, settings.width, bias=False)
        self.places = nn.Parameter(torch.randn(settings.num_named, settings.width) * 0.02)
        # Beside its numbers, each code has one that says whether it is there yet.
        self.hidden = nn.Linear(settings.num_meanings * (dim + 1), settings.reader_width)
        self.out = nn.Linear(settings.reader_width, settings.reader_summaries * settings.width)

    def forward(self, vectors: Tensor) -> Tensor:
        """Read vectors `[batch, count, dim + 1]` of all codes of what is shown, or of fewer.

        There is a feature for each name that is there yet, and a few for all codes of meaning.
        """
        named = vectors[:, : self._num_named]
        scalars = self.scalars(named[..., :-1])
        names = self.names(named[..., -1].round().long()) + scalars
        meanings = self._summaries(vectors[:, self._num_named :, :-1])
        return torch.cat([names + self.places[: names.shape[1]], meanings], dim=1)

    def _summaries(self, vectors: Tensor) -> Tensor:
        told = torch.cat([vectors, torch.ones_like(vectors[..., :1])], dim=-1)
        told = functional.pad(told, (0, 0, 0, self._num_meanings - told.shape[1]))
        hidden = functional.gelu(self.hidden(rearrange(told, "b n d -> b (n d)")))
        features: Tensor = self.out(hidden)
        return rearrange(features, "b (s w) -> b s w", s=self._num_summaries)

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
        self.reader = ShownReader(settings, self.quantizer.dim)
        self.quantizer = NamingQuantizer(settings.levels, settings.num_names)
        self._num_shown = settings.num_shown
        # What makes the codes is settled.
        self.encoder.requires_grad_(False)

    @torch.no_grad()
    def take(self, meaning: MeaningNetwork) -> None:
        """Take a network that names pictures, and codes of what it sees in them."""
        assert isinstance(self.encoder, HolisticEncoder)
        namer = meaning.namer
        self.encoder.coder.load_state_dict(meaning.coder.state_dict())
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
        details = vectors[:, self._num_shown :, :-1]
        if self.training:
            details = mistaken(details)
        base = self.principal.assembled(details)
        images: Tensor = self.decoder(details, base, self.reader(vectors[:, : self._num_shown]))
        return images

    def cut(self, place: float, longest: int) -> int:
        """Keep the codes of what is shown, as a rule, and of the others rather few than many."""
        if place < UNTOLD_SHARE:
            return int(self._num_shown * place / UNTOLD_SHARE)
        return self._num_shown + round((longest - self._num_shown) * place**3)


def mistaken(details: Tensor) -> Tensor:
    """Return vectors `[batch, length, dim]` some of which are those of another picture."""
    num_pictures, length = details.shape[:2]
    share = MOST_MISTAKES * (torch.rand(num_pictures, 1) * 1.5 - 0.5).clamp_min(0)
    is_wrong = (torch.rand(num_pictures, length) < share).unsqueeze(-1).to(details.device)
    return torch.where(is_wrong, details[torch.randperm(num_pictures)], details)
