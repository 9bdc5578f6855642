"""The codes of a tokenizer, drawn by another decoder that was trained after it.

The codes stay what they are, so whatever was trained on them goes on working; only pixels change
(Tar, Han et al., 2025, replaces the decoder of a frozen tokenizer). In training the wrapped
tokenizer encodes, and a share of its codes is exchanged for codes that a model draws in their
place: a decoder that has met a model's mistakes shows less of them (Qiu et al., "Image Tokenizer
Needs Post-Training", 2025).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import torch
from einops import rearrange
from torch import Tensor, nn

from mmgen.autoencoding.convolutions import FACTOR, ConvolutionalDecoder, ConvolutionalSettings
from mmgen.autoencoding.learned_tokenizer import equal_batches
from mmgen.autoencoding.settings import LearnedSettings
from mmgen.errors import PluginError, SettingsError
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
from mmgen.wrapping.confusions import Confusions, exchanged, read_confusions
from mmgen.wrapping.wrapper import AbstractWrapper, Arrays, Wrapped, load_wrapped

__all__ = ["DecoderSettings", "RedecodedTokenizer", "RedecodingNetwork"]

BATCH_POSITIONS = 64 * 64
"""Positions that go through the decoder at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSettings(LearnedSettings):
    """What shapes the decoder, and how it is trained."""

    tokenizer: str = ""
    """The tokenizer whose codes are drawn, by name or folder."""
    decoder_widths: tuple[int, int, int] = (160, 96, 48)
    """Channels at 1/8, 1/4 and 1/2 of the side."""
    decoder_depths: tuple[int, int, int] = (2, 2, 1)
    """Residual blocks at the same places."""
    perturbation: float = 0.0
    """Share of the codes that are exchanged in training."""
    confusions: str | None = None
    """File of what a model draws in the place of each code; without it, codes of other positions
    are taken."""

    def __post_init__(self) -> None:
        if not 0 <= self.perturbation < 1:
            raise ValueError(f"perturbation must lie in 0..1, got {self.perturbation}")


class RedecodingNetwork(nn.Module):
    """The new decoder, with a frozen encoder in front of it that is no part of its weights."""

    def __init__(
        self,
        settings: DecoderSettings,
        tables: Sequence[npt.NDArray[np.float32]],
        encode: Callable[[Sequence[Picture]], list[Codes]],
        confusions: Confusions | None,
    ) -> None:
        super().__init__()
        shape = ConvolutionalSettings(
            decoder_widths=settings.decoder_widths, decoder_depths=settings.decoder_depths
        )
        self.decoder = ConvolutionalDecoder(shape, sum(table.shape[1] for table in tables))
        for number, table in enumerate(tables):
            # What codes name belongs to the wrapped tokenizer, and is neither trained nor saved.
            self.register_buffer(f"table_{number}", torch.from_numpy(table), persistent=False)
        self._sizes = tuple(len(table) for table in tables)
        self._encode = encode
        self._perturbation = settings.perturbation
        self._confusions = confusions

    def forward(self, images: Tensor) -> TrainingOutput:
        """Encode with the wrapped tokenizer, exchange some codes in training, and decode."""
        arrays = rearrange(images.detach().float().cpu(), "b c h w -> b h w c").numpy()
        encoded = self._encode([np.ascontiguousarray(item) for item in arrays])
        codes = torch.from_numpy(np.stack([item.array for item in encoded])).to(images.device)
        drawn = codes
        if self.training and self._perturbation:
            drawn = exchanged(codes, self._perturbation, self._confusions)
        layout = encoded[0].layout
        assert isinstance(layout, Grid), "the wrapped tokenizer's layouts are grids"
        return TrainingOutput(reconstruction=self.draw(drawn, layout), codes=codes)

    def draw(self, codes: Tensor, grid: Grid) -> Tensor:
        """Return pixels `[batch, 3, height, width]`, unclamped, of `[batch, positions, books]`."""
        vectors = torch.cat(
            [
                self.get_buffer(f"table_{number}")[codes[..., number]]
                for number in range(len(self._sizes))
            ],
            dim=-1,
        )
        vectors = rearrange(vectors, "b (h w) c -> b c h w", h=grid.rows, w=grid.columns)
        pixels: Tensor = self.decoder(vectors.contiguous(memory_format=torch.channels_last))
        return pixels


