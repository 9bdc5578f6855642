"""Checks of trainable tokenizers catch networks that do not train and fingerprints that lie."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import pytest
import torch
from einops import rearrange, reduce, repeat
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmgen.testing import check
from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Codes,
    Grid,
    GridPixels,
    Parts,
    Picture,
    TrainingOutput,
    VisualTokenizerSpec,
)
from mmgen_palette import PaletteTokenizer

KIT = ("imports", "fresh process", "speed", "device")
"""Left out here: they take a process with torch, or time."""


class Colours(nn.Module):
    """A learned palette of a 4 x 4 grid of blocks."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.colours = nn.Parameter(torch.rand(32, 3, generator=generator))

    def forward(self, images: Tensor) -> TrainingOutput:
        means = reduce(images, "b c (r y) (k x) -> b (r k) c", "mean", y=4, x=4)
        codes = torch.cdist(means, self.colours).argmin(dim=-1)
        blocks = self.colours[codes]
        painted = repeat(blocks, "b (r k) c -> b c (r y) (k x)", r=4, y=4, x=4)
        return TrainingOutput(painted, rearrange(codes, "b p -> b p 1"), self.losses(blocks))

    def losses(self, blocks: Tensor) -> Mapping[str, Tensor]:
        return {"spread": blocks.mean() * 0.01}


class Learned(AbstractVisualTokenizer):
    """Honest: the smallest tokenizer with weights."""

    is_trainable: ClassVar[bool] = True
    network_class: ClassVar[type[Colours]] = Colours

    def __init__(self, network: Colours) -> None:
        self.module = network

    @property
    def spec(self) -> VisualTokenizerSpec:
        return VisualTokenizerSpec(
            codebook_sizes=(32,), layouts=(Grid(4, 4),), pixels=GridPixels(4)
        )

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self.module.colours.detach().numpy().tobytes()).hexdigest()

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        if length is not None or quality is not None or captions is not None:
            raise ValueError("no options")
        if any(image.shape != (16, 16, 3) for image in images):
            raise ValueError("pictures must be 16x16")
        with torch.inference_mode():
            outputs = [
                self.module(rearrange(torch.from_numpy(image), "h w c -> 1 c h w"))
                for image in images
            ]
        return [Codes(output.codes[0].numpy(), Grid(4, 4)) for output in outputs]

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        colours = self.module.colours.detach().numpy().clip(0, 1)
        pictures = []
        for item in codes:
            if item.layout != Grid(4, 4) or item.array.shape != (16, 1):
                raise ValueError(f"expected a 4x4 grid, got {item.layout}, {item.array.shape}")
            if item.array.min() < 0 or item.array.max() >= 32:
                raise ValueError("a code is outside its codebook")
            blocks = rearrange(colours[item.array[:, 0]], "(r k) c -> r k c", r=4)
            pictures.append(np.ascontiguousarray(blocks.repeat(4, axis=0).repeat(4, axis=1)))
        return pictures

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        parts: Parts = "both",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        loaded = cls.untrained({}, seed=0)
        if path is not None:
            loaded.module.load_state_dict(load_file(path / "colours.safetensors"), strict=True)
        return loaded

    def save(self, path: Path) -> None:
        save_file(self.module.state_dict(), path / "colours.safetensors")

    @classmethod
    def untrained(cls, settings: Mapping[str, object], *, seed: int) -> Self:
        return cls(cls.network_class())

    def network(self) -> nn.Module:
        return self.module


class IgnoresWeights(Learned):
    @property
    def fingerprint(self) -> str:
        return "5" * 64


class StaleFingerprint(Learned):
    """The fingerprint is taken once, when the tokenizer is made."""

    def __init__(self, network: Colours) -> None:
        super().__init__(network)
        self.taken = super().fingerprint

    @property
    def fingerprint(self) -> str:
        return self.taken


class SavesTheFirstWeights(Learned):
    def __init__(self, network: Colours) -> None:
        super().__init__(network)
        self.first = {key: value.clone() for key, value in network.state_dict().items()}

    def save(self, path: Path) -> None:
        save_file(self.first, path / "colours.safetensors")


class TrainsACopy(Learned):
    def network(self) -> nn.Module:
        return Colours()


class NoGradient(Colours):
    def forward(self, images: Tensor) -> TrainingOutput:
        output = super().forward(images)
        return TrainingOutput(output.reconstruction.detach() + images * 0, output.codes)


class FloatCodes(Colours):
    def forward(self, images: Tensor) -> TrainingOutput:
        output = super().forward(images)
        return TrainingOutput(output.reconstruction, output.codes.float())


class FlatCodes(Colours):
    def forward(self, images: Tensor) -> TrainingOutput:
        output = super().forward(images)
        return TrainingOutput(output.reconstruction, output.codes[..., 0])


class HalfSize(Colours):
    def forward(self, images: Tensor) -> TrainingOutput:
        output = super().forward(images)
        return TrainingOutput(output.reconstruction[..., ::2], output.codes)


class EndlessLoss(Colours):
    def losses(self, blocks: Tensor) -> Mapping[str, Tensor]:
        return {"spread": blocks.mean() * torch.inf}


class Tuple(Colours):
    def forward(self, images: Tensor) -> TrainingOutput:
        output = super().forward(images)
        return output.reconstruction, output.codes  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("faulty", "found"),
    [
        (IgnoresWeights, "but not the fingerprint"),
        (StaleFingerprint, "but not the fingerprint"),
        (SavesTheFirstWeights, "before saving and"),
        (TrainsACopy, "not the tokenizer's own"),
    ],
)
def test_fingerprint_must_follow_the_weights(
    faulty: type[AbstractVisualTokenizer], found: str
) -> None:
    (result,) = check(faulty, only=["weights"]).failures
    assert found in result.found


@pytest.mark.parametrize(
    ("faulty", "found"),
    [
        (NoGradient, "does not require grad"),
        (FloatCodes, "expected integers"),
        (FlatCodes, "expected [5, positions, 1]"),
        (HalfSize, "is [5, 3, 16, 8]"),
        (EndlessLoss, "the loss is"),
        (Tuple, "gave a tuple"),
    ],
)
def test_network_must_train(faulty: type[Colours], found: str) -> None:
    kind: type[Learned] = type("Faulty", (Learned,), {"network_class": faulty})
    (result,) = check(kind, only=["training"]).failures
    assert found in result.found


def test_honest_tokenizer_passes() -> None:
    report = check(Learned, skip=KIT)
    assert report.is_passed, report.to_text()
    assert {result.outcome for result in report.results[-2:]} == {"passed"}


def test_checking_leaves_the_tokenizer_as_it_was() -> None:
    learned = Learned.untrained({}, seed=0)
    before = learned.fingerprint
    check(learned, only=["training", "weights"])
    assert learned.fingerprint == before
    assert learned.module.colours.grad is None


def test_tokenizers_without_weights_are_passed_over() -> None:
    report = check(PaletteTokenizer, only=["training", "weights"])
    assert [result.outcome for result in report.results] == ["skipped", "skipped"]
