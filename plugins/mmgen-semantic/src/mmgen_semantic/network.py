"""The network: two encoders, two quantizers, one decoder, and in training what a teacher asks.

What a picture shows and how it looks are learned apart (Song et al., "DualToken", 2025; Qu et al.,
"TokenFlow", 2024): the semantic codes follow the teacher alone, and pixels cannot pull them away
from it. The decoder sees both.
"""

from __future__ import annotations

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding import (
    AbstractAutoencoder,
    ConvolutionalDecoder,
    ConvolutionalEncoder,
    ConvolutionalSettings,
    FeatureTower,
)
from mmgen.visual_tokenizer import TrainingOutput
from mmgen_semantic.quantizer import DualQuantizer
from mmgen_semantic.teachers import AbstractTeacher, ContrastiveTeacher, Lesson

__all__ = ["Pupil", "SemanticDecoder", "SemanticEncoder", "SemanticNetwork"]

BATCH = 64
"""Pictures looked at at once before training."""


class SemanticEncoder(nn.Module):
    """`[batch, 3, 8h, 8w]` in 0..1 to latents `[batch, meaning_dim + pixel_dim, h, w]`."""

    def __init__(
        self, settings: ConvolutionalSettings, tower: FeatureTower, meaning_dim: int, pixel_dim: int
    ) -> None:
        super().__init__()
        self.tower = tower
        self.meaning = nn.Linear(tower.width, meaning_dim)
        # So named, these begin as the encoder of fsq where a run starts from it.
        self.convolutions = ConvolutionalEncoder(settings, pixel_dim)

    def forward(self, images: Tensor) -> Tensor:
        meaning = rearrange(self.meaning(self.tower(images)), "b h w d -> b d h w")
        return torch.cat([meaning, self.convolutions(images)], dim=1)


class SemanticDecoder(nn.Module):
    """Vectors `[batch, meaning_dim + pixel_dim, h, w]` to images `[batch, 3, 8h, 8w]`, unclamped.

    At the start the semantic vectors add nothing.
    """

    def __init__(self, settings: ConvolutionalSettings, meaning_dim: int, pixel_dim: int) -> None:
        super().__init__()
        self.convolutions = ConvolutionalDecoder(settings, pixel_dim)
        self.meaning = nn.Conv2d(meaning_dim, settings.decoder_widths[0], 3, padding=1, bias=False)
        nn.init.zeros_(self.meaning.weight)
        self._split = [meaning_dim, pixel_dim]

    def forward(self, vectors: Tensor) -> Tensor:
        meaning, pixels = torch.split(vectors, self._split, dim=1)
        features = self.convolutions.vectors(pixels) + self.meaning(meaning)
        return self.convolutions.drawn(features)


class Pupil(nn.Module):
    """Guesses from the semantic vectors what the teacher sees; only training needs it."""

    def __init__(self, meaning_dim: int, teacher: AbstractTeacher) -> None:
        super().__init__()
        self.places = nn.Linear(meaning_dim, teacher.dim)
        self.whole = nn.Linear(meaning_dim, teacher.whole_dim)

    def loss(self, vectors: Tensor, lesson: Lesson) -> Tensor:
        """Return how wrong guesses from `[batch, h, w, meaning_dim]` are, each 1 if clueless.

        Guesses are linear: what a code names is then itself what the teacher sees.
        """
        whole = self.whole(reduce(vectors, "b h w d -> b d", "mean"))
        return functional.mse_loss(
            self.places(vectors), _standardised(lesson.places)
        ) + functional.mse_loss(whole, _standardised(lesson.whole))