class RedecodedTokenizer(AbstractWrapper):
    """A tokenizer of grids with eight pixels a side to a code, drawn by a decoder of its own."""

    name: ClassVar[str] = "redecoded"
    maker: ClassVar[str] = "mmgen train decoder"
    is_trainable: ClassVar[bool] = True

    def __init__(
        self, wrapped: Wrapped, settings: DecoderSettings, network: RedecodingNetwork, parts: Parts
    ) -> None:
        """Wrap a tokenizer; `spec_of` says which ones can be."""
        super().__init__(wrapped)
        self._settings = settings
        self._network = network
        self._parts = parts
        self._inner = wrapped.guarded
        self._spec = spec_of(wrapped, settings.min_psnr)
        self._known = frozenset(self._spec.layouts)

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    def stated(self) -> dict[str, Any]:
        stated = asdict(self._settings)
        # Where the weights came from and how they were learned is not what they are.
        return {key: stated[key] for key in ("decoder_widths", "decoder_depths", "min_psnr")}

    def arrays(self) -> Arrays:
        return {
            key: tensor.detach().to("cpu", torch.float32).contiguous().numpy()
            for key, tensor in self._network.state_dict().items()
        }

    @classmethod
    def restored(
        cls,
        wrapped: Wrapped,
        stated: Mapping[str, Any],
        arrays: Arrays,
        *,
        parts: Parts,
        device: str,
        dtype: str,
    ) -> Self:
        settings = DecoderSettings.of(stated, "the settings of the decoder")
        network = _network(wrapped, settings, None)
        network.load_state_dict(
            {key: torch.from_numpy(item.astype(np.float32)) for key, item in arrays.items()},
            strict=True,
        )
        network.to(device=device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        return cls(wrapped, settings, network, parts)

    @classmethod
    def untrained(cls, settings: Mapping[str, object], *, seed: int) -> Self:
        from mmgen.plugins import located_visual_tokenizer

        config = DecoderSettings.of(settings, "the settings given for training")
        if not config.tokenizer:
            raise PluginError("settings.tokenizer must name the tokenizer whose codes are drawn")
        wrapped = load_wrapped(*located_visual_tokenizer(config.tokenizer))
        confusions = None
        if config.confusions is not None:
            confusions = read_confusions(Path(config.confusions), wrapped.tokenizer.fingerprint)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = _network(wrapped, config, confusions)
        return cls(wrapped, config, network.eval(), "both")

    def network(self) -> nn.Module:
        """Return the decoder in front of which the wrapped tokenizer encodes."""
        if self._parts != "both":
            raise PluginError("training redecoded needs both of its halves")
        return self._network

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        return self._inner.encode(images, length=length, quality=quality, captions=captions)

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        if self._parts == "encoder":
            raise PluginError("this redecoded tokenizer was loaded without its decoder")
        if seed is not None or steps is not None or captions is not None:
            raise ValueError("redecoded decodes without noise, steps or captions")
        for item in codes:
            self._check(item)
        found: dict[int, Picture] = {}
        device = next(self._network.parameters()).device
        for indices in equal_batches([item.layout.shape[1:] for item in codes], BATCH_POSITIONS):
            grid = codes[indices[0]].layout
            assert isinstance(grid, Grid), "the layouts are grids"
            batch = torch.from_numpy(np.stack([codes[index].array for index in indices])).long()
            with torch.inference_mode():
                pixels = self._network.draw(batch.to(device), grid)
            arrays = rearrange(pixels.float().cpu().clamp(0, 1), "b c h w -> b h w c").numpy()
            for index, array in zip(indices, arrays, strict=True):
                found[index] = np.ascontiguousarray(array)
        return [found[index] for index in range(len(codes))]

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        return self._inner.code_vectors(codebook)

    def _check(self, codes: Codes) -> None:
        sizes, array = self._spec.codebook_sizes, codes.array
        if codes.layout not in self._known:
            raise ValueError(f"{self.wrapped_name} has no layout {codes.layout}")
        if array.shape != (codes.layout.num_positions, len(sizes)):
            raise ValueError(
                f"{codes.layout} needs codes [{codes.layout.num_positions}, {len(sizes)}], got "
                f"{list(array.shape)}"
            )
        if (array < 0).any() or (array >= np.array(sizes)).any():
            raise ValueError(f"codes must lie in codebooks of {sizes}, got others")


def spec_of(wrapped: Wrapped, min_psnr: float) -> VisualTokenizerSpec:
    """Return the spec of a tokenizer with another decoder.

    Raises:
        SettingsError: its codes do not lie on a grid of eight pixels a side, or drawing takes more
            than them.
    """
    spec = wrapped.tokenizer.spec
    is_grid = all(isinstance(layout, Grid) and layout.frames == 1 for layout in spec.layouts)
    if not is_grid or spec.pixels != GridPixels(FACTOR) or spec.captions_used or spec.stochastic:
        raise SettingsError(
            f"{wrapped.name!r} cannot be given another decoder: that draws grids of {FACTOR} "
            f"pixels a side to a code, without captions or noise; it has {spec.default_layout} and "
            f"{spec.pixels}"
        )
    return VisualTokenizerSpec(
        codebook_sizes=spec.codebook_sizes,
        layouts=spec.layouts,
        pixels=spec.pixels,
        resize=spec.resize,
        blank_codes=spec.blank_codes,
        min_psnr=min_psnr,
    )


def _network(
    wrapped: Wrapped, settings: DecoderSettings, confusions: Confusions | None
) -> RedecodingNetwork:
    inner: AbstractVisualTokenizer = wrapped.guarded
    tables = [inner.code_vectors(book) for book in range(len(inner.spec.codebook_sizes))]
    return RedecodingNetwork(settings, tables, inner.encode, confusions)
