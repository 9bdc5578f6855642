"""The plugin contract: what a visual tokenizer is and what it promises.

A plugin turns pixels into codes and back and never sees a token id. It imports this module,
`mmgen.errors`, `mmgen.testing` and, if it likes, `mmgen.autoencoding`, nothing else of mmgen. A
picture is an array `[height, width, 3]`, float32, RGB in 0..1; codes are integers local to a
codebook. A spec lists every `Layout` of positions that the tokenizer can produce.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Self, TypeAlias

import numpy as np
import numpy.typing as npt

from mmgen.errors import PluginError

if TYPE_CHECKING:
    import torch

__all__ = [
    "AbstractVisualTokenizer",
    "Codes",
    "FixedPixels",
    "Grid",
    "GridPixels",
    "Layout",
    "Ordered",
    "Parts",
    "Picture",
    "PixelRule",
    "Resize",
    "Scales",
    "Segments",
    "TrainingOutput",
    "VisualTokenizerSpec",
]

Picture: TypeAlias = npt.NDArray[np.float32]
"""One picture, `[height, width, 3]`, float32 RGB in 0..1."""

Parts: TypeAlias = Literal["both", "encoder", "decoder"]
"""Which halves of a tokenizer to load."""

Resize: TypeAlias = Literal["crop", "pad", "stretch"]
"""What happens to a picture of another size: cover and cut the centre, fit on white, or distort."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Positions on a grid in raster order; `frames` is the slowest axis."""

    rows: int
    columns: int
    frames: int = 1

    def __post_init__(self) -> None:
        if min(self.rows, self.columns, self.frames) < 1:
            raise ValueError(f"a grid needs positive sides, got {self}")

    @property
    def num_positions(self) -> int:
        return self.frames * self.rows * self.columns

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.frames, self.rows, self.columns)


@dataclass(frozen=True, slots=True)
class Ordered:
    """`length` positions in a sequence, the most telling first (TiTok, FlexTok)."""

    length: int

    def __post_init__(self) -> None:
        if self.length < 1:
            raise ValueError(f"an ordered layout needs at least one position, got {self}")

    @property
    def num_positions(self) -> int:
        return self.length

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.length,)


@dataclass(frozen=True, slots=True)
class Scales:
    """Grids `(rows, columns)` from coarse to fine, each in raster order (VAR)."""

    sizes: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if not self.sizes or any(min(size) < 1 for size in self.sizes):
            raise ValueError(f"scales need at least one size and positive sides, got {self.sizes}")

    @property
    def num_positions(self) -> int:
        return sum(rows * columns for rows, columns in self.sizes)

    @property
    def shape(self) -> tuple[int, ...]:
        """The finest scale; two layouts of one spec must differ in it."""
        return self.sizes[-1]


