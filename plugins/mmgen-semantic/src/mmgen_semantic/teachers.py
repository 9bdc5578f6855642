"""Networks that know what pictures show, from which the semantic codes are learned.

A teacher is needed in training only. It is never part of what is saved.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from einops import rearrange, reduce
from torch import Tensor, nn
from torch.nn import functional

from mmgen.autoencoding import ContrastiveNetwork
from mmgen.errors import PluginError

__all__ = [
    "AbstractTeacher",
    "ContrastiveTeacher",
    "Lesson",
    "TransformersTeacher",
    "load_teacher",
]


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a teacher sees in pictures."""

    places: Tensor
    """`[batch, rows, columns, dim]`, of the rows and columns that were asked for."""
    whole: Tensor
    """`[batch, whole_dim]`."""


class AbstractTeacher(ABC):
    """Says what pictures show; it does not learn any more."""

    dim: int
    """Numbers of one place."""
    whole_dim: int
    """Numbers of a whole picture."""

    @abstractmethod
    def look(self, images: Tensor, rows: int, columns: int) -> Lesson:
        """Return what is in `[batch, 3, height, width]` in 0..1, seen as rows and columns."""


class ContrastiveTeacher(AbstractTeacher):
    """mmgen's own small teacher of pictures and words."""

    def __init__(self, network: ContrastiveNetwork) -> None:
        self.network = network.eval().requires_grad_(False)
        self.dim = self.whole_dim = network.settings.dim

    @torch.no_grad()
    def look(self, images: Tensor, rows: int, columns: int) -> Lesson:
        places = self.network.places(images)
        return Lesson(_at(places, rows, columns), reduce(places, "b h w d -> b d", "mean"))


class TransformersTeacher(AbstractTeacher):
    """The vision half of any model of `transformers`: CLIP, SigLIP, DINO and their kin."""

    def __init__(self, model: nn.Module, *, side: int, mean: Tensor, deviation: Tensor) -> None:
        """Wrap a vision model.

        Args:
            model: takes `pixel_values` and gives a last hidden state.
            side: height and width in pixels of the pictures it knows.
            mean: of each channel, `[3]`, which is taken off before the model sees a picture.
            deviation: of each channel, `[3]`, by which is divided then.
        """
        self._model = model.eval().requires_grad_(False)
        self._side = side
        self._mean = rearrange(mean, "c -> c 1 1")
        self._deviation = rearrange(deviation, "c -> c 1 1")
        trial = self.look(torch.zeros(1, 3, side, side), 1, 1)
        self.dim, self.whole_dim = trial.places.shape[-1], trial.whole.shape[-1]

    @torch.no_grad()
    def look(self, images: Tensor, rows: int, columns: int) -> Lesson:
        sized = functional.interpolate(
            images, (self._side, self._side), mode="bicubic", antialias=True
        )
        output: Any = self._model(pixel_values=(sized.clamp(0, 1) - self._mean) / self._deviation)
        hidden: Tensor = output.last_hidden_state
        if hidden.ndim == 4:
            places = rearrange(hidden, "b d h w -> b h w d")
        else:
            # A class token and registers come first; the rest is a square in raster order.
            side = int(hidden.shape[1] ** 0.5)
            places = rearrange(hidden[:, -side * side :], "b (h w) d -> b h w d", h=side)
        pooled: Tensor | None = output.pooler_output
        whole = reduce(places, "b h w d -> b d", "mean") if pooled is None else pooled.flatten(1)
        return Lesson(_at(places, rows, columns), whole)


def load_teacher(name: str) -> AbstractTeacher:
    """Return the teacher of a name.

    Args:
        name: the folder of a teacher that `mmgen train semantic` left, or a model of
            `transformers`: its folder, or its name on a hub.

    Raises:
        PluginError: there is no such teacher, or `transformers` is not installed.
    """
    folder = Path(name)
    if (folder / "teacher_config.json").is_file():
        return ContrastiveTeacher(ContrastiveNetwork.load(folder))
    return _from_transformers(name)


def _from_transformers(name: str) -> TransformersTeacher:
    try:
        from transformers import AutoModel
        from transformers.image_processing_base import ImageProcessingMixin
    except ImportError as error:
        raise PluginError(
            f"the teacher {name} is a model of transformers, which is not installed ({error}); "
            "pip install 'mmgen-semantic[teachers]', or give the folder of a teacher of mmgen"
        ) from error
    try:
        whole = AutoModel.from_pretrained(name)
        processing, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        reason = str(error).splitlines()[0]
        raise PluginError(
            f"no teacher {name}: it is neither a folder with teacher_config.json nor a model of "
            f"transformers with a preprocessor_config.json ({reason})"
        ) from error
    # Models of pictures and words hold one of pictures; others are one.
    model = getattr(whole, "vision_model", whole)
    missing = [key for key in ("image_mean", "image_std") if key not in processing]
    if missing:
        raise PluginError(f"the teacher {name} has a preprocessor without {' and '.join(missing)}")
    return TransformersTeacher(
        model,
        side=_side(model.config, processing, name),
        mean=torch.tensor(processing["image_mean"]),
        deviation=torch.tensor(processing["image_std"]),
    )


def _side(config: Any, processing: dict[str, Any], name: str) -> int:
    """Return the side in pixels of the pictures that a model was trained on."""
    found = getattr(config, "image_size", None) or processing.get("size", {})
    if isinstance(found, dict):
        found = found.get("height", found.get("shortest_edge"))
    if isinstance(found, list | tuple):
        found = found[0]
    if not isinstance(found, int):
        raise PluginError(f"the teacher {name} does not say how large its pictures are")
    return found


def _at(places: Tensor, rows: int, columns: int) -> Tensor:
    """Bring `[batch, h, w, dim]` to other rows and columns."""
    if places.shape[1:3] == (rows, columns):
        return places
    moved = rearrange(places, "b h w d -> b d h w")
    moved = functional.interpolate(moved, (rows, columns), mode="bilinear", antialias=True)
    return rearrange(moved, "b d h w -> b h w d")
