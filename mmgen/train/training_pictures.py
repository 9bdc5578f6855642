"""The pictures that a visual tokenizer learns from, in memory, and which of them a step takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from mmgen.errors import DataError, PictureError
from mmgen.pictures import open_picture, to_array
from mmgen.train.progress import AbstractProgress
from mmgen.train.sources import WeightedSource
from mmgen.visual_tokenizer import Resize

__all__ = ["Batch", "TrainingPictures"]


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step is about."""

    images: Tensor
    """`[batch, 3, height, width]` in 0..1."""
    captions: list[str]
    """One of each picture's captions; empty where it has none, or where it was left out."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingPictures:
    """Pictures as bytes, with how often to show each and what is said of it."""

    pixels: Tensor
    """`[num_pictures, 3, height, width]`, uint8."""
    shares: Tensor
    """How often to show each, summing to 1."""
    captions: tuple[tuple[str, ...], ...]
    """All captions of each."""

    @classmethod
    def load(
        cls,
        sources: Sequence[WeightedSource],
        progress: AbstractProgress,
        *,
        size: tuple[int, int],
        resize: Resize,
        needs_captions: bool,
    ) -> Self:
        """Read every picture, in one size.

        Pictures that cannot be read are left out, each with a note.

        Raises:
            DataError: a source cannot be opened or holds no picture, or captions are needed and
                there is none.
        """
        pictures: list[npt.NDArray[np.uint8]] = []
        captions: list[tuple[str, ...]] = []
        weights: list[float] = []
        for number, item in enumerate(sources):
            source = item.source.open()
            turns: list[float] = []
            for index in range(source.num_rows):
                try:
                    row = source.row(index)
                    if row.picture is None:
                        continue
                    array = to_array(open_picture(row.picture), size, resize)
                except (DataError, PictureError) as error:
                    progress.note(f"picture left out: {error}")
                    continue
                pictures.append(rearrange((array * 255).round().astype(np.uint8), "h w c -> c h w"))
                captions.append(row.captions)
                turns.append(1 / source.share(index).size)
                share = (number + index / source.num_rows) / len(sources)
                progress.update(share, f"{len(pictures):,} pictures read")
            if not turns:
                raise DataError(f"source {number} holds no picture that can be read")
            weights += [item.weight * turn / sum(turns) for turn in turns]
        if needs_captions and not any(captions):
            raise DataError(
                "captions are learned from, but no picture has one; name columns of captions "
                "in the sources"
            )
        shares = torch.tensor(weights)
        return cls(
            pixels=torch.from_numpy(np.stack(pictures)),
            shares=shares / shares.sum(),
            captions=tuple(captions),
        )

    def sample(self, size: int, *, seed: int) -> Batch:
        """Return random pictures, none twice, at most `size`, and a random caption of each."""
        generator = torch.Generator().manual_seed(seed)
        count = min(size, len(self.pixels))
        chosen = torch.multinomial(self.shares, count, replacement=False, generator=generator)
        which = torch.rand(count, generator=generator).tolist()
        pictures = self.pixels[chosen].to(torch.float32) / 255
        return Batch(pictures, self._said_of(chosen, which))

    def batch(
        self, size: int, *, max_shift: int, caption_dropout: float, generator: torch.Generator
    ) -> Batch:
        """Return random pictures, shifted together, and a random caption of each.

        Args:
            size: pictures.
            max_shift: pixels of the largest shift; borders are repeated.
            caption_dropout: share of captions that are left out.
            generator: decides everything.
        """
        chosen = torch.multinomial(self.shares, size, replacement=True, generator=generator)
        images = self.pixels[chosen].to(torch.float32) / 255
        if max_shift:
            down, right = torch.randint(0, 2 * max_shift + 1, (2,), generator=generator).tolist()
            padded = functional.pad(images, (max_shift,) * 4, mode="replicate")
            height, width = images.shape[-2:]
            images = padded[..., down : down + height, right : right + width]
        kept, which = torch.rand(2, size, generator=generator).tolist()
        captions = [
            caption if keeping >= caption_dropout else ""
            for caption, keeping in zip(self._said_of(chosen, which), kept, strict=True)
        ]
        return Batch(images.contiguous(memory_format=torch.channels_last), captions)

    def _said_of(self, chosen: Tensor, which: Sequence[float]) -> list[str]:
        """Return one caption of each picture, empty where it has none; `which` decides, in 0..1."""
        told = (self.captions[index] for index in chosen.tolist())
        return [
            captions[int(number * len(captions))] if captions else ""
            for captions, number in zip(told, which, strict=True)
        ]