@dataclass(frozen=True, slots=True)
class Segments:
    """Layouts one after another, for example holistic tokens and then a grid."""

    parts: tuple[Grid | Ordered | Scales, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("segments need at least one part")

    @property
    def num_positions(self) -> int:
        return sum(part.num_positions for part in self.parts)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(side for part in self.parts for side in part.shape)


Layout: TypeAlias = Grid | Ordered | Scales | Segments


@dataclass(frozen=True, slots=True)
class FixedPixels:
    """Every layout stands for a picture of one size."""

    height: int
    width: int

    def size_of(self, layout: Layout) -> tuple[int, int]:
        """Return `(height, width)` in pixels of a picture with this layout."""
        return (self.height, self.width)


@dataclass(frozen=True, slots=True)
class GridPixels:
    """A grid position stands for a square of `factor` pixels a side (the downsample factor)."""

    factor: int

    def size_of(self, layout: Layout) -> tuple[int, int]:
        """Return `(height, width)` in pixels of a picture with this layout."""
        grid = layout
        if isinstance(grid, Segments):
            grid = next(part for part in reversed(grid.parts) if not isinstance(part, Ordered))
        if isinstance(grid, Scales):
            rows, columns = grid.sizes[-1]
            return (rows * self.factor, columns * self.factor)
        assert isinstance(grid, Grid), f"{layout} has no grid to measure in pixels"
        return (grid.rows * self.factor, grid.columns * self.factor)


PixelRule: TypeAlias = FixedPixels | GridPixels


@dataclass(frozen=True, slots=True, kw_only=True)
class VisualTokenizerSpec:
    """What is known of a tokenizer before its weights are loaded."""

    codebook_sizes: tuple[int, ...]
    """Number of codes in each codebook; one code of each is emitted at every position."""
    layouts: tuple[Layout, ...]
    """Every layout a picture may have, all of one class, the default first."""
    pixels: PixelRule
    """The size of a picture, from its layout."""
    resize: Resize = "crop"
    """What the caller does to a picture of another size before `encode`."""
    blank_codes: tuple[int, ...] = ()
    """One code per codebook with which a preview fills what is not drawn yet; zeros if empty."""
    prefix_decodable: bool = False
    """Whether `decode` takes a prefix: a shorter `Ordered` layout for the same picture."""
    chooses_length: bool = False
    """Whether `encode` without a length takes the one that a picture needs: callers name none, and
    a vocabulary has all lengths of a size, so that a model can choose as well."""
    captions_used: frozenset[Literal["encode", "decode"]] = frozenset()
    """Where caption text is an input."""
    stochastic: bool = False
    """Whether `decode` draws noise (and so takes a seed and a number of steps)."""
    min_psnr: float = 0.0
    """Round-trip PSNR in dB that the tokenizer promises on its kind of picture (conformance)."""

    def __post_init__(self) -> None:
        if not self.codebook_sizes or min(self.codebook_sizes) < 2:
            raise ValueError(f"codebook_sizes need 2 codes or more each, got {self.codebook_sizes}")
        if not self.layouts:
            raise ValueError("layouts must list at least one layout")
        if len({type(layout) for layout in self.layouts}) != 1:
            raise ValueError("layouts must all be of one class")
        shapes = [layout.shape for layout in self.layouts]
        if len(set(shapes)) != len(shapes):
            raise ValueError("two layouts have the same shape, so that a spelling would be unclear")
        if len({len(shape) for shape in shapes}) != 1:
            raise ValueError("layouts must have shapes with equally many sides")
        if self.blank_codes and len(self.blank_codes) != len(self.codebook_sizes):
            raise ValueError(
                f"blank_codes has {len(self.blank_codes)} codes for {len(self.codebook_sizes)} "
                "codebooks; give one each"
            )
        for code, size in zip(self.blank_codes, self.codebook_sizes, strict=False):
            if not 0 <= code < size:
                raise ValueError(f"blank code {code} is outside its codebook of {size} codes")
        if self.prefix_decodable and not isinstance(self.layouts[0], Ordered):
            raise ValueError("prefix_decodable needs Ordered layouts")
        if self.chooses_length and not isinstance(self.layouts[0], Ordered):
            raise ValueError("chooses_length needs Ordered layouts")

    @property
    def default_layout(self) -> Layout:
        return self.layouts[0]

    @property
    def sizes(self) -> tuple[tuple[int, int], ...]:
        """The picture sizes `(height, width)` in pixels, each once, in the order of `layouts`."""
        return tuple(dict.fromkeys(self.pixels.size_of(layout) for layout in self.layouts))


@dataclass(frozen=True, slots=True, eq=False)
class Codes:
    """The codes of one picture: an integer array `[positions, codebooks]` in spelling order."""

    array: npt.NDArray[np.int64]
    layout: Layout

    def __post_init__(self) -> None:
        if self.array.ndim != 2 or not np.issubdtype(self.array.dtype, np.integer):
            raise ValueError(
                "codes must be an integer array [positions, codebooks], got "
                f"{self.array.dtype} {list(self.array.shape)}"
            )
        if len(self.array) > self.layout.num_positions:
            raise ValueError(
                f"{len(self.array)} positions do not fit {self.layout}, "
                f"which has {self.layout.num_positions}"
            )

    @property
    def is_complete(self) -> bool:
        return len(self.array) == self.layout.num_positions

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Codes)
            and self.layout == other.layout
            and np.array_equal(self.array, other.array)
        )

    def __hash__(self) -> int:
        return hash((self.layout, self.array.tobytes()))


