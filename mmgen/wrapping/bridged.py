"""Codes for the latents of a continuous autoencoder, found after its training.

Each number of a latent has a codebook of its own: bins that equally many latents fall into, as
measured on pictures, and the mean of what fell into a bin as what its code names. The autoencoder
stays as it is (Wang et al., "Bridging Continuous and Discrete Tokens", TokenBridge, 2025).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from mmgen.autoencoding.continuous import AbstractContinuousAutoencoder, Latents
from mmgen.errors import PluginError, SettingsError
from mmgen.visual_tokenizer import Codes, Layout, Parts, Picture, VisualTokenizerSpec
from mmgen.wrapping.wrapper import AbstractWrapper, Arrays, Wrapped

__all__ = ["BinRule", "BridgedTokenizer", "bridge_tokenizer", "continuous"]

BinRule: TypeAlias = Literal["quantile", "gaussian"]
"""Bins of equal shares: of the latents as measured, or of the normal distribution like them."""


class BridgedTokenizer(AbstractWrapper):
    """A continuous autoencoder with bins; one codebook for each number of a latent."""

    name: ClassVar[str] = "bridged"
    maker: ClassVar[str] = "mmgen tokenizer bridge"

    def __init__(
        self,
        wrapped: Wrapped,
        edges: npt.NDArray[np.float32],
        centres: npt.NDArray[np.float32],
        *,
        bins: BinRule,
        min_psnr: float = 0.0,
    ) -> None:
        """Wrap a continuous autoencoder.

        Args:
            edges: where one bin ends and the next begins, ascending, `[dim, bins - 1]`.
            centres: what the codes name, `[dim, bins]`.
            bins: how they were found.
            min_psnr: round-trip PSNR in dB that is promised.

        Raises:
            ValueError: they do not fit the latents.
        """
        super().__init__(wrapped)
        self._autoencoder = continuous(wrapped)
        dim = self._autoencoder.latent_dim
        num_bins = centres.shape[-1]
        if centres.shape != (dim, num_bins) or edges.shape != (dim, num_bins - 1):
            raise ValueError(
                f"bins {list(centres.shape)} with edges {list(edges.shape)} do not fit latents of "
                f"{dim} numbers"
            )
        if not np.isfinite(centres).all() or not (np.diff(edges, axis=1) >= 0).all():
            raise ValueError("centres must be finite and edges ascending")
        self._edges, self._centres, self._bins = edges, centres, bins
        inner = wrapped.tokenizer.spec
        self._spec = VisualTokenizerSpec(
            codebook_sizes=(num_bins,) * dim,
            layouts=inner.layouts,
            pixels=inner.pixels,
            resize=inner.resize,
            blank_codes=(num_bins // 2,) * dim,
            min_psnr=min_psnr,
        )
        self._known = frozenset(inner.layouts)

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    def stated(self) -> dict[str, Any]:
        return {"bins": self._bins, "min_psnr": self._spec.min_psnr}

    def arrays(self) -> Arrays:
        return {"edges": self._edges, "centres": self._centres}

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
        return cls(
            wrapped,
            arrays["edges"],
            arrays["centres"],
            bins=stated["bins"],
            min_psnr=stated["min_psnr"],
        )

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        if length is not None or quality is not None or captions is not None:
            raise ValueError("bridged takes neither a length nor a quality nor captions")
        layouts = [self._layout_of(image) for image in images]
        latents = self._autoencoder.encode_latents(images)
        return [
            Codes(self._codes_of(item, layout), layout)
            for item, layout in zip(latents, layouts, strict=True)
        ]

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        if seed is not None or steps is not None or captions is not None:
            raise ValueError("bridged decodes without noise, steps or captions")
        for item in codes:
            self._check(item)
        columns = np.arange(len(self._centres))
        latents = [self._centres[columns, item.array] for item in codes]
        return self._autoencoder.decode_latents(latents, [item.layout for item in codes])

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        """Return the centres of the bins of one number, `[bins, 1]`."""
        if not 0 <= codebook < len(self._centres):
            raise ValueError(
                f"bridged has {len(self._centres)} codebooks, numbered from 0, got {codebook}"
            )
        vectors: npt.NDArray[np.float32] = self._centres[codebook][:, np.newaxis]
        return vectors

    def _layout_of(self, image: Picture) -> Layout:
        size = image.shape[:2]
        for layout in self._spec.layouts:
            if self._spec.pixels.size_of(layout) == size:
                return layout
        raise ValueError(f"bridged takes the sizes of {self.wrapped_name}, not {size}; resize it")

    def _codes_of(self, latents: Latents, layout: Layout) -> npt.NDArray[np.int64]:
        expected = (layout.num_positions, len(self._centres))
        if latents.shape != expected or not np.isfinite(latents).all():
            raise PluginError(
                f"{self.wrapped_name!r} gave latents {list(latents.shape)}, expected finite "
                f"numbers {list(expected)}; repair that plugin"
            )
        columns = [
            np.searchsorted(edges, latents[:, number], side="right")
            for number, edges in enumerate(self._edges)
        ]
        return np.stack(columns, axis=1).astype(np.int64)

    def _check(self, codes: Codes) -> None:
        dim, num_bins = self._centres.shape
        if codes.layout not in self._known:
            raise ValueError(f"{self.wrapped_name} has no layout {codes.layout}")
        if codes.array.shape != (codes.layout.num_positions, dim):
            raise ValueError(
                f"{codes.layout} needs codes [{codes.layout.num_positions}, {dim}], got "
                f"{list(codes.array.shape)}"
            )
        if codes.array.min() < 0 or codes.array.max() >= num_bins:
            raise ValueError(f"codes must be in 0..{num_bins - 1}, got others")


def continuous(wrapped: Wrapped) -> AbstractContinuousAutoencoder:
    """Return a tokenizer as the continuous autoencoder that it is.

    Raises:
        SettingsError: it is none.
    """
    tokenizer = wrapped.tokenizer
    if not isinstance(tokenizer, AbstractContinuousAutoencoder):
        raise SettingsError(
            f"{wrapped.name!r} has no continuous latents to quantise; take one that implements "
            "mmgen.autoencoding.continuous.AbstractContinuousAutoencoder, such as 'continuous'"
        )
    return tokenizer


def bridge_tokenizer(
    wrapped: Wrapped,
    latents: Sequence[Latents],
    *,
    num_bins: int = 16,
    bins: BinRule = "quantile",
    min_psnr: float = 0.0,
) -> BridgedTokenizer:
    """Return a tokenizer whose bins follow from latents of pictures.

    Args:
        wrapped: a tokenizer that is a continuous autoencoder.
        latents: of pictures that are like those to come.
        num_bins: codes of each number.
        bins: how they are found.
        min_psnr: round-trip PSNR in dB to promise.

    Raises:
        SettingsError: too few latents for so many bins, or latents that do not vary.
    """
    if num_bins < 2:
        raise SettingsError(f"there must be 2 bins or more, got {num_bins}")
    values = np.concatenate(list(latents)) if latents else np.zeros((0, 1), dtype=np.float32)
    if len(values) < 10 * num_bins:
        raise SettingsError(
            f"{len(values)} latents are too few for {num_bins} bins; give more pictures"
        )
    pairs = [_bins(values[:, number], num_bins, bins) for number in range(values.shape[1])]
    edges = np.stack([pair[0] for pair in pairs]).astype(np.float32)
    centres = np.stack([pair[1] for pair in pairs]).astype(np.float32)
    return BridgedTokenizer(wrapped, edges, centres, bins=bins, min_psnr=min_psnr)


def _bins(
    values: npt.NDArray[np.float32], num_bins: int, rule: BinRule
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the edges and the centres of the bins of one number."""
    exact = values.astype(np.float64)
    if not exact.std() > 0:
        raise SettingsError("a number of the latents never changes, so that it has no bins")
    shares = np.arange(1, num_bins) / num_bins
    if rule == "quantile":
        edges = np.quantile(exact, shares)
    else:
        from statistics import NormalDist

        normal = NormalDist(exact.mean(), exact.std())
        edges = np.array([normal.inv_cdf(share) for share in shares])
    members = np.searchsorted(edges, values, side="right")
    counts = np.bincount(members, minlength=num_bins)
    sums = np.bincount(members, weights=exact, minlength=num_bins)
    # A bin that nothing fell into names the middle of its edges.
    outer = np.concatenate([[exact.min()], edges, [exact.max()]])
    middles = (outer[1:] + outer[:-1]) / 2
    return edges, np.where(counts > 0, sums / np.maximum(counts, 1), middles)
