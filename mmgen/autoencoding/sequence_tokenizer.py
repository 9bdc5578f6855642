"""A tokenizer of ordered codes: as many as are wanted, any prefix of which is a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor

from mmgen.autoencoding.learned_tokenizer import (
    AbstractAutoencoder,
    AbstractLearnedTokenizer,
)
from mmgen.autoencoding.sequence_network import (
    AbstractSequenceNetwork,
    Beside,
    SequenceSettings,
)
from mmgen.autoencoding.settings import LearnedSettings
from mmgen.visual_tokenizer import (
    Codes,
    FixedPixels,
    Ordered,
    Picture,
    VisualTokenizerSpec,
)

__all__ = ["AbstractSequenceTokenizer"]

BATCH_SIZE = 64
"""Pictures that go through the network at once, so that memory does not follow the request."""


class AbstractSequenceTokenizer(AbstractLearnedTokenizer):
    """Ordered codes of pictures of one size; a final class says what else the network reads."""

    settings_type: ClassVar[type[SequenceSettings]]

    def __init__(
        self, settings: LearnedSettings, network: AbstractAutoencoder, fingerprint: str | None
    ) -> None:
        super().__init__(settings, network, fingerprint)
        assert isinstance(settings, SequenceSettings)
        assert isinstance(network, AbstractSequenceNetwork)
        self._sequence_settings = settings
        self._sequence_network = network
        self._spec = self._described(settings)

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        """Return the codes of each picture, `default_length` of them if nothing else is asked for.

        Args:
            images: pictures of the one size.
            length: positions, 1 to `max_length`.
            quality: 0..1, the SSIM that the shortest sequence is chosen for, as the encoder
                foresees it; the longest sequence where it foresees less of every length.
            captions: one text per picture, where the spec says that they are read.
        """
        lengths = self._lengths(length, quality)
        for image in images:
            self._check_picture(image)
        self._check_captions(captions, len(images))
        found: list[Codes] = []
        parameter = next(self._encoder.parameters())
        for start in range(0, len(images), BATCH_SIZE):
            part = slice(start, start + BATCH_SIZE)
            batch = torch.from_numpy(np.stack(images[part]))
            batch = rearrange(batch, "b h w c -> b c h w").to(parameter.device, parameter.dtype)
            with torch.inference_mode():
                beside = self._beside(captions and captions[part], len(batch))
                latents, foresight = self._sequence_network.latents(
                    batch.contiguous(memory_format=torch.channels_last), beside
                )
                codes = self._network.quantizer(latents.float()).codes.cpu().numpy()
            if quality is not None:
                # Foresight never falls, so the lengths that fall short come first.
                lengths = 1 + (foresight.float() < quality).sum(dim=1).clamp_max(
                    self._sequence_settings.max_length - 1
                )
            wanted = lengths.expand(len(batch)).tolist()
            found += [
                Codes(array[:count], Ordered(count))
                for array, count in zip(codes, wanted, strict=True)
            ]
        return found

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        if seed is not None or steps is not None:
            raise ValueError(f"{self.name} decodes without noise and steps")
        for item in codes:
            self._check_codes(item)
        self._check_captions(captions, len(codes))
        return self._painted([item.array for item in codes], captions)

    def begin_training(self, pictures: Tensor, captions: Sequence[str] = ()) -> None:
        network = self._sequence_network
        # What was taken from another tokenizer is what the rest of its weights go with.
        if not network.principal.is_fitted:
            network.principal.fit(pictures, network.quantizer)

    def preview(self, codes: Codes, *, caption: str | None = None) -> Picture:
        """Return a picture of the codes that there are yet: of none, what is to be expected."""
        self._check_layout(codes)
        if len(codes.array):
            self._check_array(codes, complete=False)
        captions = None if caption is None else [caption]
        self._check_captions(captions, 1)
        return self._painted([codes.array], captions)[0]

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        if codebook != 0:
            raise ValueError(f"{self.name} has one codebook, numbered 0, got {codebook}")
        with torch.inference_mode():
            vectors: npt.NDArray[np.float32] = (
                self._network.quantizer.code_vectors(codebook).float().cpu().numpy()
            )
        return vectors

    def _described(self, settings: SequenceSettings) -> VisualTokenizerSpec:
        """Return the spec of these settings."""
        lengths = range(1, settings.max_length + 1)
        default = Ordered(settings.default_length)
        layouts = (Ordered(length) for length in lengths if length != settings.default_length)
        return VisualTokenizerSpec(
            codebook_sizes=self._network.quantizer.codebook_sizes,
            layouts=(default, *layouts),
            pixels=FixedPixels(settings.side, settings.side),
            resize="pad",
            prefix_decodable=True,
            min_psnr=settings.min_psnr,
        )

    def _beside(self, captions: Sequence[str] | None, count: int) -> Beside:
        """Return what is known besides `count` pictures or codes."""
        return Beside()

    def _check_captions(self, captions: Sequence[str] | None, count: int) -> None:
        if captions is None:
            return
        if not self.spec.captions_used:
            raise ValueError(f"{self.name} reads no captions")
        if len(captions) != count:
            raise ValueError(
                f"{self.name} needs one caption for each of {count} items, got {len(captions)}"
            )

    def _painted(
        self, arrays: Sequence[npt.NDArray[np.int64]], captions: Sequence[str] | None
    ) -> list[Picture]:
        """Return the picture of each prefix `[positions, 1]`, which may be empty."""
        found: dict[int, Picture] = {}
        parameter = next(self._decoder.parameters())
        lengths: dict[int, list[int]] = {}
        for index, array in enumerate(arrays):
            lengths.setdefault(len(array), []).append(index)
        for indices in lengths.values():
            for start in range(0, len(indices), BATCH_SIZE):
                part = indices[start : start + BATCH_SIZE]
                batch = torch.from_numpy(np.stack([arrays[index] for index in part])).long()
                with torch.inference_mode():
                    given = None if captions is None else [captions[index] for index in part]
                    beside = self._beside(given, len(part))
                    vectors = self._network.quantizer.vectors(batch.to(parameter.device))
                    pixels = self._sequence_network.painted(vectors.to(parameter.dtype), beside)
                pixels = rearrange(pixels.float().cpu().clamp(0, 1), "b c h w -> b h w c")
                for index, array in zip(part, pixels.numpy(), strict=True):
                    found[index] = np.ascontiguousarray(array)
        return [found[index] for index in range(len(arrays))]

    def _lengths(self, length: int | None, quality: float | None) -> Tensor:
        longest = self._sequence_settings.max_length
        if length is not None and quality is not None:
            raise ValueError(f"{self.name} takes a length or a quality, not both")
        if length is not None and not 1 <= length <= longest:
            raise ValueError(f"{self.name} has lengths of 1 to {longest}, got {length}")
        if quality is not None and not 0 <= quality <= 1:
            raise ValueError(f"quality must lie in 0..1, got {quality}")
        return torch.tensor(self._sequence_settings.default_length if length is None else length)

    def _check_picture(self, image: Picture) -> None:
        side = self._sequence_settings.side
        if image.shape != (side, side, 3):
            raise ValueError(
                f"{self.name} takes pictures of {side}x{side} pixels, got "
                f"{image.shape[1]}x{image.shape[0]}; resize the picture first"
            )

    def _check_codes(self, codes: Codes) -> None:
        self._check_layout(codes)
        self._check_array(codes)

    def _check_layout(self, codes: Codes) -> None:
        longest = self._sequence_settings.max_length
        if not isinstance(codes.layout, Ordered) or codes.layout.length > longest:
            raise ValueError(
                f"{self.name} decodes Ordered layouts of 1 to {longest}, got {codes.layout}"
            )
