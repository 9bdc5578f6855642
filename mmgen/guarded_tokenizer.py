"""A visual tokenizer in use: what it gives is looked at, and what it raises names its plugin.

The conformance kit finds faults before a tokenizer is used; here nobody has asked. A fault must
then end in one line that says whose it is, not in a grey picture, a crash or a broken file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from mmgen.errors import MmgenError, PluginError
from mmgen.visual_tokenizer import (
    AbstractVisualTokenizer,
    Codes,
    Ordered,
    Parts,
    Picture,
    VisualTokenizerSpec,
)

if TYPE_CHECKING:
    import torch

__all__ = ["GuardedTokenizer"]


class GuardedTokenizer(AbstractVisualTokenizer):
    """Does what another tokenizer does, and raises `PluginError` where that breaks the contract.

    `ValueError` and errors of mmgen pass through: they speak of the arguments.
    """

    def __init__(self, tokenizer: AbstractVisualTokenizer, origin: str) -> None:
        """Guard a tokenizer; `origin` names plugin, distribution and version in messages."""
        self._tokenizer = tokenizer
        self._origin = origin
        with self._blamed("has no spec"):
            self._spec = tokenizer.spec
        if not isinstance(self._spec, VisualTokenizerSpec):
            raise self._fault(
                f"has a {type(self._spec).__name__} for its spec, expected a VisualTokenizerSpec"
            )

    @property
    def spec(self) -> VisualTokenizerSpec:
        return self._spec

    @property
    def fingerprint(self) -> str:
        with self._blamed("has no fingerprint"):
            return self._tokenizer.fingerprint

    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        with self._blamed("cannot encode"):
            found = self._tokenizer.encode(
                images, length=length, quality=quality, captions=captions
            )
        self._check_number(found, len(images), "pictures")
        for image, codes in zip(images, found, strict=True):
            self._check_codes(image, codes)
        return found

    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        with self._blamed("cannot decode"):
            found = self._tokenizer.decode(codes, seed=seed, steps=steps, captions=captions)
        self._check_number(found, len(codes), "items of codes")
        for item, picture in zip(codes, found, strict=True):
            self._check_picture(item, picture)
        return found

    def preview(self, codes: Codes, *, caption: str | None = None) -> Picture:
        # Without one, a plugin whose preview knows no captions is called as it always was.
        options = {} if caption is None else {"caption": caption}
        with self._blamed("cannot preview"):
            picture = self._tokenizer.preview(codes, **options)
        self._check_picture(codes, picture)
        return picture

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        with self._blamed("has no code vectors"):
            table = self._tokenizer.code_vectors(codebook)
        size = self._spec.codebook_sizes[codebook]
        if table.ndim != 2 or len(table) != size or not np.isfinite(table).all():
            raise self._fault(
                f"gave code vectors {list(table.shape)}, expected finite numbers [{size}, dim]"
            )
        return table

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        parts: Parts = "both",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        raise PluginError("a guard is put around a tokenizer that is loaded; it loads none itself")

    def save(self, path: Path) -> None:
        with self._blamed("cannot be saved"):
            self._tokenizer.save(path)

    @classmethod
    def untrained(cls, settings: Mapping[str, object], *, seed: int) -> Self:
        raise PluginError("a guard is put around a tokenizer that is loaded; it makes none itself")

    def network(self) -> torch.nn.Module:
        return self._tokenizer.network()

    def _check_number(self, found: Sequence[object], expected: int, what: str) -> None:
        if len(found) != expected:
            raise self._fault(f"gave {len(found)} results for {expected} {what}")

    def _check_codes(self, image: Picture, codes: Codes) -> None:
        size, layout, array = image.shape[:2], codes.layout, codes.array
        if layout not in self._spec.layouts:
            raise self._fault(f"gave the layout {layout}, which its spec does not list")
        if self._spec.pixels.size_of(layout) != size:
            raise self._fault(f"gave {layout}, which is of another size, for a picture {size}")
        expected = (layout.num_positions, len(self._spec.codebook_sizes))
        if array.shape != expected:
            raise self._fault(f"gave codes {list(array.shape)}, expected {list(expected)}")
        if (array < 0).any() or (array >= self._spec.codebook_sizes).any():
            raise self._fault(
                f"gave codes {array.min()} to {array.max()}, beyond its codebooks of "
                f"{self._spec.codebook_sizes}"
            )

    def _check_picture(self, codes: Codes, picture: Picture) -> None:
        layout = codes.layout
        if isinstance(layout, Ordered) and self._spec.prefix_decodable:
            layout = self._spec.default_layout
        expected = (*self._spec.pixels.size_of(layout), 3)
        if picture.shape != expected or picture.dtype != np.float32:
            raise self._fault(
                f"drew {picture.dtype} {list(picture.shape)}, expected float32 {list(expected)}"
            )
        # Also true of NaN, which compares as false.
        if not (picture.min() >= 0 and picture.max() <= 1):
            raise self._fault(
                f"drew values {picture.min():.4g} to {picture.max():.4g}, expected 0 to 1"
            )

    @contextmanager
    def _blamed(self, what: str) -> Iterator[None]:
        try:
            yield
        except (MmgenError, ValueError):
            raise
        except (Exception, SystemExit) as error:  # a stranger's code may raise anything
            raise self._fault(f"{what}: {type(error).__name__}: {error}") from error

    def _fault(self, found: str) -> PluginError:
        return PluginError(
            f"{self._origin} {found}; `mmgen tokenizer check` says more: repair the plugin, or "
            "install another version"
        )