@dataclass(frozen=True, slots=True)
class TrainingOutput:
    """What a tokenizer's network gives to the tokenizer trainer for one batch."""

    reconstruction: torch.Tensor
    """`[batch, 3, height, width]`, unclamped."""
    codes: torch.Tensor
    """Integers `[batch, positions, codebooks]`, for the share of codes in use."""
    losses: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Further terms to add to the reconstruction loss, already weighted, by name."""


class AbstractVisualTokenizer(ABC):
    """Pixels to codes and back. A plain plugin implements `spec`, `encode` and `decode`."""

    is_trainable: ClassVar[bool] = False
    """Whether `untrained`, `network` and `save` are implemented."""

    @property
    @abstractmethod
    def spec(self) -> VisualTokenizerSpec:
        """The frozen description."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """SHA-256 in hex over everything that changes a code or a pixel: settings and weights."""

    @abstractmethod
    def encode(
        self,
        images: Sequence[Picture],
        *,
        length: int | None = None,
        quality: float | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Codes]:
        """Return the codes of each picture.

        Args:
            images: pictures whose sizes are among `spec.sizes`; they may differ.
            length: positions wanted, for specs with `Ordered` layouts of several lengths.
            quality: 0..1, from which such a tokenizer chooses the length itself.
            captions: one text per picture, where `spec.captions_used` has "encode"; else empty.

        Raises:
            ValueError: a size, length, quality or caption that the spec does not allow.
        """

    @abstractmethod
    def decode(
        self,
        codes: Sequence[Codes],
        *,
        seed: int | None = None,
        steps: int | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Picture]:
        """Return the picture of each item, in 0..1, of the size its layout stands for.

        Args:
            codes: complete codes; they may differ in layout.
            seed: for a stochastic tokenizer; equal seeds give equal pictures.
            steps: for a stochastic tokenizer, the number of refinement steps.
            captions: likewise, where it has "decode".

        Raises:
            ValueError: incomplete codes, a code outside its codebook, a layout not in the spec.
        """

    def preview(self, codes: Codes, *, caption: str | None = None) -> Picture:
        """Return a picture of codes that are still arriving; the rest shows the blank code."""
        layout, array = codes.layout, codes.array
        missing = layout.num_positions - len(array)
        if self.spec.prefix_decodable and 0 < len(array) and missing:
            layout = Ordered(len(array))
        else:
            blank = self.spec.blank_codes or (0,) * len(self.spec.codebook_sizes)
            array = np.concatenate([array, np.tile(np.array(blank, dtype=np.int64), (missing, 1))])
        captions = None if caption is None else [caption]
        return self.decode([Codes(array, layout)], captions=captions)[0]

    def code_vectors(self, codebook: int) -> npt.NDArray[np.float32]:
        """Return what the codes of one codebook name, `[codebook_size, dim]`.

        The default is one number per code, its index scaled to 0..1: enough for a tokenizer whose
        codes are already ordered. Learned codebooks override it.
        """
        size = self.spec.codebook_sizes[codebook]
        return np.linspace(0.0, 1.0, size, dtype=np.float32)[:, np.newaxis]

    @classmethod
    def load(
        cls,
        path: Path | None = None,
        *,
        parts: Parts = "both",
        device: str = "cpu",
        dtype: str = "float32",
    ) -> Self:
        """Load from a directory that `save` wrote, or, without one, as the distribution ships it.

        Args:
            path: directory of settings and weights.
            parts: halves to load; calling a half that was not loaded raises `PluginError`.
            device: a torch device, for tokenizers that run on one.
            dtype: a torch floating-point type by name, likewise.
        """
        if path is not None:
            raise PluginError(
                f"{cls.__name__} has no settings or weights of its own, so it cannot be loaded "
                f"from {path}; load it without a path"
            )
        return cls()

    def save(self, path: Path) -> None:  # noqa: B027
        """Write settings and weights, if it has any, into a directory that is there, for `load`."""

    @classmethod
    def untrained(cls, settings: Mapping[str, object], *, seed: int) -> Self:
        """Return a tokenizer with fresh weights, for training."""
        raise PluginError(f"{cls.__name__} has nothing to train")

    def begin_training(  # noqa: B027
        self, pictures: torch.Tensor, captions: Sequence[str] = ()
    ) -> None:
        """Look at some `[num, 3, height, width]` for weights that start from data; does nothing.

        Where `spec.captions_used` names anything, captions come with them, some empty.
        """

    def network(self) -> torch.nn.Module:
        """Return the module to train: `[batch, 3, height, width]` in 0..1 to `TrainingOutput`.

        Where `spec.captions_used` names anything, it also takes a list of captions, some empty.
        """
        raise PluginError(f"{type(self).__name__} has nothing to train")
