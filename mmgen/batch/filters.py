"""Pictures that are left out before work begins: too small, too long, or there already.

Every picture is looked at once. What is left out is counted by reason, and the rows that stay are
numbered anew, so that a job knows only those.
"""

from __future__ import annotations

import hashlib
import io
from array import array
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from PIL import Image

from mmgen.batch.readers import AbstractReader
from mmgen.batch.rows import InputRow, Row
from mmgen.errors import MmgenError, SettingsError
from mmgen.pictures import open_picture

__all__ = ["FilteredReader", "PictureFilter", "Seen", "likeness"]

MAX_OTHER_BITS = 3
"""In how many of 64 places pictures that look alike may differ."""
MAX_OTHER_HUE = 16
"""By how much their mean colours may differ, of 255."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureFilter:
    """Which pictures stay."""

    min_side: int = 0
    """Shortest side, in pixels."""
    max_aspect: float | None = None
    """Longest side in shortest sides; None for any."""
    duplicates: Literal["keep", "same", "alike"] = "keep"
    """Of pictures with the same bytes, or of those that look alike, only the first stays."""

    def __post_init__(self) -> None:
        if self.min_side < 0:
            raise SettingsError(f"the shortest side must be 0 or more, got {self.min_side}")
        if self.max_aspect is not None and not 1 <= self.max_aspect:
            raise SettingsError(f"the aspect must be 1 or more, got {self.max_aspect}")

    @property
    def is_free(self) -> bool:
        """Whether every picture stays."""
        return self == PictureFilter()

    def fault(self, width: int, height: int) -> str | None:
        """Return why a picture of a size is left out, or None."""
        short, long = sorted((width, height))
        if short < self.min_side:
            return f"a side below {self.min_side} pixels"
        if self.max_aspect is not None and long > self.max_aspect * short:
            return f"an aspect above {self.max_aspect:g}"
        return None


class FilteredReader(AbstractReader):
    """The rows of another reader whose pictures stay; rows that cannot be read stay too."""

    def __init__(self, reader: AbstractReader, rules: PictureFilter) -> None:
        """Look at every picture."""
        self._reader = reader
        self._kept = array("Q")
        self.left_out: Counter[str] = Counter()
        """How many rows are left out, by reason."""
        seen = Seen(rules.duplicates)
        for row in reader.rows():
            reason = _reason(row, rules, seen)
            if reason is None:
                self._kept.append(row.index)
            else:
                self.left_out[reason] += 1

    @property
    def kind(self) -> str:
        return self._reader.kind

    @property
    def places(self) -> tuple[str, ...]:
        return self._reader.places

    def rows(self) -> Iterator[InputRow]:
        kept = iter(enumerate(self._kept))
        index, wanted = next(kept, (0, None))
        for row in self._reader.rows():
            if row.index == wanted:
                yield replace(row, index=index)
                index, wanted = next(kept, (0, None))


class Seen:
    """Pictures that came before, and whether another is one of them."""

    def __init__(self, duplicates: Literal["keep", "same", "alike"]) -> None:
        self._duplicates = duplicates
        self._digests: set[bytes] = set()
        self._alike: dict[tuple[int, int], list[tuple[int, tuple[int, ...]]]] = {}

    def doubles(self, data: bytes) -> str | None:
        """Return what is said of a picture that came before; remember any other."""
        if self._duplicates == "keep":
            return None
        digest = hashlib.blake2b(data, digest_size=16).digest()
        if digest in self._digests:
            return "the same picture"
        if self._duplicates == "alike" and self._looks_known(open_picture(data)):
            return "a picture that looks alike"
        self._digests.add(digest)
        return None

    def _looks_known(self, picture: Image.Image) -> bool:
        bits, colour = likeness(picture)
        # Bits that differ in few places agree wholly in one of the bands, where they are found.
        bands = [(band, bits >> (16 * band) & 0xFFFF) for band in range(MAX_OTHER_BITS + 1)]
        for band in bands:
            for other, hue in self._alike.get(band, ()):
                is_near = max(abs(a - b) for a, b in zip(colour, hue, strict=True)) <= MAX_OTHER_HUE
                if is_near and (bits ^ other).bit_count() <= MAX_OTHER_BITS:
                    return True
        for band in bands:
            self._alike.setdefault(band, []).append((bits, colour))
        return False


def likeness(picture: Image.Image) -> tuple[int, tuple[int, ...]]:
    """Return what pictures that look alike have nearly in common.

    64 bits say where the picture grows brighter to the right; the colour is its mean.
    """
    small = picture.convert("L").resize((9, 8), Image.Resampling.BOX)
    pixels = np.asarray(small, dtype=np.int16)
    bits = int.from_bytes(np.packbits(pixels[:, 1:] > pixels[:, :-1]).tobytes())
    (colour,) = np.asarray(picture.resize((1, 1), Image.Resampling.BOX)).reshape(1, 3)
    return bits, tuple(map(int, colour))


def _reason(row: InputRow, rules: PictureFilter, seen: Seen) -> str | None:
    """Return why a row is left out; what cannot be read is left to be reported by the job."""
    if not isinstance(row, Row) or row.picture is None:
        return None
    try:
        data = row.picture.read()
        with Image.open(io.BytesIO(data)) as picture:
            fault = rules.fault(*picture.size)
        return fault or seen.doubles(data)
    except (MmgenError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None