class SemanticNetwork(AbstractAutoencoder):
    """All of it; with a teacher it can be trained, without one it encodes and decodes."""

    quantizer: DualQuantizer

    def __init__(
        self,
        settings: ConvolutionalSettings,
        tower: FeatureTower,
        quantizer: DualQuantizer,
        teacher: AbstractTeacher | None,
    ) -> None:
        super().__init__()
        dims = (quantizer.meaning_dim, quantizer.pixels.dim)
        self.encoder = SemanticEncoder(settings, tower, *dims)
        self.quantizer = quantizer
        self.decoder = SemanticDecoder(settings, *dims)
        self.pupil = None if teacher is None else Pupil(dims[0], teacher)
        # No module, so that it is neither trained nor saved.
        self._teacher = teacher
        if isinstance(teacher, ContrastiveTeacher):
            _begin_as(self.encoder.tower, teacher)

    @torch.no_grad()
    def begin(self, images: Tensor) -> None:
        """Let meanings begin as the main directions of what the tower's features say of a lesson.

        This is a regression of reduced rank from features to the lesson, then k-means for the
        codes. Training makes more of it; but with little training this is most of what there is.

        Args:
            images: `[num, 3, height, width]` in 0..1.
        """
        assert isinstance(self.encoder, SemanticEncoder)
        assert self._teacher is not None and self.pupil is not None
        parts = []
        for batch in torch.split(images, BATCH):
            found = self.encoder.tower(batch)
            lesson = self._teacher.look(batch, *found.shape[1:3])
            parts.append((found.flatten(0, 2), lesson.places.flatten(0, 2)))
        features, lessons = (torch.cat(part) for part in zip(*parts, strict=True))
        middle = features.mean(dim=0)
        features, lessons = features - middle, _standardised(lessons)
        slopes = torch.linalg.lstsq(features, lessons).solution
        told = features @ slopes
        _, directions = torch.linalg.eigh(told.T @ told / len(told))
        meaning = self.encoder.meaning
        # Those of the largest eigenvalues come last.
        main = directions[:, -meaning.out_features :]
        num = main.shape[1]
        latents = told @ main
        scale = latents.square().mean().sqrt()
        meaning.weight.zero_()
        meaning.weight[:num] = (slopes @ main).T / scale
        meaning.bias.copy_(-meaning.weight @ middle)
        self.pupil.places.weight.zero_()
        self.pupil.places.weight[:, :num] = main * scale
        self.pupil.places.bias.zero_()
        self.quantizer.begin(functional.pad(latents / scale, (0, meaning.out_features - num)))

    def forward(self, images: Tensor) -> TrainingOutput:
        assert self.encoder is not None and self.decoder is not None
        latents = rearrange(self.encoder(images), "b d h w -> b h w d")
        # Choosing a code has to see the exact latents, whatever the convolutions run in.
        quantized = self.quantizer(latents.to(torch.float32))
        meaning = quantized.vectors[..., : self.quantizer.meaning_dim]
        pixels = quantized.vectors[..., self.quantizer.meaning_dim :]
        seen = torch.cat([meaning.detach(), pixels], dim=-1)
        losses = dict(quantized.losses)
        if self.training and self._teacher is not None:
            assert self.pupil is not None
            lesson = self._teacher.look(images, *meaning.shape[1:3])
            losses["teacher"] = self.pupil.loss(meaning, lesson)
        return TrainingOutput(
            reconstruction=self.decoder(rearrange(seen, "b h w d -> b d h w")),
            codes=rearrange(quantized.codes, "b h w n -> b (h w) n"),
            losses=losses,
        )


def _begin_as(tower: FeatureTower, teacher: ContrastiveTeacher) -> None:
    """Start the semantic tower as that of a teacher of the same shape."""
    theirs = teacher.network.image.state_dict()
    shapes = {name: value.shape for name, value in theirs.items()}
    if shapes == {name: value.shape for name, value in tower.state_dict().items()}:
        tower.load_state_dict(theirs)


def _standardised(values: Tensor) -> Tensor:
    """Bring each number of `[..., dim]` to mean 0 and variance 1 over the batch."""
    flat = values.flatten(0, -2)
    return (values - flat.mean(dim=0)) / (flat.std(dim=0, correction=0) + 1e-5)
