"""Comparing pictures in the features of a network that somebody trained to see.

Two pictures that look alike may differ in every pixel. The distance is that of LPIPS (Zhang et al.,
"The Unreasonable Effectiveness of Deep Features", 2018) without its learned weights: features of
several depths, of unit length at each place, squared difference. mmgen ships no such network; a
folder says which: a teacher or a namer of `mmgen train`, or a vision model of `transformers`.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding.contrastive import ContrastiveNetwork, FeatureTower
from mmgen.autoencoding.naming import NamingNetwork
from mmgen.errors import MmgenError, SettingsError

__all__ = [
    "AbstractFeatures",
    "NamerFeatures",
    "TeacherFeatures",
    "TransformersFeatures",
    "load_features",
    "perceptual_loss",
]


class AbstractFeatures(nn.Module, ABC):
    """A frozen network that sees. Gradients pass through it to pictures and stop there."""

    @abstractmethod
    def forward(self, images: Tensor) -> list[Tensor]:
        """Return features `[batch, places, channels]` of several depths.

        Args:
            images: `[batch, 3, height, width]`, about 0..1.
        """


class TeacherFeatures(AbstractFeatures):
    """The picture's side of a contrastive teacher."""

    def __init__(self, tower: FeatureTower) -> None:
        super().__init__()
        self.tower = tower.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> list[Tensor]:
        tower = self.tower
        fine = functional.silu(tower.patches(images * 2 - 1))
        middle = tower.middle(tower.down_middle(fine))
        last = rearrange(tower(images), "b h w c -> b (h w) c")
        return [*(rearrange(item, "b c h w -> b (h w) c") for item in (fine, middle)), last]


class NamerFeatures(AbstractFeatures):
    """The tower of a network that names pictures: what it sees at each halving.

    It looks with the fewer pixels of the two sizes that it learned at, which is several times
    faster.
    """

    def __init__(self, namer: NamingNetwork) -> None:
        super().__init__()
        self.tower = namer.tower.eval().requires_grad_(False)
        self._side = min(namer.settings.side, namer.settings.first_side)

    def forward(self, images: Tensor) -> list[Tensor]:
        planes = self.tower.planes(images, self._side)
        return [rearrange(item, "b c h w -> b (h w) c") for item in planes]


class TransformersFeatures(AbstractFeatures):
    """A vision model of `transformers`: the hidden states after a quarter, half and all layers."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        model: nn.Module,
        *,
        side: int | None,
        mean: tuple[float, float, float],
        deviation: tuple[float, float, float],
    ) -> None:
        """Wrap a model.

        Args:
            model: takes `pixel_values` and `output_hidden_states`.
            side: pixels a side that it takes; None for any.
            mean: of each channel of the pictures that it was trained on.
            deviation: likewise, the standard deviation.
        """
        super().__init__()
        self.model = model.eval().requires_grad_(False)
        self._side = side
        for name, values in (("mean", mean), ("deviation", deviation)):
            self.register_buffer(name, rearrange(torch.tensor(values), "c -> 1 c 1 1"))

    def forward(self, images: Tensor) -> list[Tensor]:
        if self._side is not None and images.shape[-2:] != (self._side, self._side):
            images = functional.interpolate(images, (self._side, self._side), mode="bilinear")
        normed = (images - self.mean) / self.deviation
        states = self.model(pixel_values=normed, output_hidden_states=True).hidden_states
        depths = sorted({len(states) // 4, len(states) // 2, len(states) - 1})
        return [_by_place(states[depth]) for depth in depths]


def _by_place(state: Tensor) -> Tensor:
    return rearrange(state, "b c h w -> b (h w) c") if state.ndim == 4 else state


def load_features(folder: Path) -> AbstractFeatures:
    """Return the network in a folder: a teacher, or a vision model of `transformers`.

    Raises:
        SettingsError: there is neither, or it cannot be loaded.
    """
    if (folder / "teacher_config.json").is_file():
        return TeacherFeatures(ContrastiveNetwork.load(folder).image)
    if (folder / "namer_config.json").is_file():
        return NamerFeatures(NamingNetwork.load(folder))
    if (folder / "config.json").is_file():
        return _of_transformers(folder)
    raise SettingsError(
        f"{folder} holds no network to compare pictures with; expected a teacher "
        "(teacher_config.json), a namer (namer_config.json) or a vision model of transformers "
        "(config.json); without any, leave `perceptual` out"
    )


def _of_transformers(folder: Path) -> TransformersFeatures:
    try:
        transformers = import_module("transformers")
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"{folder} is a model of transformers, which is not installed; pip install transformers"
        ) from error
    try:
        model: nn.Module = transformers.AutoModel.from_pretrained(folder, local_files_only=True)
        # Of a model of pictures and words, its half that sees.
        model = getattr(model, "vision_model", model)
        config: Any = getattr(model, "config", None)
        processing = _json(folder / "preprocessor_config.json")
        features = TransformersFeatures(
            model,
            side=getattr(config, "image_size", None),
            mean=tuple(processing.get("image_mean", (0.5, 0.5, 0.5))),
            deviation=tuple(processing.get("image_std", (0.5, 0.5, 0.5))),
        )
        with torch.no_grad():
            features(torch.zeros(1, 3, 32, 32))
    except MmgenError:
        raise
    except Exception as error:  # the library raises whatever its many models raise
        raise SettingsError(
            f"the model in {folder} gives no features of pictures: {type(error).__name__}: {error}"
        ) from error
    return features


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return stored


def perceptual_loss(features: AbstractFeatures, reconstruction: Tensor, images: Tensor) -> Tensor:
    """Return how differently the network sees two batches `[batch, 3, height, width]`, 0 if alike.

    The mean, over depths, of the squared distance of unit vectors, which lies in 0..4.
    """
    with torch.no_grad():
        wanted = features(images)
    total = torch.zeros((), device=images.device)
    for found, target in zip(features(reconstruction), wanted, strict=True):
        difference = functional.normalize(found, dim=-1) - functional.normalize(target, dim=-1)
        total = total + difference.square().sum(dim=-1).mean()
    return total / len(wanted)
